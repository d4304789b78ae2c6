"""One worker's process: `python -m proxy.app.worker CONFIG WORKER WORKERS LISTENING LINE`, started by the supervisor.

A process of its own from the first instruction on: nothing is forked, so no thread, lock or random state is shared. It
serves on the socket that it inherits, tells its pulse on the other, and drains when it is told to, or when its
supervisor is gone.
"""

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path

import uvloop

from proxy.app import running
from proxy.app.garbage import settle_garbage
from proxy.app.seat import Pulse, Seat, tell
from proxy.documents import render
from proxy.errors import ConfigError

BAD_CONFIGURATION = 2


def main(config: Path, seat: Seat, line: socket.socket) -> int:
    """Serve until told to stop, and return the exit code."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {seat.worker} %(name)s %(message)s"
    )
    try:
        uvloop.run(_serve(config, seat, line))
    except ConfigError as error:
        sources = {str(config): config.read_bytes()} if config.is_file() else {}
        print(render(error.findings, sources), file=sys.stderr)  # noqa: T201 - what `hip serve` prints of it
        return BAD_CONFIGURATION
    return 0


async def _serve(config: Path, seat: Seat, line: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the supervisor's to act on
    async with running(config, seat) as proxy:
        settle_garbage()
        house = proxy.house
        telling = asyncio.create_task(tell(line, lambda: Pulse(house.readiness(), house.metrics.exposition())))
        telling.add_done_callback(lambda _: stop.set())
        await stop.wait()
    telling.cancel()
    await asyncio.wait([telling])


if __name__ == "__main__":
    _config, _worker, _workers, _listening, _line = sys.argv[1:]
    _seat = Seat(int(_worker), int(_workers), socket.socket(fileno=int(_listening)))
    sys.exit(main(Path(_config), _seat, socket.socket(fileno=int(_line))))
