"""One keep-alive HTTP/1.1 connection of our own load clients: a request out, the pieces of its answer in."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools


@dataclass(frozen=True, slots=True)
class Order:
    """What a client process is told on its command line."""

    url: str
    ca: str
    headers: dict[str, str]
    body: str
    connections: int
    seconds: float
    rate: float = 0.0

    def request(self) -> bytes:
        """Return the request, as the bytes to write."""
        where = httptools.parse_url(self.url.encode())
        body = Path(self.body).read_bytes()
        lines = [b"POST %b HTTP/1.1" % where.path, b"host: %b:%d" % (where.host, where.port)]
        lines += [f"{name}: {value}".encode() for name, value in self.headers.items()]
        return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])

    async def connect(self, piece: Callable[[bytes], None]) -> "Asking":
        """Open a connection; `piece` is called with each piece of a body."""
        where = httptools.parse_url(self.url.encode())
        trust = ssl.create_default_context(cafile=self.ca) if where.schema == b"https" else None
        host = where.host.decode()
        _, asking = await asyncio.get_running_loop().create_connection(
            lambda: Asking(piece), host, where.port, ssl=trust
        )
        return asking


class Asking(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, piece: Callable[[bytes], None]) -> None:
        self._piece = piece
        self._transport: Any = None
        self._answered: asyncio.Future[int] | None = None

    async def ask(self, request: bytes) -> int:
        """Return the status when the answer is complete."""
        self._parser = httptools.HttpResponseParser(self)
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("closed before the answer was complete"))

    def on_body(self, body: bytes) -> None:
        self._piece(body)

    def on_message_complete(self) -> None:
        assert self._answered is not None
        self._answered.set_result(self._parser.get_status_code())
