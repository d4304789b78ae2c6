"""The supervisor: N workers on one listening socket, one admin listener that tells the truth of all of them.

The socket is one, and shared: what waits in its queue is any worker's, so that a worker that dies or is replaced loses
nothing but the requests it has taken. A worker that ends by itself is started again, a little later each time; one
that says nothing for `SILENT_SECONDS` is ended first. `roll` replaces one worker after the other, each only when its
successor serves. The supervisor reads no request and holds no key.

Not guaranteed: an even load. Whoever is idle accepts.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from proxy.adapters.worker_metrics import Cause, WorkerMetrics
from proxy.admin import Readiness, admin_app
from proxy.app.merging import merged_metrics, merged_readiness
from proxy.app.reading import read_config
from proxy.app.seat import Pulse, hear
from proxy.config import Settings
from proxy.errors import HipError
from proxy.listener import Limits, bind, serve

FIRST_PAUSE = 0.5  # seconds before a worker that ended is started again, doubled each time …
LONGEST_PAUSE = 30.0  # … up to here
STEADY_SECONDS = 60.0  # a worker that lived so long has its pauses forgotten
SILENT_SECONDS = 15.0  # without a pulse: the worker hangs
START_SECONDS = 60.0  # until the first pulse: large detectors load slowly
LAST_SECONDS = 10.0  # on top of the drain, before a worker is killed
LOOK_SECONDS = 1.0  # between two looks for silent workers
ADMIN_DRAIN = 1.0  # seconds: probes are short

_log = logging.getLogger("hip.workers")


class WorkerFailed(HipError):
    """A worker that does not start; it has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


@dataclass(slots=True, eq=False)
class _Worker:
    number: int
    process: asyncio.subprocess.Process
    heard_at: float  # loop time of the last pulse, or of the start
    began_at: float
    pulse: Pulse | None = None
    serves: asyncio.Event = field(default_factory=asyncio.Event)  # or has ended without
    leaving: bool = False
    hung: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Supervisor:
    """Starts, watches, replaces and ends workers."""

    def __init__(
        self, config: Path, settings: Settings, listening: socket.socket, silent_seconds: float = SILENT_SECONDS
    ) -> None:
        self._config = config
        self._count = settings.workers
        self._drain = settings.listen.drain
        self._listening = listening
        self._silent_seconds = silent_seconds
        self._loop = asyncio.get_running_loop()
        self._workers: set[_Worker] = set()
        self._pauses: dict[int, float] = {}
        self._restarting: set[asyncio.Task[None]] = set()
        self._rolling = asyncio.Lock()
        self._ending = False
        self._counts = WorkerMetrics(settings.workers)
        self.port = int(listening.getsockname()[1])

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' processes."""
        return tuple(worker.process.pid for worker in self._workers)

    def readiness(self) -> Readiness:
        """Return the state of all workers."""
        return merged_readiness(self._said(), draining=self._ending)

    def metrics(self) -> bytes:
        """Return the metrics of all workers, and what we count of them."""
        pages = {worker.number: worker.pulse.metrics for worker in self._current() if worker.pulse}
        serving = [number for number, said in self._said().items() if said is not None]
        return merged_metrics(pages) + self._counts.exposition(serving)

    async def start(self) -> None:
        """Start one worker, which finds what is wrong with the files; then the others. Raise WorkerFailed."""
        await self._begin(1)
        await asyncio.gather(*(self._begin(number) for number in range(2, self._count + 1)))

    async def watch(self) -> None:
        """End workers that hang. Never returns."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for worker in list(self._workers):
                if not worker.leaving and worker.pulse and self._loop.time() - worker.heard_at > self._silent_seconds:
                    _log.error("worker %d says nothing any more: ended", worker.number)
                    worker.hung = True
                    worker.process.kill()

    async def roll(self) -> None:
        """Replace every worker by a new one, one after the other; stop where a new one does not start."""
        async with self._rolling:
            for worker in sorted(self._current(), key=lambda one: one.number):
                if self._ending:
                    return
                try:
                    await self._begin(worker.number)
                except WorkerFailed as error:
                    _log.error("worker %d is not replaced: the new one does not start (%s)", worker.number, error)
                    return
                await self._end(worker)
            _log.info("every worker is replaced")

    async def end(self) -> None:
        """Drain all workers; kill what is left after the deadline."""
        self._ending = True
        for task in self._restarting:
            task.cancel()
        await asyncio.gather(*map(self._end, list(self._workers)))

    # ── one worker ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _begin(self, number: int) -> _Worker:
        """Start a worker and return when it serves."""
        ours, theirs = socket.socketpair()
        with theirs:
            listening, line = self._listening.fileno(), theirs.fileno()
            arguments = (str(self._config), str(number), str(self._count), str(listening), str(line))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "proxy.app.worker", *arguments, pass_fds=(listening, line)
            )
        now = self._loop.time()
        worker = _Worker(number, process, heard_at=now, began_at=now)
        self._workers.add(worker)

        def heard(pulse: Pulse) -> None:
            worker.pulse, worker.heard_at = pulse, self._loop.time()
            worker.serves.set()

        ours.setblocking(False)
        worker.tasks = [asyncio.create_task(hear(ours, heard)), asyncio.create_task(self._await_end(worker))]
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await worker.serves.wait()
        if worker.pulse is None:
            worker.leaving = True
            with suppress(ProcessLookupError):
                process.kill()
            self._counts.ended(number, "start")
            raise WorkerFailed(await process.wait())
        self._counts.started(number)
        _log.info("worker %d serves, process %d", number, process.pid)
        return worker

    async def _end(self, worker: _Worker) -> None:
        worker.leaving = True
        with suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._drain + LAST_SECONDS):
                await worker.process.wait()
        except TimeoutError:
            _log.error("worker %d did not end in time: killed", worker.number)
            worker.process.kill()
        await asyncio.wait(worker.tasks)

    async def _await_end(self, worker: _Worker) -> None:
        code = await worker.process.wait()
        self._workers.discard(worker)
        worker.serves.set()
        if worker.leaving or self._ending or worker.pulse is None:
            return
        _log.error("worker %d, process %d, has ended (%d)", worker.number, worker.process.pid, code)
        cause: Cause = "hung" if worker.hung else "signal" if code < 0 else "exit"
        self._counts.ended(worker.number, cause)
        if self._loop.time() - worker.began_at > STEADY_SECONDS:
            self._pauses.pop(worker.number, None)
        task = asyncio.create_task(self._restart(worker.number))
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)

    async def _restart(self, number: int) -> None:
        while True:
            pause = self._pauses.get(number, FIRST_PAUSE)
            self._pauses[number] = min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)
            try:
                await self._begin(number)
            except WorkerFailed as error:
                _log.error("worker %d does not start (%s)", number, error)
            else:
                return

    # ── what they say ───────────────────────────────────────────────────────────────────────────────────────────

    def _current(self) -> list[_Worker]:
        """Return the workers that serve: of one that is replaced, the new one."""
        return [worker for worker in self._workers if worker.pulse is not None and not worker.leaving]

    def _said(self) -> dict[int, Readiness | None]:
        said: dict[int, Readiness | None] = dict.fromkeys(range(1, self._count + 1))
        for worker in self._current():
            if worker.pulse is not None and self._loop.time() - worker.heard_at <= self._silent_seconds:
                said[worker.number] = worker.pulse.readiness
        return said


@dataclass(frozen=True, slots=True)
class Supervised:
    """Workers that serve."""

    port: int
    admin_port: int
    supervisor: Supervisor


@asynccontextmanager
async def supervised(config: Path, workers: int | None) -> AsyncIterator[Supervised]:
    """Serve with several workers inside the block. Raise ConfigError or WorkerFailed, and serve nothing then."""
    _, settings = read_config(config, workers)
    async with AsyncExitStack() as stack:
        sockets = []
        for host, port in ((settings.listen.host, settings.listen.port), (settings.admin.host, settings.admin.port)):
            sockets.append(bind(host, port))
            stack.callback(sockets[-1].close)
        sockets[0].setblocking(False)  # a property of the socket, and so of every worker's
        supervisor = Supervisor(config, settings, sockets[0])
        stack.push_async_callback(supervisor.end)
        await supervisor.start()
        admin = await stack.enter_async_context(
            serve(
                admin_app(supervisor.readiness, supervisor.metrics),
                listening=sockets[1],
                limits=Limits(),
                drain_seconds=ADMIN_DRAIN,
            )
        )
        watching = asyncio.create_task(supervisor.watch())
        try:
            yield Supervised(supervisor.port, admin.port, supervisor)
        finally:
            watching.cancel()
            await supervisor.end()
