"""`hip` that says what its memory holds: `python -m benchmarks.lab.observed FILE serve …` is `hip serve …`.

At SIGUSR1 it appends a JSON line to the file, from a thread of its own; at SIGUSR2 too, after it has given back to the
kernel what the C library holds for nobody. So a process that has grown can be told from one that leaks: what is in use
stays level in the first, whatever the kernel counts. HIP_TRACE=1 traces where Python's memory was asked for (slow).
"""

import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
import tracemalloc
from pathlib import Path

from proxy.cli import main

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
GREATEST = 12  # places of a trace that are told


class _Mallinfo2(ctypes.Structure):
    """glibc 2.33 and later, mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _look(libc: ctypes.CDLL, *, trim: bool) -> dict[str, object]:
    before, seconds = _resident(), None
    if trim:
        begun = time.perf_counter()
        gc.collect()
        seconds = time.perf_counter() - begun
        libc.malloc_trim(0)
    held = libc.mallinfo2()
    return {
        "rss_kb": before,
        "rss_trimmed_kb": _resident() if trim else None,
        "collecting_ms": None if seconds is None else round(seconds * 1e3, 1),
        "python_blocks": sys.getallocatedblocks(),
        "python_tracked": len(gc.get_objects()),
        "malloc_in_use_kb": (held.uordblks + held.hblkhd) // 1024,
        "malloc_free_kb": held.fordblks // 1024,
        "threads": threading.active_count(),
    }


def _watch(file: Path) -> None:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _Mallinfo2
    earlier: tracemalloc.Snapshot | None = None
    while True:
        number = signal.sigwait(SIGNALS)
        seen = _look(libc, trim=number is signal.SIGUSR2)
        if tracemalloc.is_tracing():
            now = tracemalloc.take_snapshot()
            if earlier is not None:
                seen["grown"] = [str(one) for one in now.compare_to(earlier, "lineno")[:GREATEST]]
            earlier = now
        with file.open("a") as lines:
            lines.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited by every thread: sigwait takes them
    if os.environ.get("HIP_TRACE"):
        tracemalloc.start()
    threading.Thread(target=_watch, args=(Path(sys.argv.pop(1)),), daemon=True).start()
    main()
