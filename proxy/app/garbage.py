"""What Python's garbage collector is told when everything is loaded. Measured: an eighth of a request's CPU time.

Reference counting frees nearly all that a request makes; the collector is there for the rest, cycles of exceptions and
their frames above all. Its defaults look for them after every 700 allocations, that is several times a request, and
through everything that start-up loaded.

What they would miss is the weight of what they count: a dead TLS connection is a dozen objects in a cycle to Python and
some fifty kilobytes to the C library. So everything is looked through every few seconds too; without what start-up
loaded, that takes milliseconds.
"""

import asyncio
import gc

# Allocations before the youngest are looked through, then how many of those looks before the next older generation.
THRESHOLDS = (10_000, 50, 100)
EVERY_SECONDS = 5.0  # between two looks through everything


def settle_garbage() -> None:
    """Leave alone what lives as long as the process, and look less often for what does not. Inside a running loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    _again(asyncio.get_running_loop())


def _again(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_later(EVERY_SECONDS, _collect, loop)


def _collect(loop: asyncio.AbstractEventLoop) -> None:
    gc.collect()
    _again(loop)
