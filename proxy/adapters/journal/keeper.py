"""What the journal does beside the requests: sign, rotate, sync, anchor, delete, and start anew after a failure.

One task on the loop decides; what may wait for a disk is done in a thread. A sync that hangs refuses everything until
it returns; a failed one ends the stream, and a new one is tried, which then says how much was refused and for how long.
"""

import asyncio
import errno
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

from proxy.adapters.journal.anchors import AnchorLog
from proxy.adapters.journal.disk import Disk
from proxy.adapters.journal.gate import Gate, cause_of
from proxy.adapters.journal.retention import INTERVAL as RETENTION_INTERVAL
from proxy.adapters.journal.retention import Retention, expired, remove
from proxy.adapters.journal.status import Failure, Limits, State
from proxy.adapters.journal.stream import Stream
from proxy.adapters.journal.writer import Writer, acknowledge
from proxy.audit.anchor import AnchorError
from proxy.errors import ConfigError, DependencyFault
from proxy.ports import Clock
from proxy.record import Retention as RetentionRecord
from proxy.record import Stop

_log = logging.getLogger("hip.audit")
_ENDABLE = {State.OK, State.DISK_LOW}  # the reserve of the disk is for an orderly end


class Keeper:
    """The background of one writer, from its first moment to its orderly end."""

    def __init__(
        self,
        writer: Writer,
        gate: Gate,
        begin: Callable[[], Stream],
        log: AnchorLog,
        directory: Path,
        *,
        clock: Clock,
        limits: Limits,
        disk: Disk,
        executor: ThreadPoolExecutor,
        retention: Retention | None,
    ) -> None:
        self._writer = writer
        self._gate = gate
        self._begin = begin
        self._log = log
        self._directory = directory
        self._clock = clock
        self._limits = limits
        self._disk = disk
        self._executor = executor
        self._retention = retention
        self.free = 1.0  # share of the file system
        self._pruned_at = float(-RETENTION_INTERVAL)  # monotonic: look at once
        self._synced_at = self._anchored_at = self._tried_at = clock.monotonic()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep(), name="audit journal")
        self._task.add_done_callback(self._ended)

    async def close(self) -> bool:
        """Stop, and end the stream in order: stop record, signed head, medium, anchor. Says whether it was the first.

        A stream that cannot be ended is left as it is; whoever starts next finds it.
        """
        if self._closing:
            return False
        self._closing = True
        self._writer.wanted.set()
        await asyncio.wait({self._task})
        if self._gate.state in _ENDABLE and await self._end():
            self._writer.stream.release()
        elif self._gate.state is State.FAILED:
            self._writer.stream.abandon()
        return True

    async def _end(self) -> bool:
        """Write the last records; say whether the stream now has an orderly end."""
        writer, stream = self._writer, self._writer.stream
        if stream.key_expired and not writer.rotate():
            return False
        writer.flush()
        writer.add(stream.record(Stop(requests=writer.decisions))[0], stream.checkpoint())
        await self._job("end")
        return self._gate.state in _ENDABLE

    async def _keep(self) -> None:
        wanted = self._writer.wanted
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.tick_seconds):
                    await wanted.wait()
            wanted.clear()
            now = self._clock.monotonic()
            if self._gate.state is State.FAILED:
                if now - self._tried_at >= self._limits.retry_seconds:
                    self._tried_at = now
                    await self._start_anew()
            else:
                await self._tend(now)

    async def _tend(self, now: float) -> None:
        """Sign, rotate, sync and anchor when it is time."""
        writer, stream, limits = self._writer, self._writer.stream, self._limits
        writer.flush()
        unsealed_for = now - stream.sealed_at
        if stream.key_expired or now - stream.segment_since >= limits.segment_seconds:
            writer.rotate()
        elif unsealed_for >= (limits.checkpoint_seconds if stream.size > stream.sealed else limits.heartbeat_seconds):
            writer.add(stream.checkpoint())
        anchor = now - self._anchored_at >= limits.heartbeat_seconds
        if self._gate.state is not State.FAILED and (
            anchor or writer.unsynced or now - self._synced_at >= limits.sync_seconds
        ):
            await self._job("head" if anchor else None)
        if self._retention is not None and self._gate.accepts and now - self._pruned_at >= RETENTION_INTERVAL:
            self._pruned_at = now
            await self._prune(self._retention)

    async def _prune(self, retention: Retention) -> None:
        """Delete what is old enough: first on record, then on the anchor log, then the files."""
        own, now_ns = self._writer.stream.name, int(self._clock.now() * 1e9)
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
                self._writer.take(event)
                await self._job(None)
                if not self._gate.accepts:
                    return
                head = self._writer.stream.head()
                await run(self._executor, remove, self._directory, self._log, head, gone)
        except (OSError, AnchorError, DependencyFault) as error:
            _log.error("audit journal: old files were not deleted: %s", error)

    async def _job(self, anchor: Literal["head", "end"] | None) -> None:
        """Sync in the thread; then whoever waits for the medium is answered."""
        writer, gate = self._writer, self._gate
        writer.flush()  # an anchor must not speak of lines that are not written
        if gate.state is State.FAILED:
            return
        waiters, writer.unsynced = writer.unsynced, []
        sync, head = writer.stream.syncing(), writer.stream.head() if anchor else None

        def work() -> float:
            sync()
            if anchor is not None and head is not None:
                with self._log.locked() as fd:
                    self._log.append(fd, anchor, head)
            return self._disk.free(self._directory)

        future = self._loop.run_in_executor(self._executor, work)
        await asyncio.wait({future}, timeout=self._limits.stuck_seconds)
        if not future.done():
            gate.shut(State.STUCK, "fdatasync does not return")
            writer.unsynced += waiters
            writer.refuse_all()
            while not (future.done() or self._closing):
                await asyncio.wait({future}, timeout=self._limits.tick_seconds)
        if not future.done():
            return
        now = self._clock.monotonic()
        try:
            self.free = future.result()
        except (OSError, AnchorError) as error:
            writer.unsynced += waiters
            writer.fail(error)
            return
        acknowledge(waiters)
        self._synced_at = now
        if anchor is not None:
            self._anchored_at = now
        if self.free < self._limits.deny_free:
            gate.shut(State.DISK_LOW, f"{self.free:.1%} of the file system is free")
        elif not gate.accepts:
            self._resume()

    def _resume(self) -> None:
        """Accept records again, and first record that there was a gap."""
        gap = self._gate.open()
        with suppress(DependencyFault):  # failed again at once: that is recorded as the next gap
            self._writer.take(gap)

    async def _start_anew(self) -> None:
        """Leave the failed stream as it is, and start another one if the disk lets us."""

        def work() -> Stream:
            self._writer.stream.abandon()
            self.free = self._disk.free(self._directory)
            if self.free < self._limits.deny_free:
                raise OSError(errno.ENOSPC, f"{self.free:.1%} of the file system is free")
            return self._begin()

        try:
            stream = await self._loop.run_in_executor(self._executor, work)
        except (OSError, AnchorError, ConfigError) as error:
            self._gate.cause = cause_of(error)
            return
        self._writer.begin_anew(stream)
        self._synced_at = self._anchored_at = self._clock.monotonic()
        self._resume()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail closed when the background work itself has a fault, also with `failure: open`: no gap would end."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._gate.failure = Failure.DENY
            self._gate.shut(State.FAILED, f"{type(error).__name__} in the background work")
            self._writer.refuse_all()
            _log.critical("audit journal: background work ended", exc_info=error)
