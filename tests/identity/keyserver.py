"""A key server on a real socket that misbehaves as told: a script of answers by path, every request counted."""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Self


@dataclass
class KeyServer:
    """`answers` maps a path to the raw bytes of an HTTP answer; a path without one is closed in silence."""

    answers: dict[str, bytes] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # while clear, requests are read and not answered
    drip: bool = False  # after the answer, a space every hundredth of a second, for ever
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self.gate.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Go down: the port refuses from now on."""
        if self._server is not None:
            self._server.close()
            self.drip = False
            self.gate.set()
            if self._connections:
                await asyncio.wait(self._connections)
            await self._server.wait_closed()
            self._server = None

    def url(self, path: str = "/jwks") -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            self.heads.append(head)
            self.arrived.set()
            await self.gate.wait()
            writer.write(self.answers.get(path, b""))
            await writer.drain()
            while self.drip:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(connection)
            writer.close()


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """One whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
