"""A model server that streams: chat completion chunks, each with the moment at which it was written.

    python event_server.py PORT

The moment is CLOCK_MONOTONIC in nanoseconds, which is one clock for all processes of a machine: whoever reads an event
knows how long it was under way.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress

import uvloop

EVENTS = 50
INTERVAL = 0.002  # seconds between two events: 500 tokens a second
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    """Return data as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    """Return one event whose text is the present moment."""
    delta = {"role": "assistant"} if number == 0 else {}
    choice = {"index": 0, "delta": {**delta, "content": f" {time.monotonic_ns()}"}, "finish_reason": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1760000000, "model": "chat"}
    return b"data: %b\n\n" % json.dumps({**body, "choices": [choice]}).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0"))
            writer.write(HEAD)
            for number in range(EVENTS):
                writer.write(chunk(event(number)))
                await writer.drain()
                await asyncio.sleep(INTERVAL)
            writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
