"""A listener with an application that remembers what reached it, on both event loops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from proxy.errors import RequestError, public_face
from proxy.exchange import Peer
from proxy.listener import Limits, Listener, Refused, bind, serve

PATIENCE = 10  # seconds until a test that hangs fails


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here runs on both loops: their transports differ where a listener lives."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class Hit:
    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    peer: Peer
    body: bytes = b""


@dataclass
class Recorder:
    """An ASGI application that reads the body and says "ok", or answers what `receive()` has raised."""

    hits: list[Hit] = field(default_factory=list)
    reads_body: bool = True
    hold: asyncio.Event | None = None  # answer only when this is set
    started: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    answer: bytes = b"ok"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        hit = Hit(scope["method"], target, list(scope["headers"]), scope["state"]["peer"])
        assert scope["path"].encode() == scope["raw_path"]
        self.hits.append(hit)
        self.started.set()
        status, body = 200, self.answer
        try:
            while self.reads_body:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.disconnected.set()
                    return
                hit.body += message["body"]
                if not message["more_body"]:
                    break
        except RequestError as error:
            status, body = public_face(error).status, error.reason.encode()
        if self.hold is not None:
            await self.hold.wait()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class House:
    """A listener, its application and what it refused."""

    listener: Listener
    app: Recorder
    refused: list[tuple[Refused, Peer]]

    clients: list["Client"] = field(default_factory=list)

    async def connect(self, **options: Any) -> "Client":
        client = Client(*await asyncio.open_connection("127.0.0.1", self.listener.port, **options))
        self.clients.append(client)
        return client


@dataclass
class Client:
    """A client that writes bytes and reads answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def feed(self, data: bytes, *, bytewise: bool = False) -> None:
        step = len(data) if not bytewise else 1 if len(data) < 1_000 else 50
        pieces = [data[i : i + step] for i in range(0, len(data), step or 1)]
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                if bytewise:
                    await asyncio.sleep(0)
        except ConnectionError:
            pass  # refused already

    async def answer(self, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.rstrip(b"\r\n").split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines)
            length = 0 if method == "HEAD" else int(headers.get(b"content-length", b"0"))
            return int(status.split()[1]), headers, await self.reader.readexactly(length)

    async def end(self) -> bytes:
        """Return what comes until the connection ends; a connection that stays open fails the test."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@asynccontextmanager
async def house(app: Recorder, limits: Limits, **options: Any) -> AsyncIterator[House]:
    refused: list[tuple[Refused, Peer]] = []
    options.setdefault("drain_seconds", 0.0)
    async with serve(
        app,
        listening=bind("127.0.0.1", 0),
        limits=limits,
        on_refused=lambda *pair: refused.append(pair),
        **options,
    ) as listener:
        house = House(listener, app, refused)
        try:
            yield house
        finally:
            for client in house.clients:
                await client.close()


@pytest.fixture
def open_house() -> Any:
    return house
