"""A large reply is held once, however many pieces it comes in."""

import asyncio
import os
import tracemalloc

from raw_upstream import INFER, client, listening, upstream

PIECE = os.urandom(1 << 16)
PIECES = 128
SIZE = PIECES * len(PIECE)
ROOM = 1.5  # times the body: it grows by an eighth at a time, and what the loop reads at once stands beside it


async def test_a_large_reply_is_held_once() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % SIZE)
        for _ in range(PIECES):
            writer.write(PIECE)
            await writer.drain()

    async with listening(answer) as port, client() as sending:
        tracemalloc.start()
        try:
            reply = await sending.send(upstream(port, max_reply_bytes=2 * SIZE), INFER)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert reply.body == PIECE * PIECES
    assert peak < ROOM * SIZE
