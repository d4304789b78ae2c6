"""Too much at once: early answers, a place for everybody, bounded records; and health checks that go on."""

import asyncio
from pathlib import Path

import httpx

from tests.faults.house import Standing, config, house, model, policy

FOUR = config().replace("  drain: 10s", "  drain: 10s\n  limits: {requests: 4}")


async def under_way(standing: Standing, count: int) -> None:
    async with asyncio.timeout(20):
        while f"hip_requests_in_flight {count}.0".encode() not in standing.proxy.house.metrics.exposition():
            await asyncio.sleep(0.01)


async def test_one_source_never_takes_every_place(tmp_path: Path) -> None:
    """Four places: one address gets two, the next one gets its own, and both are told to come back."""
    async with model() as server, house(tmp_path, policy(server.url), FOUR) as standing:
        server.hold = asyncio.Event()
        held = [asyncio.create_task(standing.ask()) for _ in range(2)]
        await under_way(standing, 2)
        client = await standing.connect()
        for _ in range(2):  # refused twice on one connection: it stays
            refused = await client.ask()
            assert (refused.status, refused.headers[b"retry-after"]) == (503, b"1")
            assert refused.headers[b"content-type"] == b"application/problem+json"
        held.append(asyncio.create_task(standing.ask(source="127.0.0.2")))
        await under_way(standing, 3)
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://127.0.0.1:{standing.proxy.admin_port}/healthz")).status_code == 200
            assert (await http.get(f"http://127.0.0.1:{standing.proxy.admin_port}/readyz")).status_code == 200
        server.hold.set()
        assert [(await task).status for task in held] == [200, 200, 200]
        assert (await client.ask()).status == 200
        await client.close()
        assert len(server.bodies) == 4


async def test_a_flood_is_counted_and_not_recorded_one_by_one(tmp_path: Path) -> None:
    """Fifty refusals within a second: one record at once, one with the number at the end, fifty in the metric."""
    async with model() as server:
        async with house(tmp_path, policy(server.url), FOUR) as standing:
            server.hold = asyncio.Event()
            held = [asyncio.create_task(standing.ask()) for _ in range(2)]
            await under_way(standing, 2)
            client = await standing.connect()
            for _ in range(50):
                assert (await client.ask()).status == 503
            assert b'hip_refused_messages_total{reason="overloaded"} 50.0' in standing.proxy.house.metrics.exposition()
            server.hold.set()
            await asyncio.gather(*held)
            await client.close()
        refused = [record for record in standing.records("decision") if record["reason"] == "overloaded"]
        assert len(refused) < 10
        counted = sum(int(record["detail"].split("; ")[1].split()[0]) for record in refused if "; " in record["detail"])
        assert len(refused) + counted == 50


async def test_one_principal_never_takes_its_addresss_share(tmp_path: Path) -> None:
    """Eight places, two for each principal: alice's third is refused, on record; bob from her address is served."""
    limits = config().replace("  drain: 10s", "  drain: 10s\n  limits: {requests: 8, requests_per_principal: 2}")
    async with model() as server, house(tmp_path, policy(server.url), limits) as standing:
        server.hold = asyncio.Event()
        alice, bob = standing.token, standing.issuer.token("bob", ["analyst"])
        held = [asyncio.create_task(standing.ask()) for _ in range(2)]
        await under_way(standing, 2)
        refused = await standing.ask()
        assert (refused.status, refused.headers[b"retry-after"]) == (503, b"1")
        standing.token = bob
        held.append(asyncio.create_task(standing.ask()))
        await under_way(standing, 3)
        server.hold.set()
        assert [(await task).status for task in held] == [200, 200, 200]
        standing.token = alice
        assert (await standing.ask()).status == 200
        assert len(server.bodies) == 4
        (record,) = [record for record in standing.records("decision") if record["effect"] == "deny"]
        assert record["reason"] == "overloaded"
        assert record["actor"]["subject"]
