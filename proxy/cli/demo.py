"""`hip demo`: the whole product in one process, on a model that it brings along."""

import asyncio
import logging
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from proxy.demo.tour import Tour, print_stops
from proxy.demo.world import DemoWorld, demo_world, fresh

FAILED = 1
WRONG_USE = 2
WIDTH = 110  # columns, where nobody says how many there are

CURL = r"""Try it yourself; Ctrl-C ends everything:

  cd {directory}
  TOKEN=$(curl -s {identity}/token -d user=alice -d otp=yes | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl --cacert certs/ca.crt -H "Authorization: Bearer $TOKEN" {url}
  curl --cacert certs/ca.crt -i {url}        # no token
  curl http://127.0.0.1:{admin}/readyz

The policy is policy/policy.yaml: change `decimals: 2`, save, ask again.
"""

WHERE = """\
What was left behind, in {directory}:

  audit/          the signed journal    hip audit verify {directory}/audit --public-key {directory}/audit/keys/audit.pub
                                        hip audit show {directory}/audit --incident {incident}
  spans.jsonl     OpenTelemetry spans, one OTLP request a line
  policy/         the policy            hip check {directory}/policy
  hip.yaml        the configuration     hip serve --config {directory}/hip.yaml   (needs the demo's servers)
"""


def demo_command(
    directory: Annotated[Path | None, typer.Option(help="Where to put the files; else a temporary folder.")] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Stay up after the tour, and print curl lines.")] = False,
    port: Annotated[int, typer.Option(help="The proxy's port on 127.0.0.1; 0 takes a free one.")] = 0,
) -> None:
    """Start a model server, an identity provider and the proxy between them, and walk through every protection.

    Example: hip demo --stay
    """
    logging.basicConfig(level=logging.WARNING)
    console = Console()
    console = console if console.width >= WIDTH else Console(width=WIDTH)
    try:
        place = fresh(directory) if directory else Path(tempfile.mkdtemp(prefix="hip-demo-"))
    except OSError as error:
        console.print(f"cannot use that directory: {error}", markup=False)
        raise typer.Exit(WRONG_USE) from error
    raise typer.Exit(asyncio.run(_demo(place, port, console, stay=stay)))


async def _demo(directory: Path, port: int, console: Console, *, stay: bool) -> int:
    async with demo_world(directory, port) as world:
        stops = await Tour(world).walk()
        print_stops(stops, console)
        if stay:
            await _stay(world, console)
    console.print(
        WHERE.format(directory=directory, incident=stops[-1].incident), markup=False, highlight=False, soft_wrap=True
    )
    return 0 if all(stop.passed for stop in stops) else FAILED


async def _stay(world: DemoWorld, console: Console) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    text = CURL.format(
        directory=world.directory, identity=world.identity.url, url=world.url, admin=world.proxy.admin_port
    )
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    await told.wait()
