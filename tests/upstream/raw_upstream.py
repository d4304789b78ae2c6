"""An upstream on a real socket that does exactly what a script says, right or wrong.

A script is a list of answers, one per request in the order of arrival, whatever the connection; an answer is a list of
steps. Requests after the script's end get `FINE`. What arrived stands in `requests`, with the connection's number.
"""

import asyncio
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

from proxy.adapters.upstream import HttpUpstreamClient
from proxy.exchange import Outbound, Upstream


class Step(Enum):
    """What an upstream does beside sending bytes."""

    END = "sends FIN, reads on"
    CLOSE = "closes"
    RESET = "resets"
    HANG = "says nothing more until the client goes"


@dataclass(frozen=True)
class Trickle:
    """Bytes that come one by one."""

    data: bytes


Answer = Sequence[bytes | Step | Trickle | asyncio.Event]


def ok(body: bytes, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (fields, len(body), body)


FINE = [ok(b'{"for": "the next"}')]
INFER = Outbound("POST", "/v2/models/m/infer", ((b"content-type", b"application/json"),), b'{"inputs": []}')
READY = Outbound("GET", "/v2/health/ready", ((b"accept", b"application/json"),), b"")


@dataclass
class RawUpstream:
    """Runs the script. `accepted` counts connections, `left` those whose client has gone."""

    script: list[Answer] = field(default_factory=list)
    requests: list[tuple[int, bytes]] = field(default_factory=list)
    accepted: int = 0
    left: int = 0
    port: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def connections(self) -> list[int]:
        """The number of the connection that each request came on."""
        return [number for number, _ in self.requests]

    async def until(self, requests: int = 0, left: int = 0) -> None:
        """Return when so many requests have come and so many clients have gone."""
        async with asyncio.timeout(10), self.arrived:  # a test that would wait for ever fails instead
            await self.arrived.wait_for(lambda: len(self.requests) >= requests and self.left >= left)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                request = head + await reader.readexactly(length)
                answer = self.script.pop(0) if self.script else FINE
                async with self.arrived:
                    self.requests.append((number, request))
                    self.arrived.notify_all()
                for step in answer:
                    await self._do(step, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, _Over):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            async with self.arrived:
                self.left += 1
                self.arrived.notify_all()

    async def _do(
        self, step: bytes | Step | Trickle | asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
            case Trickle(data):
                for at in range(len(data)):
                    writer.write(data[at : at + 1])
                    await writer.drain()
                    await asyncio.sleep(0)
            case asyncio.Event():
                await step.wait()
            case Step.END:
                writer.write_eof()
            case Step.CLOSE:
                raise _Over
            case Step.RESET:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                raise _Over
            case Step.HANG:
                await reader.read()
                raise _Over


class _Over(Exception):
    """The script has ended this connection."""


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Give the port of a server on a real socket; at the end, wait until every handler has ended.

    A test that failed may have left a handler with something that never comes: it is cancelled, not waited for.
    """
    handled: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handled.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    except BaseException:
        for task in handled:
            task.cancel()
        await asyncio.gather(*handled, return_exceptions=True)
        raise
    finally:
        server.close()
    await asyncio.gather(*handled)


@asynccontextmanager
async def raw_upstream(script: Sequence[Answer] = (), tls: ssl.SSLContext | None = None) -> AsyncIterator[RawUpstream]:
    running = RawUpstream(list(script))
    async with listening(running.handle, tls) as running.port:
        yield running


@asynccontextmanager
async def client() -> AsyncIterator[HttpUpstreamClient]:
    sending = HttpUpstreamClient(idle=math.inf)  # what closes a connection here is never its age
    try:
        yield sending
    finally:
        await sending.close()


def upstream(port: int, **other: object) -> Upstream:
    fields: dict[str, object] = {
        "name": "u",
        "scheme": "http",
        "host": "127.0.0.1",
        "port": port,
        "base_path": "",
        "dialect": "oip-v2",
        "timeout": 5.0,
        "connect_timeout": 1.0,
        "max_reply_bytes": 1 << 20,
        "max_connections": 4,
    }
    return Upstream(**{**fields, **other})  # type: ignore[arg-type]
