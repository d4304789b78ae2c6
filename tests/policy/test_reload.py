"""Reload, through a real `hip serve`: a good change is live, a bad one changes nothing, and nobody loses a request."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner

from proxy.adapters.policy_seal import make_keys, read_signer, write_whole
from proxy.cli import app
from proxy.demo.identity import DemoIdentityProvider
from proxy.demo.loopback import LoopbackServer
from proxy.policy.compile import digest
from proxy.policy.signature import KEY_NAME, Signed, sign
from tests.hip import CONFIG, Hip, hip_serve

READY = "/v2/models/digits/ready"
WAIT = 30  # seconds until a test gives up
CALLERS, ROUNDS = 100, 4  # policies in turn while the callers ask
AT_LEAST = 3  # requests of each caller


def policy(port: int, actions: str = "health") -> str:
    return f"""\
version: v1
issuers:
  corp: {{issuer: "http://127.0.0.1:1", audience: inference-proxy, jwks_file: ../jwks.json,
         algorithms: [ES256], roles_claim: realm_access.roles}}
upstreams:
  main: {{url: "http://127.0.0.1:{port}", dialect: oip-v2}}
models:
  digits: {{upstream: main}}
budgets:
  some: [1000000 requests/minute]
outputs:
  coarse: {{decimals: 2}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [{actions}], models: [digits]}}
    budget: some
    output: coarse
"""


class Backend:
    """A model server that can be told to hold its answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.server = LoopbackServer(Starlette(routes=[Route(READY, self._ready)]))

    async def _ready(self, _: Request) -> JSONResponse:
        self.asked.set()
        await self.open.wait()
        return JSONResponse({})


@asynccontextmanager
async def backend() -> AsyncIterator[Backend]:
    held = Backend()
    async with held.server:
        yield held


@asynccontextmanager
async def served(directory: Path, text: str, config: str = CONFIG) -> AsyncIterator[tuple[Hip, httpx.AsyncClient]]:
    identity = DemoIdentityProvider(port=1)
    (directory / "jwks.json").write_bytes(identity.jwks())
    with hip_serve(directory, text, config) as hip:
        who = {"authorization": f"Bearer {identity.token('alice', ['analyst'])}"}
        limits = httpx.Limits(max_connections=CALLERS)
        async with httpx.AsyncClient(
            base_url=hip.url, verify=hip.trust(), trust_env=False, headers=who, limits=limits, timeout=WAIT
        ) as http:
            yield hip, http


def put(hip: Hip, text: str) -> str:
    """Write the policy in one step; return its digest."""
    write_whole(hip.directory / "policy/policy.yaml", text.encode())
    return digest({"policy.yaml": text.encode()})


async def until(what: Callable[[], bool]) -> None:
    """Ask again and again; a reload is noticed by the file system, which tells nobody here."""
    last = time.monotonic() + WAIT
    while not await asyncio.to_thread(what):
        assert time.monotonic() < last, "nothing changed"
        await asyncio.sleep(0.05)


def readiness(hip: Hip) -> dict[str, object]:
    answer = httpx.get(f"{hip.admin_url}/readyz", trust_env=False)
    return {**answer.json(), "code": answer.status_code}


def serves(hip: Hip, wanted: str) -> Callable[[], bool]:
    return lambda: readiness(hip)["policy"] == wanted


def rejected(hip: Hip) -> Callable[[], bool]:
    return lambda: "rejected" in json.dumps(readiness(hip))


def policy_records(hip: Hip) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in hip.journal().splitlines()]
    return [(line["effect"], line["policy"]) for line in lines if line["type"] == "policy"]


async def test_good_bad_and_good_again(tmp_path: Path) -> None:
    """Live; then kept, and said in /readyz, the metrics, the log and the journal; then live."""
    async with backend() as held:
        first = policy(held.server.port)
        async with served(tmp_path, first) as (hip, http):
            assert (await http.get(READY)).status_code == 200

            closed = put(hip, policy(held.server.port, "metadata"))
            await until(serves(hip, closed))
            assert (await http.get(READY)).status_code == 403

            put(hip, first.replace("roles:", "roels:"))
            await until(rejected(hip))
            told = readiness(hip)
            assert (told["code"], told["policy"]) == (200, closed), "the last good policy keeps serving"
            assert "did you mean `roles`?" in json.dumps(told)
            assert (await http.get(READY)).status_code == 403
            metrics = await asyncio.to_thread(httpx.get, f"{hip.admin_url}/metrics", trust_env=False)
            assert "hip_policy_reload_failures_total 1.0" in metrics.text
            log = (tmp_path / "hip.log").read_text()
            assert "the policy was not reloaded; the one before still serves" in log

            again = put(hip, first)
            await until(serves(hip, again))
            assert (await http.get(READY)).status_code == 200
        assert policy_records(hip) == [("loaded", closed), ("rejected", closed), ("loaded", again)]
    told = CliRunner().invoke(app, ["replay", str(tmp_path / "audit"), "--policy", str(tmp_path / "policy")])
    assert told.exit_code == 1, told.output
    assert "gains access\n  2 requests of 1 caller: no_rule → analysts: MFA, budget some, 2 decimals" in told.output
    assert "the same: 2 requests" in told.output


async def test_a_config_map_is_swapped_as_a_whole(tmp_path: Path) -> None:
    """Two files, every one a link through `..data`; an update is one rename of `..data`."""
    async with backend() as held:
        root = tmp_path / "policy"
        text = policy(held.server.port)
        head, _, rules = text.partition("rules:\n")
        mount(root, "..1", {"policy.yaml": head, "rules.yaml": "version: v1\nrules:\n" + rules})
        async with served(tmp_path, head) as (hip, http):
            assert (await http.get(READY)).status_code == 200
            files = {"policy.yaml": head, "rules.yaml": "version: v1\nrules:\n" + rules.replace("health", "metadata")}
            mount(root, "..2", files)
            await until(serves(hip, digest({name: content.encode() for name, content in files.items()})))
            assert (await http.get(READY)).status_code == 403


def mount(root: Path, version: str, files: dict[str, str]) -> None:
    """Do what a kubelet does."""
    (root / version).mkdir(parents=True)
    for name, content in files.items():
        (root / version / name).write_text(content)
    (root / "..data_tmp").symlink_to(version)
    (root / "..data_tmp").replace(root / "..data")
    for name in files:
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"..data/{name}")


async def test_a_request_ends_under_the_policy_it_began_with(tmp_path: Path) -> None:
    async with backend() as held:
        held.open.clear()
        first = policy(held.server.port)
        async with served(tmp_path, first) as (hip, http):
            waiting = asyncio.create_task(http.get(READY))
            await asyncio.wait_for(held.asked.wait(), WAIT)
            closed = put(hip, policy(held.server.port, "metadata"))
            await until(serves(hip, closed))
            assert (await http.get(READY)).status_code == 403
            held.open.set()
            assert (await waiting).status_code == 200
        lines = [json.loads(line) for line in hip.journal().splitlines()]
        began, later = [line for line in lines if line["type"] == "decision"]
        assert (began["effect"], began["policy"]) == ("allow", digest({"policy.yaml": first.encode()}))
        assert (later["effect"], later["policy"]) == ("deny", closed)


async def test_a_reload_under_load_loses_no_request(tmp_path: Path) -> None:
    """Two policies that both allow it, in turn, while a hundred callers ask without a pause."""
    async with backend() as held:
        texts = [policy(held.server.port), policy(held.server.port, "health, metadata")]
        async with served(tmp_path, texts[0]) as (hip, http):
            statuses: list[int] = []
            done = asyncio.Event()

            async def ask() -> None:
                asked = 0
                while asked < AT_LEAST or not done.is_set():
                    asked += 1
                    statuses.append((await http.get(READY)).status_code)

            callers = [asyncio.create_task(ask()) for _ in range(CALLERS)]
            for number in range(ROUNDS):
                wanted = put(hip, texts[(number + 1) % 2])
                await until(serves(hip, wanted))
            done.set()
            await asyncio.gather(*callers)
        assert len(statuses) >= CALLERS * AT_LEAST
        assert set(statuses) == {200}
        assert [effect for effect, _ in policy_records(hip)] == ["loaded"] * ROUNDS


async def test_only_a_signed_policy_serves_and_none_that_is_older(tmp_path: Path) -> None:
    async with backend() as held:
        make_keys(tmp_path / "keys", KEY_NAME)
        signer = read_signer(tmp_path / "keys/policy-signing.pem", KEY_NAME)
        config = CONFIG + "policy_signature: {public_key: keys/policy.pub}\n"
        first, second = policy(held.server.port), policy(held.server.port, "metadata")

        def signed(version: int, text: str) -> str:
            statement = Signed(version, digest({"policy.yaml": text.encode()}))
            write_whole(tmp_path / "policy/policy.sig", sign(statement, signer))
            return statement.digest

        (tmp_path / "policy").mkdir()
        signed(1, first)
        async with served(tmp_path, first, config) as (hip, _):
            put(hip, second)
            await until(rejected(hip))
            assert "it is the signature of other files" in json.dumps(readiness(hip))
            await until(serves(hip, signed(2, second)))
            put(hip, first)
            signed(1, first)
            await until(lambda: "version 2 has served" in json.dumps(readiness(hip)))
            assert readiness(hip)["policy"] == digest({"policy.yaml": second.encode()})
        log = (tmp_path / "hip.log").read_text()
        assert "does not hold: it is the signature of other files" in log
        assert (tmp_path / "audit/policy-version").read_text().startswith("2 ")
