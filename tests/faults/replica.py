"""One model server of several: it can be slow, unwell, killed, and started again on the same port."""

import asyncio
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.house import PATIENCE, REPLY

HEALTH = "/v2/health/ready"


@dataclass
class Server:
    """A server in this process. What it was asked stands in `asked`: method and path."""

    reply: bytes = REPLY
    ready: bool = True
    drop: bool = False  # a request that has come is not answered
    hold: asyncio.Event | None = None  # inferences wait for it
    held: asyncio.Event = field(default_factory=asyncio.Event)  # one does
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _listening: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def inferences(self) -> int:
        return sum(line.startswith("POST") for line in self.asked)

    async def start(self) -> None:
        """Listen; the second time, where it listened before."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Go away as a killed process does: nobody listens, and what was open is reset."""
        assert self._listening is not None
        self._listening.close()
        for writer in self._writers:
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        body = await reader.readexactly(lengths[0] if lengths else 0)
        self.asked.append(f"{method.decode()} {target.decode()}")
        status = b"200 OK"
        if method == b"POST":
            self.bodies.append(body)
            if self.drop:
                return False
            if self.hold is not None:
                self.held.set()
                await self.hold.wait()
        elif not self.ready:
            status = b"503 Service Unavailable"
        fields = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(self.reply)
        writer.write(b"HTTP/1.1 " + status + b"\r\n" + fields + self.reply)
        await writer.drain()
        return True


@asynccontextmanager
async def servers(count: int) -> AsyncIterator[list[Server]]:
    running = [Server() for _ in range(count)]
    for one in running:
        await one.start()
    try:
        yield running
    finally:
        for one in running:
            await one.kill()


# A process of its own: python -c SCRIPT PORT LOG. Every body stands in the log, one a line, before it is answered.
SCRIPT = f"""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(b"{{}}")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with open(sys.argv[2], "ab", buffering=0) as log:
            log.write(body + b"\\n")
        self.answer({REPLY!r})
    def answer(self, body):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextmanager
def process(port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server as a process; it is killed at the end, or before."""
    running = subprocess.Popen([sys.executable, "-c", SCRIPT, str(port), str(log)])
    try:
        yield running
    finally:
        running.kill()
        running.wait(PATIENCE)


async def answering(port: int) -> None:
    """Return when a server answers at this port."""

    def asked() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{HEALTH}", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(asked):
            await asyncio.sleep(0.05)
