"""One connection to an upstream: one request at a time, one deadline at a time.

Decides when a connection may carry another request: after one complete, clean response with nothing left over, while
nothing of the request is still being written, and never after an error, a timeout or a cancellation. Every request has
a `Flight` of its own, so that no byte of one response can be handed to another request.

Not guaranteed: that an upstream which answers out of turn is always caught. Bytes that are here before the next
request is written are; bytes that it sends later, while that request waits, look like its answer (RFC 9112
section 9.3 has no request ids).
"""

import asyncio
import io
import math
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httpx

from proxy.adapters.wire import ResponseReader

WRITE_HIGH_WATER = 64 * 1024  # bytes of a request that may wait in our buffer before its write counts as slow
READ_HIGH_WATER = 256 * 1024  # bytes of a streamed response that wait for their reader before we stop reading
SMALL_BODY = 64 * 1024  # bytes: copied behind the head, one write instead of two
IDLE = 4.0  # seconds: below the 5 s of uvicorn and node, which should not close while we write
_LOST = "the connection was lost in the middle of a response"


class Unanswered(httpx.ReadError):
    """The connection ended before the first byte of a response."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one upstream may cost. Times in seconds, sizes in bytes."""

    max_connections: int
    max_body: int
    connect: float
    total: float  # from asking for a connection to the last byte of a response that is not streamed
    write: float  # until a large request is out
    first_byte: float  # from the request's last byte to the response's first
    stall: float  # between two reads of a streamed response
    max_waiters: int = 1024  # requests that wait for a connection
    idle: float = IDLE
    max_age: float = 300.0  # a name may lead elsewhere by then


class Flight:
    """One request under way: the response as far as it has come."""

    __slots__ = ("_waiter", "_whole", "error", "held", "pieces", "reader", "streaming", "until")

    def __init__(self, reader: ResponseReader, until: float, *, streaming: bool) -> None:
        self.reader = reader
        self.until = until  # loop time of the total deadline; a streamed body has none
        self.streaming = streaming
        self.pieces: list[bytes] = []
        self._whole: io.BytesIO | None = None  # what comes in several pieces, and does not stream
        self.held = 0  # bytes in `pieces` of a streamed response
        self.error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def progress(self) -> None:
        """Return when there is something new; raise what went wrong."""
        if self.error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.error is not None:
            raise self.error

    def keep(self, piece: bytes) -> None:
        """Keep a piece of the body: of a whole one never twice, as a list and as its join."""
        if self._whole is not None:
            self._whole.write(piece)
        elif self.pieces and not self.streaming:
            self._whole = io.BytesIO()
            self._whole.writelines((self.pieces.pop(), piece))
        else:
            self.pieces.append(piece)

    def take(self) -> bytes:
        """Return what has come of the body since the last call."""
        pieces, self.pieces, self.held = self.pieces, [], 0
        if self._whole is not None:
            return self._whole.getvalue()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def wake(self) -> None:
        """Tell the waiting task to look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """The socket side. `freed` is called when it may carry another request, `lost` once, when it is gone."""

    def __init__(
        self, limits: Limits, freed: Callable[["Connection"], None], lost: Callable[["Connection"], None]
    ) -> None:
        self._limits = limits
        self._freed = freed
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._retire_at = self._loop.time() + limits.max_age
        self._flight: Flight | None = None
        self._writing = False
        self._reading = True
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._deadline = math.inf
        self._late: type[httpx.TimeoutException] = httpx.ReadTimeout  # what a missed deadline means just now
        self.served = 0  # responses

    # ── for the pool ────────────────────────────────────────────────────────────────────────────────────────────

    def ready(self) -> bool:
        """Say whether a request may be written now: open, young, and with nothing on the socket.

        An idle upstream has nothing to say: bytes are the rest of an older response, end of file is a close.
        """
        return not self._closing and self._loop.time() < self._retire_at and not self._poll.poll(0)

    def abandon(self, flight: Flight) -> None:
        """Close, if this flight is still under way: a finished one has no say over the connection any more."""
        if flight is self._flight:
            self.abort()

    def abort(self) -> None:
        """Close at once, in whatever state."""
        if not self._closing:
            self._closing = True
            if self._transport is not None:
                self._transport.abort()

    def start(self, head: bytes, body: bytes, behind: bytes | memoryview, flight: Flight) -> None:
        """Write a request, whose body is `body` and what follows `behind` it; its response will come to `flight`."""
        transport = self._transport
        if self._flight is not None:
            raise RuntimeError("a request on a connection that is not free")
        if self._closing or transport is None:
            raise httpx.ConnectError("closed before a request was written")
        self._flight = flight
        if len(body) + len(behind) <= SMALL_BODY:
            transport.write(b"".join((head, body, behind)))
        else:
            transport.write(head)
            transport.write(body)
            if behind:
                transport.write(behind)
        if self._writing:
            self._expect(self._limits.write, httpx.WriteTimeout)
        else:
            self._expect(self._limits.first_byte, httpx.ReadTimeout)

    def taken(self, flight: Flight) -> None:
        """Take note that a streamed response's reader has taken what was held."""
        if flight is self._flight and not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
            self._expect(self._limits.stall, httpx.ReadTimeout)

    # ── for the event loop ──────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio.Protocol."""
        stream = cast("asyncio.Transport", transport)  # as for every asyncio.Protocol
        stream.set_write_buffer_limits(WRITE_HIGH_WATER, 0)
        self._transport = stream
        wire: socket.socket = transport.get_extra_info("socket")
        self._poll.register(wire.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol."""
        flight = self._flight
        if flight is None:  # nobody asked: this must never become somebody's answer
            self.abort()
            return
        reader = flight.reader
        try:
            piece = reader.feed(data)
        except httpx.RemoteProtocolError as error:
            self._fail(error)
            return
        if piece:
            flight.keep(piece)
        if reader.complete:
            self._finish(flight)
        elif flight.streaming and reader.status:
            flight.until = math.inf
            flight.held += len(piece)
            if flight.held > READ_HIGH_WATER and self._reading and self._transport is not None:
                self._reading = False
                self._transport.pause_reading()
                self._deadline = math.inf  # now it is the reader who is slow, and whoever reads has its own deadline
            elif self._reading:
                self._expect(self._limits.stall, httpx.ReadTimeout)
            flight.wake()
        elif self._deadline != flight.until:
            self._late = httpx.ReadTimeout
            self._set_deadline(flight.until)

    def eof_received(self) -> None:
        """asyncio.Protocol: the upstream has closed its side."""
        flight = self._flight
        if flight is None:
            self.abort()
            return
        try:
            flight.reader.eof()
        except httpx.RemoteProtocolError as error:
            self._fail(error if flight.reader.started else Unanswered("closed without a response"))
        else:
            self._finish(flight)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature; its words are not ours
        """asyncio.Protocol."""
        self._closing = True
        flight = self._flight
        if flight is not None:
            self._fail(httpx.ReadError(_LOST) if flight.reader.started else Unanswered("lost without a response"))
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._lost(self)

    def pause_writing(self) -> None:
        """asyncio.Protocol: the request does not fit into the socket."""
        self._writing = True

    def resume_writing(self) -> None:
        """asyncio.Protocol: the request is out."""
        self._writing = False
        if self._flight is not None and not self._flight.reader.started:
            self._expect(self._limits.first_byte, httpx.ReadTimeout)

    # ── ends of a flight ────────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, flight: Flight) -> None:
        """Release the response; the connection is free only if both directions are at rest."""
        self._flight = None
        flight.wake()
        transport = self._transport
        at_rest = transport is not None and self._reading and not transport.get_write_buffer_size()
        if not (at_rest and flight.reader.reusable):
            self.abort()
            return
        self.served += 1
        self._set_deadline(self._loop.time() + self._limits.idle)
        self._freed(self)

    def _fail(self, error: Exception) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.error = error
            flight.wake()
        self.abort()

    # ── the one deadline ────────────────────────────────────────────────────────────────────────────────────────

    def _expect(self, seconds: float, late: type[httpx.TimeoutException]) -> None:
        """Set the deadline of the next step, which never outlives the request's own."""
        self._late = late
        when = self._loop.time() + seconds
        self._set_deadline(when if self._flight is None else min(when, self._flight.until))

    def _set_deadline(self, when: float) -> None:
        """Move the deadline. The timer stays where it is unless it would be late: most deadlines only move away."""
        self._deadline = when
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._closing:
            return
        if self._loop.time() < self._deadline:
            if self._deadline < math.inf:
                self._set_deadline(self._deadline)
        elif self._flight is None:
            self.abort()  # idle for long enough
        else:
            self._fail(self._late("not in time"))
