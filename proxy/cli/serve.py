"""`hip serve`: run the proxy until it is told to stop."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from proxy.app import running
from proxy.documents import render
from proxy.errors import ConfigError

BAD_CONFIGURATION = 2


def serve_command(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("hip.yaml"),
) -> None:
    """Serve. SIGTERM or Ctrl-C drains and ends; policies are reloaded when they change.

    Example: hip serve --config hip.yaml
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        uvloop.run(_serve(config))
    except ConfigError as error:
        explain(error, config)
        raise typer.Exit(BAD_CONFIGURATION) from error


def explain(error: ConfigError, config: Path) -> None:
    """Print every finding; with its line where it is in the configuration file."""
    sources = {str(config): config.read_bytes()} if config.is_file() else {}
    Console(stderr=True, highlight=False).print(render(error.findings, sources), markup=False, soft_wrap=True)


async def _serve(config: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(config) as proxy:
        logging.getLogger("hip").info(
            "serving on port %d, admin on port %d, policy %s",
            proxy.port,
            proxy.admin_port,
            proxy.standing.snapshot.policy.digest[:12],
        )
        await stop.wait()
