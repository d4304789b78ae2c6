"""A large request body is held once, however many pieces it comes in."""

import os
import tracemalloc

import pytest

from proxy.edge import Edge
from proxy.errors import BodyTooLarge
from proxy.exchange import Answer, Peer

PIECE = os.urandom(1 << 16)
PIECES = 128
SIZE = PIECES * len(PIECE)
ROOM = 1.5  # times the body: it grows by an eighth at a time, and the last piece stands beside it


class Reading:
    """A gateway that reads the body, and answers nothing else."""

    body = b""

    async def handle(self, call):
        self.body = await call.read_body()
        return Answer(200, (), b"")


async def read(pieces, limit=SIZE):
    """Send the pieces, each made when it is asked for; return the body."""
    left = list(range(pieces))

    async def receive():
        left.pop()
        return {"type": "http.request", "body": bytes(bytearray(PIECE)), "more_body": bool(left)}

    async def send(message):
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "state": {"peer": Peer("192.0.2.7")},
    }
    gateway = Reading()
    await Edge(gateway, limit)(scope, receive, send)
    return gateway.body


@pytest.mark.parametrize("pieces", [1, 2, 3, PIECES])
async def test_a_body_in_pieces_is_read_whole(pieces):
    assert await read(pieces) == PIECE * pieces


async def test_a_large_body_is_held_once():
    tracemalloc.start()
    try:
        body = await read(PIECES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(body) == SIZE
    assert peak < ROOM * SIZE


async def test_a_body_above_the_limit_is_refused_at_its_first_byte_too_many():
    with pytest.raises(BodyTooLarge):
        await read(PIECES, SIZE - 1)
