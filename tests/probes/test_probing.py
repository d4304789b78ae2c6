"""Golden probes end to end: `hip probe record`, a running proxy, a model server whose model somebody replaces."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from changed_models import poisoned, rounding, swapped

from proxy.app import Running, running
from proxy.cli.probe import record_command
from proxy.demo.digits import MODEL_FILE, load_digits, scaled
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.demo.model_server import ModelServer
from proxy.errors import ConfigError
from proxy.policy.compile import compile_policy

CONFIG = """\
version: v1
listen: {host: 127.0.0.1, port: 0, plaintext: allowed}
admin: {host: 127.0.0.1, port: 0}
policies: policy
audit: {directory: audit}
"""
POLICY = """\
version: v1
issuers:
  corp:
    issuer: "ISSUER"
    audience: AUDIENCE
    jwks_file: ../jwks.json
    algorithms: [ES256]
    roles_claim: realm_access.roles
upstreams:
  server: {url: "URL", dialect: oip-v2}
models:
  digits: {upstream: server}
budgets:
  few: [1000 requests/minute]
outputs:
  coarse: {decimals: 2}
probes:
  golden: {model: digits, file: golden.json, sha256: SHA256, every: 1s, on_change: ON_CHANGE}
rules:
  - id: analysts
    allow: {roles: [analyst], actions: [infer, metadata, health], models: [digits]}
    budget: few
    output: coarse
"""
SOON = 20.0  # seconds that an outcome may take, on a busy machine


@dataclass(frozen=True)
class World:
    directory: Path
    server: ModelServer
    proxy: Running
    identity: DemoIdentityProvider

    async def ask(self, path: str = "/infer") -> int:
        row = scaled(load_digits().heldout[:1])[0].tolist()
        body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": row}]}
        headers = {"authorization": f"Bearer {self.identity.token('a', ['analyst'])}"}
        url = f"http://127.0.0.1:{self.proxy.port}/v2/models/digits{path}"
        async with httpx.AsyncClient(trust_env=False, timeout=SOON) as http:
            method = "POST" if path == "/infer" else "GET"
            return (
                await http.request(method, url, json=body if path == "/infer" else None, headers=headers)
            ).status_code

    async def admin(self, path: str) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=SOON) as http:
            return (await http.get(f"http://127.0.0.1:{self.proxy.admin_port}{path}")).text

    def probes(self) -> list[dict[str, object]]:
        lines = [
            json.loads(line)
            for path in sorted((self.directory / "audit").glob("*.jsonl"))
            if path.name != "anchors.jsonl"
            for line in path.read_text().splitlines()
        ]
        return [line for line in lines if line.get("type") == "probe"]

    async def outcome(self, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """Return the first probe on record, of those to come, of which something holds."""
        seen = len(self.probes())
        async with asyncio.timeout(SOON):
            while True:
                found = [probe for probe in self.probes()[seen:] if wanted(probe)]
                if found:
                    return found[0]
                await asyncio.sleep(0.02)


def record(url: str, directory: Path, **more: object) -> str:
    np.save(directory / "rows.npy", scaled(load_digits().heldout[:200]))
    output = directory / "policy" / "golden.json"
    record_command(url, directory / "rows.npy", output, rows=200, **more)
    return hashlib.sha256(output.read_bytes()).hexdigest()


@asynccontextmanager
async def world(directory: Path, on_change: str = "quarantine") -> AsyncIterator[World]:
    async with ModelServer() as server, before(server, directory, on_change) as built:
        yield built


@asynccontextmanager
async def before(
    server, directory: Path, on_change: str = "quarantine", urls: str = "", **more: object
) -> AsyncIterator[World]:
    """Put the proxy, and a probe that was just recorded, before a model server."""
    identity = DemoIdentityProvider(port=1)
    (directory / "jwks.json").write_bytes(identity.jwks())
    (directory / "policy").mkdir()
    (directory / "hip.yaml").write_text(CONFIG)
    sha256 = await asyncio.to_thread(record, f"{server.url}/v2/models/digits", directory, **more)
    text = POLICY.replace('url: "URL"', urls or f'url: "{server.url}"')
    text = text.replace("AUDIENCE", AUDIENCE).replace("ISSUER", identity.issuer)
    text = text.replace("SHA256", sha256).replace("ON_CHANGE", on_change)
    (directory / "policy" / "policy.yaml").write_text(text)
    async with running(directory / "hip.yaml") as proxy:
        yield World(directory, server, proxy, identity)


@pytest.mark.parametrize(
    ("model", "told"),
    [(poisoned, "of the labels flipped"), (lambda: rounding(6), "decimals"), (swapped, "of the labels flipped")],
    ids=["retrained with 5 % flipped labels", "silently rounded", "swapped"],
)
async def test_a_replaced_model_is_quarantined_until_it_is_put_back(tmp_path, model, told) -> None:
    async with world(tmp_path) as of:
        await of.outcome(lambda probe: probe["outcome"] == "same")
        assert await of.ask() == 200
        assert '"probe:golden": {"health": "ok"' in (await of.admin("/readyz")).replace('":{"', '": {"').replace(
            '":"', '": "'
        )
        of.server.load(model())
        changed = await of.outcome(lambda probe: probe["outcome"] == "changed")
        assert told in changed["detail"]
        assert changed["quarantined"] is True
        assert await of.ask() == 503
        assert await of.ask("") == 200, "metadata is not an answer of the model"
        metrics = await of.admin("/metrics")
        assert 'hip_model_quarantined{model="digits"} 1.0' in metrics
        assert 'hip_probe_changed{probe="golden"} 1.0' in metrics
        of.server.load(MODEL_FILE.read_bytes())
        back = await of.outcome(lambda probe: probe["outcome"] == "same")
        assert back["quarantined"] is False
        assert await of.ask() == 200


async def test_one_replica_that_changed_closes_the_model_until_all_are_as_they_were(tmp_path) -> None:
    """The well one is asked, too, and answers as recorded: that opens nothing. Nor does the changed one's absence."""
    async with ModelServer() as well, ModelServer() as other:
        urls = f'urls: ["{well.url}", "{other.url}"], health: {{every: 1s}}'
        async with before(well, tmp_path, urls=urls) as of:
            await of.outcome(lambda probe: probe["outcome"] == "same")
            other.load(poisoned())
            changed = await of.outcome(lambda probe: probe["outcome"] == "changed")
            told = str(changed["detail"])
            assert other.url.removeprefix("http://") in told
            assert well.url.removeprefix("http://") not in told
            assert 0 < changed["flips"] < 0.2
            await of.outcome(lambda _: True)
            await of.outcome(lambda _: True)
            assert {probe["outcome"] for probe in of.probes()[-2:]} == {"changed"}
            assert await of.ask() == 503
            port = other.port
            await other.stop()
            failed = await of.outcome(lambda probe: probe["outcome"] == "failed")
            assert failed["quarantined"] is True
            assert await of.ask() == 503
            async with ModelServer(port):
                await of.outcome(lambda probe: probe["outcome"] == "same")
                assert await of.ask() == 200


async def test_an_alarm_closes_nothing_and_a_new_baseline_ends_it(tmp_path) -> None:
    async with world(tmp_path, "alarm") as of:
        of.server.load(poisoned())
        changed = await of.outcome(lambda probe: probe["outcome"] == "changed")
        assert changed["quarantined"] is False
        assert 0 < changed["flips"] < 0.2
        assert await of.ask() == 200
        old = changed["baseline"]
        policy = tmp_path / "policy" / "policy.yaml"
        fresh = await asyncio.to_thread(record, f"{of.server.url}/v2/models/digits", tmp_path)
        policy.write_text(policy.read_text().replace(str(old), fresh))
        same = await of.outcome(lambda probe: probe["baseline"] == fresh)
        assert same["outcome"] == "same"


async def test_a_model_that_cannot_be_asked_has_failed_and_is_not_quarantined(tmp_path) -> None:
    async with world(tmp_path) as of:
        await of.server.stop()
        failed = await of.outcome(lambda probe: probe["outcome"] == "failed")
        assert failed["quarantined"] is False
        assert "upstream" in str(failed["detail"])


async def test_probes_cost_no_budget_and_leave_no_decision(tmp_path) -> None:
    async with world(tmp_path) as of:
        await of.outcome(lambda probe: probe["outcome"] == "same")
        journal = "".join(path.read_text() for path in (tmp_path / "audit").glob("*.jsonl"))
        assert '"type":"decision"' not in journal


def compiled(probe: str) -> object:
    text = (
        POLICY.replace("URL", "http://127.0.0.1:1").replace("ISSUER", "https://idp.example").replace("SHA256", "0" * 64)
    )
    line = next(line for line in text.splitlines() if line.startswith("  golden:"))
    return compile_policy({"policy.yaml": text.replace(line, f"  golden: {{{probe}}}").encode()})


GOOD = f'model: digits, file: golden.json, sha256: "{"0" * 64}"'


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (GOOD.replace("digits", "iris"), "unknown model `iris`"),
        (GOOD.replace("golden.json", "../golden.json"), "not a file in the policy directory"),
        (GOOD + ", every: 10ms", "at least 1s"),
        (GOOD + ", flips: 2", "flips"),
        (GOOD + ", on_change: shrug", "on_change"),
    ],
)
def test_a_probe_that_cannot_be_meant_is_refused(probe, message) -> None:
    assert compiled(GOOD).probes[0].tolerance.flips == 0.0
    with pytest.raises(ConfigError, match=message):
        compiled(probe)
