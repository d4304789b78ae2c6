"""The upstream transport: an HTTP/1.1 connection pool of our own behind `httpx.AsyncBaseTransport`.

Decides which connection carries a request, how many there are, and whether a request may be sent a second time. What it
does not have cannot go wrong: no cookies, no redirects, no environment proxies, no decompression, no authentication, no
HTTP/2. Safety before speed: docs/adr/0003-upstream-transport.md has the comparison.

A request is sent a second time, once, only if its method is safe (RFC 9110 section 9.2.1) and a connection that had
served before ended without one byte of a response (RFC 9112 section 9.3.1 would allow idempotent ones). A POST is never
repeated: an inference may have been made, and paid for. What is known to be dead before anything is written is simply
not used.

Two extensions of an httpx request are read: `target` (bytes, sent as they are, as httpcore does) and `stream` (true:
hand out the body as it comes, without the total deadline). A request's body is sent from memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import httpx
import msgspec

from proxy.adapters.connection import Connection, Flight, Limits, Unanswered
from proxy.adapters.dial import Destination, dial
from proxy.adapters.wire import ResponseReader, request_head
from proxy.exchange import Headers

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1


class PoolFull(httpx.PoolTimeout):
    """Every connection is busy and the queue for them is as long as it may be."""


class Answered(msgspec.Struct, frozen=True):
    """A response: its whole body, or the pieces that still come. Pieces must be closed."""

    status: int
    headers: Headers
    body: bytes
    pieces: "Pieces | None" = None


class UpstreamTransport(httpx.AsyncBaseTransport):
    """All connections to one upstream. A request holds one of `max_connections` permits, in the order of asking.

    A connection is busy with a permit's request, or idle; it is opened only when none is idle. So there are never more
    connections than permits, and nothing needs to be handed from one request to another.
    """

    def __init__(self, destination: Destination, limits: Limits) -> None:
        self._to = destination
        self._limits = limits
        default = 80 if destination.context is None else 443
        host = f"[{destination.host}]" if ":" in destination.host else destination.host
        self._host = f"host: {host}{'' if destination.port == default else f':{destination.port}'}".encode("ascii")
        self._permits = asyncio.Semaphore(limits.max_connections)
        self._waiting = 0
        self._idle: list[Connection] = []
        self._live: set[Connection] = set()
        self._retired = False
        self._closed = False
        self._gone: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<UpstreamTransport: {len(self._live)} open, {len(self._idle)} idle, {self._waiting} waiting>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response: whole, or as a stream if the request's extensions say so."""
        answered = await self.exchange(
            request.method,
            request.extensions.get("target") or request.url.raw_path,
            request.headers.raw,
            await request.aread(),
            streaming=bool(request.extensions.get("stream")),
        )
        stream = answered.pieces or httpx.ByteStream(answered.body)
        return httpx.Response(answered.status, headers=answered.headers, stream=stream)

    async def exchange(
        self,
        method: str,
        target: bytes,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes,
        behind: bytes | memoryview = b"",
        *,
        streaming: bool = False,
    ) -> "Answered":
        """Do the same without httpx's objects around it. The request's body is `body` and what follows `behind` it."""
        head = request_head(method, target, self._host, fields, len(body) + len(behind))
        until = asyncio.get_running_loop().time() + self._limits.total
        await self._enter(until)
        try:
            connection, flight = await self._perform(method, head, body, behind, until, streaming=streaming)
        except BaseException:
            self._permits.release()
            raise
        reader = flight.reader
        if not reader.complete:
            return Answered(reader.status, reader.headers, b"", Pieces(connection, flight, self._permits.release))
        self._permits.release()
        return Answered(reader.status, reader.headers, flight.take())

    def retire(self) -> None:
        """Let what is under way finish, and keep no connection after it."""
        self._retired = True
        self._close_idle()

    async def aclose(self) -> None:
        """Close everything now; what is under way fails."""
        self._retired = self._closed = True
        for connection in self._live:
            connection.abort()
        if self._live:
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone

    # ── one request ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _enter(self, until: float) -> None:
        """Take a permit, or a place in the bounded queue for one."""
        if not self._permits.locked():
            await self._permits.acquire()
            return
        if self._waiting >= self._limits.max_waiters:
            raise PoolFull("too many requests wait for a connection")
        self._waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await self._permits.acquire()
        except TimeoutError as exc:
            raise httpx.PoolTimeout("no connection became free in time") from exc
        finally:
            self._waiting -= 1

    async def _perform(
        self, method: str, head: bytes, body: bytes, behind: bytes | memoryview, until: float, *, streaming: bool
    ) -> tuple[Connection, Flight]:
        """Return when the response is here: all of it, or its head where it streams."""
        while True:
            connection = self._take() or await self._open(until)
            again = connection.served > 0 and method in SAFE
            reader = ResponseReader(method, self._limits.max_body, closes_end=self._to.context is None)
            flight = Flight(reader, until, streaming=streaming)
            try:
                connection.start(head, body, behind, flight)
                while not (reader.complete or (streaming and reader.status)):
                    await flight.progress()
            except Unanswered:
                if not again:
                    raise
                self._close_idle()  # no younger than the one that was dead: the second attempt is on a fresh one
            except BaseException:
                connection.abandon(flight)
                raise
            else:
                return connection, flight

    # ── the pool ────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self) -> Connection | None:
        """Return the connection that was used last and is still good; those below it may grow old and close."""
        while self._idle:
            connection = self._idle.pop()
            if connection.ready():
                return connection
            connection.abort()
        return None

    async def _open(self, until: float) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = min(until, loop.time() + self._limits.connect)
        connection = await dial(self._to, lambda: Connection(self._limits, self._freed, self._lost), deadline)
        if self._closed:
            connection.abort()
            raise httpx.ConnectError("closed while connecting")
        self._live.add(connection)
        return connection

    def _freed(self, connection: Connection) -> None:
        if self._retired:
            connection.abort()
        else:
            self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        self._live.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._gone is not None and not self._live and not self._gone.done():
            self._gone.set_result(None)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().abort()


class Pieces(httpx.AsyncByteStream):
    """The body of a streamed response. Closed before its end, it takes its connection with it.

    It is its own iterator, and says what went wrong in the words of `fault`: each generator around it would be one
    more to resume for every event.
    """

    fault: Callable[[httpx.TransportError], Exception] | None = None  # None: as httpx has it

    def __init__(self, connection: Connection, flight: Flight, release: Callable[[], None]) -> None:
        self._connection = connection
        self._flight = flight
        self._release: Callable[[], None] | None = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        flight = self._flight
        while not flight.pieces:
            if flight.reader.complete:
                raise StopAsyncIteration
            try:
                await flight.progress()
            except httpx.TransportError as exc:
                if self.fault is None:
                    raise
                raise self.fault(exc) from exc
        self._connection.taken(flight)
        return flight.take()

    async def aclose(self) -> None:
        """Give the permit back, once; the connection too, if it is not ours any more."""
        self._connection.abandon(self._flight)
        if self._release is not None:
            self._release()
            self._release = None
