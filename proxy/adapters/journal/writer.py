"""The journal that requests wait for: `ports.Trail` over one stream.

Decides when a record counts as written, and that nothing is acknowledged when it is not. Records appended in the same
turn of the event loop are written with one call. A cancelled waiter changes nothing: its record is in line already,
and is written once. Any failed write ends the stream; everything is refused until a new one could be started, which
then says how much was refused and for how long. What an acknowledgement promises is `status.Durability`.

A write that hangs hangs the event loop, so that nothing is forwarded; a thread then still shows the state.
"""

import asyncio
import errno
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from proxy.adapters.journal.anchors import AnchorLog
from proxy.adapters.journal.disk import Disk, private_directory
from proxy.adapters.journal.retention import INTERVAL as RETENTION_INTERVAL
from proxy.adapters.journal.retention import Retention, expired, remove
from proxy.adapters.journal.status import Durability, Limits, State, Status
from proxy.adapters.journal.stream import Stream
from proxy.audit.anchor import AnchorError
from proxy.audit.chain import LineError
from proxy.audit.note import Signer
from proxy.audit.sealing import Recipient
from proxy.errors import ConfigError, DependencyFault, Finding
from proxy.ports import Clock
from proxy.reasons import Reason
from proxy.record import Decision, Event, Gap, Position, Stop
from proxy.record import Retention as RetentionRecord

_log = logging.getLogger("hip.audit")

_UNENCODABLE = (LineError, TypeError, ValueError, OverflowError, msgspec.MsgspecError)
_Waiters = list[asyncio.Future[None]]


class Journal:
    """One worker's journal. Make it with `open`, end it with `close`; both on the loop that appends."""

    def __init__(
        self,
        begin: Callable[[], Stream],
        stream: Stream,
        log: AnchorLog,
        directory: Path,
        clock: Clock,
        durability: Durability,
        limits: Limits,
        disk: Disk,
        executor: ThreadPoolExecutor,
        retention: Retention | None,
    ) -> None:
        self._begin = begin
        self._stream = stream
        self._log = log
        self._directory = directory
        self._clock = clock
        self._durability = durability
        self._limits = limits
        self._disk = disk
        self._executor = executor
        self._retention = retention
        self._pruned_at = float(-RETENTION_INTERVAL)  # monotonic: look at once
        self._loop = asyncio.get_running_loop()
        self._state, self._cause = State.OK, ""
        self._free = 1.0
        self._lines: list[bytes] = []
        self._waiters: _Waiters = []  # for the write
        self._unsynced: _Waiters = []  # for the medium
        self._scheduled = False
        self._writing_since = 0.0  # monotonic; 0 while no write is under way
        self._decisions = 0
        self._refused = self._refused_before_gap = 0
        self._gap_since = 0.0
        self._synced_at = self._anchored_at = self._tried_at = clock.monotonic()
        self._wanted = asyncio.Event()
        self._closing = False
        self._done = threading.Event()
        self._keeper = self._loop.create_task(self._keep(), name="audit journal")
        self._keeper.add_done_callback(self._keeper_ended)
        threading.Thread(target=self._watch, name="audit watchdog", daemon=True).start()

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        signer: Signer,
        clock: Clock,
        facts: Event,
        durability: Durability = Durability.GROUP,
        second_place: Path | None = None,
        recipient: Recipient | None = None,
        retention: Retention | None = None,
        limits: Limits | None = None,
        disk: Disk | None = None,
    ) -> "Journal":
        """Start a stream in a directory; raise ConfigError where no journal can be."""
        limits, disk = limits or Limits(), disk or Disk()
        log = AnchorLog(directory, second_place)
        executor = ThreadPoolExecutor(1, "audit")
        loop = asyncio.get_running_loop()

        def begin() -> Stream:
            private_directory(directory)
            return Stream.begin(directory, signer, clock, disk, log, facts, limits.segment_seconds, recipient)

        try:
            stream = await loop.run_in_executor(executor, begin)
        except AnchorError as error:
            executor.shutdown(wait=False)
            hint = "run `hip audit verify`, keep the directory as evidence, and start with an empty one"
            finding = Finding(str(directory), 0, 0, f"holds an anchor log that does not hold together: {error}", hint)
            raise ConfigError([finding]) from error
        except OSError as error:
            executor.shutdown(wait=False)
            finding = Finding(str(directory), 0, 0, f"cannot hold the audit journal: {error.strerror}", "see its disk")
            raise ConfigError([finding]) from error
        return cls(begin, stream, log, directory, clock, durability, limits, disk, executor, retention)

    # ── ports.Trail ─────────────────────────────────────────────────────────────────────────────────────────────

    async def append(self, event: Event) -> Position:
        """Return when the record is as durable as promised; raise DependencyFault(AUDIT_UNWRITABLE)."""
        if self._state is not State.OK:
            self._refused += 1
            raise self._fault()
        position = self._take(event)
        if self._durability is not Durability.ASYNC:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        return position

    def status(self) -> Status:
        """Return what to show. May be read from any thread, also while the loop hangs in a write."""
        state, cause = (State.STUCK, "a write does not return") if self._hangs() else (self._state, self._cause)
        stream = self._stream
        return Status(
            state=state,
            cause=cause,
            disk_warning=self._free < self._limits.warn_free,
            free=self._free,
            stream=stream.name,
            records=stream.size,
            unsealed=max(0, stream.size - stream.sealed),
            refused=self._refused,
            second_place_error=self._log.second_place_error,
        )

    async def close(self) -> None:
        """End the stream in order: stop record, signed head, medium, anchor."""
        if self._closing:
            return
        self._closing = True
        self._wanted.set()
        await asyncio.wait({self._keeper})
        ended = self._state in {State.OK, State.DISK_LOW} and await self._end()  # the reserve is for this
        if ended:
            self._stream.release()
        elif self._state is State.FAILED:
            self._stream.abandon()
        self._state, self._cause = State.CLOSED, "the journal is closed"
        self._refuse_all()
        self._executor.shutdown(wait=False)
        self._done.set()

    async def _end(self) -> bool:
        """Write the last records; say whether the stream now has an orderly end."""
        if self._stream.key_expired and not self._guarded(self._stream.rotate):
            return False
        self._flush()
        self._lines += [self._stream.record(Stop(requests=self._decisions))[0], self._stream.checkpoint()]
        await self._job("end")
        return self._state in {State.OK, State.DISK_LOW}

    # ── making and writing lines, on the loop ───────────────────────────────────────────────────────────────────

    def _take(self, event: Event) -> Position:
        """Put a record in line."""
        stream = self._stream
        if stream.bytes >= self._limits.segment_bytes or stream.key_expired:
            self._flush()
            if self._state is State.FAILED or not self._guarded(stream.rotate):
                raise self._fault()
        try:
            line, position = stream.record(event)
        except _UNENCODABLE as error:
            message = f"a record that cannot be encoded: {type(error).__name__}"
            raise DependencyFault(Reason.AUDIT_UNWRITABLE, message) from error
        self._lines.append(line)
        if isinstance(event, Decision):
            self._decisions += 1
        if stream.size - stream.sealed >= self._limits.checkpoint_records:
            self._lines.append(stream.checkpoint())
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return position

    def _flush(self) -> None:
        """Write everything in line with one call, and acknowledge it."""
        self._scheduled = False
        if not self._lines:
            return
        data = self._lines[0] if len(self._lines) == 1 else b"".join(self._lines)
        self._lines.clear()
        if not self._guarded(self._stream.write, data):
            return
        if self._durability is Durability.SYNC:
            self._unsynced += self._waiters
            self._wanted.set()
        else:
            _acknowledge(self._waiters)
        self._waiters = []

    def _guarded(self, act: Callable[..., None], *arguments: bytes) -> bool:
        """Do something with the disk on the loop; a failure ends the stream, a hang is seen by the watchdog."""
        self._writing_since = self._clock.monotonic()
        try:
            act(*arguments)
        except OSError as error:
            self._fail(error)
            return False
        finally:
            self._writing_since = 0.0
        return True

    # ── refusing ────────────────────────────────────────────────────────────────────────────────────────────────

    def _fault(self) -> DependencyFault:
        return DependencyFault(Reason.AUDIT_UNWRITABLE, f"the audit journal is {self._state}: {self._cause}")

    def _fail(self, error: OSError | AnchorError) -> None:
        """Give the stream up: after a failed write or sync nobody knows what the file holds."""
        self._refuse_from_now(State.FAILED, _cause_of(error))
        self._lines.clear()
        self._refuse_all()

    def _refuse_from_now(self, state: State, cause: str) -> None:
        if self._state is State.OK:
            self._gap_since, self._refused_before_gap = self._clock.monotonic(), self._refused
            _log.critical("audit journal %s: %s; every request is refused", state, cause)
        self._state, self._cause = state, cause

    def _refuse_all(self) -> None:
        for waiter in (*self._waiters, *self._unsynced):
            if not waiter.done():
                self._refused += 1
                waiter.set_exception(self._fault())
        self._waiters, self._unsynced = [], []

    def _resume(self) -> None:
        """Accept records again, and first record that there was a gap."""
        cause, self._state, self._cause = f"{self._state}: {self._cause}", State.OK, ""
        seconds = round(self._clock.monotonic() - self._gap_since, 3)
        refused = self._refused - self._refused_before_gap
        _log.warning("audit journal writes again after %s s, %d records refused", seconds, refused)
        with suppress(DependencyFault):  # failed again at once: that is recorded as the next gap
            self._take(Gap(cause=cause, refused=refused, seconds=seconds))

    # ── in the background ───────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.tick_seconds):
                    await self._wanted.wait()
            self._wanted.clear()
            now = self._clock.monotonic()
            if self._state is State.FAILED:
                if now - self._tried_at >= self._limits.retry_seconds:
                    self._tried_at = now
                    await self._start_anew()
            else:
                await self._tend(now)

    async def _tend(self, now: float) -> None:
        """Sign, rotate, sync and anchor when it is time."""
        stream, limits = self._stream, self._limits
        self._flush()
        unsealed_for = now - stream.sealed_at
        if stream.key_expired or now - stream.segment_since >= limits.segment_seconds:
            self._guarded(stream.rotate)
        elif unsealed_for >= (limits.checkpoint_seconds if stream.size > stream.sealed else limits.heartbeat_seconds):
            self._lines.append(stream.checkpoint())
        anchor = now - self._anchored_at >= limits.heartbeat_seconds
        if self._state is not State.FAILED and (
            anchor or self._unsynced or now - self._synced_at >= limits.sync_seconds
        ):
            await self._job("head" if anchor else None)
        if self._retention is not None and self._state is State.OK and now - self._pruned_at >= RETENTION_INTERVAL:
            self._pruned_at = now
            await self._prune(self._retention)

    async def _prune(self, retention: Retention) -> None:
        """Delete what is old enough: first on record, then on the anchor log, then the files."""
        own, now_ns = self._stream.name, int(self._clock.now() * 1e9)
        run = self._loop.run_in_executor
        try:
            found = await run(
                self._executor, lambda: expired(self._directory, self._log.roster(), now_ns, retention, own)
            )
            for gone in found:
                event = RetentionRecord(
                    stream=gone.stream,
                    segments=gone.segments,
                    size=gone.size,
                    hash=gone.hash,
                    profile=retention.profile,
                    days=retention.days,
                )
                self._take(event)
                await self._job(None)
                if self._state is not State.OK:
                    return
                head = self._stream.head()
                await run(self._executor, remove, self._directory, self._log, head, gone)
        except (OSError, AnchorError, DependencyFault) as error:
            _log.error("audit journal: old files were not deleted: %s", error)

    async def _job(self, anchor: Literal["head", "end"] | None) -> None:
        """Sync in the thread; then whoever waits for the medium is answered."""
        self._flush()  # an anchor must not speak of lines that are not written
        if self._state is State.FAILED:
            return
        waiters, self._unsynced = self._unsynced, []
        sync, head = self._stream.syncing(), self._stream.head() if anchor else None

        def work() -> float:
            sync()
            if anchor is not None and head is not None:
                with self._log.locked() as fd:
                    self._log.append(fd, anchor, head)
            return self._disk.free(self._directory)

        future = self._loop.run_in_executor(self._executor, work)
        await asyncio.wait({future}, timeout=self._limits.stuck_seconds)
        if not future.done():
            self._refuse_from_now(State.STUCK, "fdatasync does not return")
            self._unsynced += waiters
            self._refuse_all()
            while not (future.done() or self._closing):
                await asyncio.wait({future}, timeout=self._limits.tick_seconds)
        if not future.done():
            return
        now = self._clock.monotonic()
        try:
            self._free = future.result()
        except (OSError, AnchorError) as error:
            self._unsynced += waiters
            self._fail(error)
            return
        _acknowledge(waiters)
        self._synced_at = now
        if anchor is not None:
            self._anchored_at = now
        self._judge_space()

    def _judge_space(self) -> None:
        if self._free < self._limits.deny_free:
            self._refuse_from_now(State.DISK_LOW, f"{self._free:.1%} of the file system is free")
        elif self._state is not State.OK:
            self._resume()

    async def _start_anew(self) -> None:
        """Leave the failed stream as it is, and start another one if the disk lets us."""

        def work() -> Stream:
            self._stream.abandon()
            self._free = self._disk.free(self._directory)
            if self._free < self._limits.deny_free:
                raise OSError(errno.ENOSPC, f"{self._free:.1%} of the file system is free")
            return self._begin()

        try:
            self._stream = await self._loop.run_in_executor(self._executor, work)
        except (OSError, AnchorError, ConfigError) as error:
            self._cause = _cause_of(error)
            return
        self._synced_at = self._anchored_at = self._clock.monotonic()
        self._decisions = 0
        self._resume()

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        """Fail closed when the background work itself has a fault."""
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._refuse_from_now(State.FAILED, f"{type(error).__name__} in the background work")
            self._refuse_all()
            _log.critical("audit journal: background work ended", exc_info=error)

    # ── the watchdog, in a thread of its own ────────────────────────────────────────────────────────────────────

    def _hangs(self) -> bool:
        since = self._writing_since
        return since > 0 and self._clock.monotonic() - since > self._limits.stuck_seconds

    def _watch(self) -> None:
        told = False
        while not self._done.wait(self._limits.stuck_seconds / 2):
            hangs = self._hangs()
            if hangs and not told:
                _log.critical("audit journal stuck: a write does not return; every request waits")
            told = hangs


def _acknowledge(waiters: _Waiters) -> None:
    for waiter in waiters:
        if not waiter.done():  # cancelled: the record stands nevertheless
            waiter.set_result(None)


def _cause_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"
    return str(error)
