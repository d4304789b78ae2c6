"""The part of the journal that requests wait for: from a record to its acknowledgement.

Decides when a record counts as written, and that nothing is acknowledged when it is not. Records appended in the same
turn of the event loop are written with one call. A cancelled waiter changes nothing: its record is in line already,
and is written once. Any failed write gives the stream up and shuts the gate. What an acknowledgement promises is
`status.Durability`. Everything that may take its time is the `keeper`'s.
"""

import asyncio
from collections.abc import Callable

import msgspec

from proxy.adapters.journal.gate import Gate, cause_of
from proxy.adapters.journal.status import Durability, Limits, State
from proxy.adapters.journal.stream import Stream
from proxy.audit.anchor import AnchorError
from proxy.audit.chain import LineError
from proxy.errors import DependencyFault
from proxy.ports import Clock
from proxy.reasons import Reason
from proxy.record import UNRECORDED, Decision, Event, Position

_UNENCODABLE = (LineError, TypeError, ValueError, OverflowError, msgspec.MsgspecError)
Waiters = list[asyncio.Future[Position | None]]  # None: the record is there


class Writer:
    """Puts records in line, and writes what is in line."""

    def __init__(self, stream: Stream, gate: Gate, clock: Clock, durability: Durability, limits: Limits) -> None:
        self.stream = stream
        self._gate = gate
        self._clock = clock
        self._waits = durability is not Durability.ASYNC  # for the write; else nobody would answer who waits
        self._syncs = durability is Durability.SYNC  # also for the medium
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._waiters: Waiters = []  # for the write
        self._scheduled = False
        self._writing_since = 0.0  # monotonic; 0 while no write is under way
        self.unsynced: Waiters = []  # for the medium
        self.wanted = asyncio.Event()  # somebody waits for the medium
        self.decisions = 0  # in this stream

    async def append(self, event: Event) -> Position:
        """Return when the record is as durable as promised; raise DependencyFault(AUDIT_UNWRITABLE).

        With `failure: open` a record that cannot be written is UNRECORDED instead.
        """
        if not self._gate.accepts:
            return self._gate.turn_away()
        position = self.take(event)
        if self._waits and position is not UNRECORDED:
            waiter: asyncio.Future[Position | None] = self._loop.create_future()
            self._waiters.append(waiter)
            instead = await waiter
            if instead is not None:
                return instead
        return position

    def take(self, event: Event) -> Position:
        """Put a record in line."""
        stream = self.stream
        if stream.bytes >= self._limits.segment_bytes or stream.key_expired:
            self.flush()
            if self._gate.state is State.FAILED or not self.rotate():
                return self._gate.turn_away()
        try:
            line, position = stream.record(event)
        except _UNENCODABLE as error:
            message = f"a record that cannot be encoded: {type(error).__name__}"
            raise DependencyFault(Reason.AUDIT_UNWRITABLE, message) from error
        self._lines.append(line)
        if isinstance(event, Decision):
            self.decisions += 1
        if stream.size - stream.sealed >= self._limits.checkpoint_records:
            self._lines.append(stream.checkpoint())
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)
        return position

    def add(self, *lines: bytes) -> None:
        """Put finished lines of the stream in line; the next `flush` writes them."""
        self._lines += lines

    def flush(self) -> None:
        """Write everything in line with one call, and acknowledge it."""
        self._scheduled = False
        if not self._lines:
            return
        data = self._lines[0] if len(self._lines) == 1 else b"".join(self._lines)
        self._lines.clear()
        if not self._guarded(self.stream.write, data):
            return
        if self._syncs:
            self.unsynced += self._waiters
            self.wanted.set()
        else:
            acknowledge(self._waiters)
        self._waiters = []

    def rotate(self) -> bool:
        """Begin the next file; say whether that was possible."""
        return self._guarded(self.stream.rotate)

    def _guarded(self, act: Callable[..., None], *arguments: bytes) -> bool:
        """Do something with the disk on the loop; a failure ends the stream, a hang is seen by the watchdog."""
        self._writing_since = self._clock.monotonic()
        try:
            act(*arguments)
        except OSError as error:
            self.fail(error)
            return False
        finally:
            self._writing_since = 0.0
        return True

    def hangs(self) -> bool:
        """Say whether a write does not return. May be asked from any thread."""
        since = self._writing_since
        return since > 0 and self._clock.monotonic() - since > self._limits.stuck_seconds

    def begin_anew(self, stream: Stream) -> None:
        """Go on with another stream; the first record is the caller's."""
        self.stream, self.decisions = stream, 0

    def fail(self, error: OSError | AnchorError) -> None:
        """Give the stream up: after a failed write or sync nobody knows what the file holds."""
        self._gate.shut(State.FAILED, cause_of(error))
        self._lines.clear()
        self.refuse_all()

    def refuse_all(self) -> None:
        """Answer whoever waits that its record may not be there."""
        for waiter in (*self._waiters, *self.unsynced):
            if not waiter.done():
                try:
                    waiter.set_result(self._gate.turn_away())
                except DependencyFault as fault:
                    waiter.set_exception(fault)
        self._waiters, self.unsynced = [], []


def acknowledge(waiters: Waiters) -> None:
    """Answer whoever waits that its record is there."""
    for waiter in waiters:
        if not waiter.done():  # cancelled: the record stands nevertheless
            waiter.set_result(None)
