"""Reads streams, and says how long each event was under way: every event carries the moment at which it was written."""

import asyncio
import json
import re
import sys
import time

import uvloop
from asking import Order

_MOMENT = re.compile(rb'"content"\s*:\s*" ?(\d{6,})')


async def main(order: Order) -> None:
    request = order.request()
    firsts: list[float] = []
    delays: list[float] = []
    end = time.perf_counter() + order.seconds
    streams = 0

    async def read() -> None:
        nonlocal streams
        asked, first = 0.0, True

        def piece(data: bytes) -> None:
            nonlocal first
            now = time.monotonic_ns()
            if first:
                firsts.append(time.perf_counter() - asked)
                first = False
            delays.extend((now - int(moment)) / 1e9 for moment in _MOMENT.findall(data))

        asking = await order.connect(piece)
        while (asked := time.perf_counter()) < end:
            first = True
            if await asking.ask(request) != 200:
                raise RuntimeError("not answered with 200")
            streams += 1

    begun = time.perf_counter()
    await asyncio.gather(*[read() for _ in range(order.connections)])
    took = time.perf_counter() - begun
    firsts.sort()
    delays.sort()
    if not delays:
        raise RuntimeError("no event of the stream could be read")
    middle, late = delays[len(delays) // 2], delays[len(delays) * 99 // 100]
    said = {"rate": len(delays) / took, "requests": streams, "p50_ms": middle * 1e3, "p99_ms": late * 1e3}
    print(json.dumps(said | {"first_ms": firsts[len(firsts) // 2] * 1e3}))


if __name__ == "__main__":
    uvloop.run(main(Order(**json.loads(sys.argv[1]))))
