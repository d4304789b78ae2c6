"""One worker's journal: `ports.Trail`, put together from its gate, its writer, its keeper and its watchdog.

It does not start where records could not be kept: a journal that cannot be opened is a ConfigError.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proxy.adapters.journal.anchors import AnchorLog
from proxy.adapters.journal.disk import Disk, private_directory
from proxy.adapters.journal.gate import Gate
from proxy.adapters.journal.keeper import Keeper
from proxy.adapters.journal.retention import Retention
from proxy.adapters.journal.second_place import SecondPlace
from proxy.adapters.journal.status import Durability, Failure, Limits, State, Status
from proxy.adapters.journal.stream import Stream
from proxy.adapters.journal.watchdog import Watchdog
from proxy.adapters.journal.writer import Writer
from proxy.audit.anchor import AnchorError
from proxy.audit.note import Signer
from proxy.audit.sealing import Recipient
from proxy.errors import ConfigError, Finding
from proxy.ports import Clock
from proxy.record import Event


class Journal:
    """Make it with `open`, end it with `close`; both on the loop that appends."""

    def __init__(
        self,
        writer: Writer,
        gate: Gate,
        keeper: Keeper,
        log: AnchorLog,
        limits: Limits,
        executor: ThreadPoolExecutor,
    ) -> None:
        self._writer = writer
        self._gate = gate
        self._keeper = keeper
        self._log = log
        self._limits = limits
        self._executor = executor
        self._watchdog = Watchdog(writer.hangs, limits.stuck_seconds / 2)
        self.append = writer.append  # bound, not wrapped: every request waits for it

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        signer: Signer,
        clock: Clock,
        facts: Event,
        durability: Durability = Durability.GROUP,
        failure: Failure = Failure.DENY,
        second_place: SecondPlace | None = None,
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
            log.close()
            hint = "run `hip audit verify`, keep the directory as evidence, and start with an empty one"
            finding = Finding(str(directory), 0, 0, f"holds an anchor log that does not hold together: {error}", hint)
            raise ConfigError([finding]) from error
        except OSError as error:
            executor.shutdown(wait=False)
            log.close()
            finding = Finding(str(directory), 0, 0, f"cannot hold the audit journal: {error.strerror}", "see its disk")
            raise ConfigError([finding]) from error
        gate = Gate(clock, failure)
        writer = Writer(stream, gate, clock, durability, limits)
        keeper = Keeper(
            writer,
            gate,
            begin,
            log,
            directory,
            clock=clock,
            limits=limits,
            disk=disk,
            executor=executor,
            retention=retention,
        )
        return cls(writer, gate, keeper, log, limits, executor)

    def status(self) -> Status:
        """Return what to show. May be read from any thread, also while the loop hangs in a write."""
        gate, stream, free = self._gate, self._writer.stream, self._keeper.free
        hangs = self._writer.hangs()
        return Status(
            state=State.STUCK if hangs else gate.state,
            cause="a write does not return" if hangs else gate.cause,
            disk_warning=free < self._limits.warn_free,
            free=free,
            stream=stream.name,
            records=stream.size,
            unsealed=max(0, stream.size - stream.sealed),
            refused=gate.refused,
            unrecorded=gate.unrecorded,
            failure=gate.failure,
            second_place_error=self._log.second_place_error,
        )

    async def close(self) -> None:
        """End the stream in order: stop record, signed head, medium, anchor."""
        if not await self._keeper.close():
            return
        self._gate.close()
        self._writer.refuse_all()
        await asyncio.to_thread(self._log.close)
        self._executor.shutdown(wait=False)
        self._watchdog.stop()
