"""What Python's garbage collector is told when everything is loaded. Measured: an eighth of a request's CPU time.

Reference counting frees nearly all that a request makes; the collector is there for the rest, cycles of exceptions and
their frames above all. Its defaults look for them after every 700 allocations, that is several times a request, and
through everything that start-up loaded.
"""

import gc

# Allocations before the youngest are looked through, then how many of those looks before the next older generation.
THRESHOLDS = (10_000, 50, 100)


def settle_garbage() -> None:
    """Leave alone what lives as long as the process, and look less often for what does not."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
