"""Asks at a set rate, whatever the answers do, and counts latency from the moment at which a request was due.

So a stall shows in every request that it delays, not in one (coordinated omission). The moments come from a timerfd:
the event loop's own timers have a resolution of a millisecond.
"""

import asyncio
import ctypes
import json
import os
import sys
import time
from collections import deque

import uvloop
from asking import Asking, Order

_CLOCK_MONOTONIC, _NONBLOCK = 1, os.O_NONBLOCK
_libc = ctypes.CDLL(None, use_errno=True)


class _Times(ctypes.Structure):
    """`struct itimerspec`: interval and first expiry, seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


def ticking(seconds: float) -> int:
    """Return a descriptor that becomes readable every so often."""
    fd = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK)
    nanoseconds = int(seconds * 1e9)
    times = _Times(nanoseconds // 10**9, nanoseconds % 10**9, 0, 1)
    if fd < 0 or _libc.timerfd_settime(fd, 0, ctypes.byref(times), None):
        raise OSError(ctypes.get_errno(), "timerfd")
    return fd


async def main(order: Order) -> None:
    request = order.request()
    free = [await order.connect(lambda _piece: None) for _ in range(order.connections)]
    for asking in free:
        await asking.ask(request)
    due: deque[float] = deque()
    latencies: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def ask(asking: Asking, at: float) -> None:
        while True:
            if await asking.ask(request) != 200:
                raise RuntimeError("not answered with 200")
            latencies.append(time.perf_counter() - at)
            if not due:
                break
            at = due.popleft()
        free.append(asking)

    fd = ticking(1 / order.rate)
    begun = following = time.perf_counter()  # the first expiry is at once

    def tick() -> None:
        nonlocal following
        for _ in range(int.from_bytes(os.read(fd, 8), sys.byteorder)):
            at, following = following, following + 1 / order.rate
            if free:
                task = asyncio.ensure_future(ask(free.pop(), at))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                due.append(at)

    loop = asyncio.get_running_loop()
    loop.add_reader(fd, tick)
    await asyncio.sleep(order.seconds)
    loop.remove_reader(fd)
    await asyncio.gather(*tasks)
    took = time.perf_counter() - begun
    latencies.sort()
    count = len(latencies)
    p50, p99 = latencies[count // 2] * 1e3, latencies[count * 99 // 100] * 1e3
    print(json.dumps({"rate": count / took, "requests": count, "p50_ms": p50, "p99_ms": p99}))


if __name__ == "__main__":
    uvloop.run(main(Order(**json.loads(sys.argv[1]))))
