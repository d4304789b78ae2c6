"""`hip serve`: run the proxy until it is told to stop."""

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from proxy.app import running
from proxy.app.garbage import settle_garbage
from proxy.app.reading import read_config
from proxy.app.stages import Stages
from proxy.app.supervisor import WorkerFailed, supervised
from proxy.documents import render
from proxy.errors import ConfigError

BAD_CONFIGURATION = 2
MAX_WORKERS = 64

_log = logging.getLogger("hip")


def serve_command(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("hip.yaml"),
    workers: Annotated[
        int | None, typer.Option(min=1, max=MAX_WORKERS, help="Processes that serve; goes before the file's `workers`.")
    ] = None,
    trace_stages: Annotated[
        bool, typer.Option("--trace-stages", help="Time each step of a request: /stages of the admin listener.")
    ] = False,
) -> None:
    """Serve. SIGTERM or Ctrl-C drains and ends; policies, certificates and revocations are read again when they change.

    SIGHUP replaces one worker after the other, where there are several.

    Example: hip serve --config hip.yaml --workers 4
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # what became of a change is ours to say
    try:
        _, settings = read_config(config, workers)
        if trace_stages and settings.workers > 1:
            raise typer.BadParameter("times one worker: add --workers 1", param_hint="--trace-stages")
        uvloop.run(_serve(config, trace_stages) if settings.workers == 1 else _supervise(config, workers))
    except ConfigError as error:
        explain(error, config)
        raise typer.Exit(BAD_CONFIGURATION) from error
    except WorkerFailed as error:  # it has said why
        raise typer.Exit(max(error.code, 1)) from error


def explain(error: ConfigError, config: Path) -> None:
    """Print every finding; with its line where it is in the configuration file."""
    sources = {str(config): config.read_bytes()} if config.is_file() else {}
    Console(stderr=True, highlight=False).print(render(error.findings, sources), markup=False, soft_wrap=True)


async def _serve(config: Path, trace_stages: bool) -> None:
    stop = _told_to_stop(lambda: _log.info("SIGHUP: one worker has nothing to replace; files are followed anyway"))
    async with running(config, stages=Stages() if trace_stages else None) as proxy:
        settle_garbage()
        policy = proxy.standing.snapshot.policy.digest[:12]
        _log.info("serving on port %d, admin on port %d, policy %s", proxy.port, proxy.admin_port, policy)
        await stop.wait()


async def _supervise(config: Path, workers: int | None) -> None:
    rolling: set[asyncio.Task[None]] = set()
    stop = _told_to_stop(lambda: None)  # before there is anybody to replace
    async with supervised(config, workers) as all_of_them:
        supervisor = all_of_them.supervisor

        def roll() -> None:
            task = asyncio.create_task(supervisor.roll())
            rolling.add(task)
            task.add_done_callback(rolling.discard)

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, roll)
        _log.info(
            "serving on port %d, admin on port %d, %d workers",
            all_of_them.port,
            all_of_them.admin_port,
            len(supervisor.pids),
        )
        await stop.wait()


def _told_to_stop(hang_up: Callable[[], None]) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    return stop
