"""What Python's garbage collector is told when everything is loaded. Measured: an eighth of a request's CPU time.

Reference counting frees nearly all that a request makes; the collector is there for the rest, cycles of exceptions and
their frames above all. Its defaults look for them after every 700 allocations, that is several times a request, and
through everything that start-up loaded.

What they would miss is the weight of what they count: a dead TLS connection is a dozen objects in a cycle to Python and
some fifty kilobytes to the C library. So everything is looked through every few seconds too, without what start-up
loaded. A look stands still for as long as there is much to look at: measured, 30 ms with the budgets of 10,000 callers
in memory, 0.3 s with all 65,536 that the ledger takes. So the longer one takes, the later comes the next.

glibc keeps what was freed: after ten minutes of hostile load 100 MB of 153 that nobody used. It is told to give pages
back with every look, and not before: by itself it asks the kernel for each large body and gives it back at once, so
that every page of the next one is made, and filled with zeros, again.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable

# Allocations before the youngest are looked through, then how many of those looks before the next older generation.
THRESHOLDS = (10_000, 50, 100)
EVERY_SECONDS = 5.0  # between two looks through everything, at least
SHARE = 0.01  # of the time that goes into them, at most

# mallopt(3): its numbers of the two thresholds, and what they become: the largest that it takes, and above every peak.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES, OWN_PAGES_BYTES = 1 << 28, 1 << 25

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # malloc_trim(3); musl has none, nor a mallopt
_tell = getattr(ctypes.CDLL(None), "mallopt", None)


def settle_garbage() -> None:
    """Leave alone what lives as long as the process, and look less often for what does not. Inside a running loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    if _trim is not None and _tell is not None:  # who keeps must also give back
        _tell(TRIM_THRESHOLD, KEPT_BYTES)
        _tell(MMAP_THRESHOLD, OWN_PAGES_BYTES)
    loop = asyncio.get_running_loop()
    loop.call_later(EVERY_SECONDS, _collect, loop)


def _collect(loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
    begun = clock()
    gc.collect()
    if _trim is not None:
        _trim(0)
    loop.call_later(max(EVERY_SECONDS, (clock() - begun) / SHARE), _collect, loop, clock)
