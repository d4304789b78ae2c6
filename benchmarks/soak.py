"""A long run at 80 % of capacity, with faulty clients and a faulty upstream: does anything grow, leak or get lost?

    python -m benchmarks.soak                10 minutes
    python -m benchmarks.soak --seconds 60

`hip serve` runs on core 0; clients and the model server run here, on core 1. The warm-up is counted in requests, faults
of every kind among them, so that whatever is made once is there before memory is looked at. Then the capacity is
measured, and 80 % of it asked for at fixed times, first quietly, then with 2 % faulty clients (another source address)
and 1 % faulty answers of the upstream. Latency counts from the moment a request was due, so that a stall is not hidden.
Asserted, by the exit code: memory within 5 % (resident; and in use, as Python and the C library count it), no
descriptor left behind, every good question answered. Reported only: p99 of the good clients against the quiet part,
because a shared machine has no right to fail on time; and what the kernel gets back when the C library is told to give.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import ssl
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from tests.faults.house import REPLY, config, exchange, identity, policy
from tests.hip import Hip, hip_serve

CLIENTS = 32
SHARE = 0.8  # of capacity
FAULTY_CLIENTS = 0.02  # of requests
FAULTY_ANSWERS = 0.01  # of the upstream's
WARM_FAULTS = 20.0  # faulty clients a second of the warm-up
FAULTY_SOURCE = "127.0.0.2"
WARM_REQUESTS = 30_000
WARM_STEP = 2.0  # seconds, in which the time for all of them is found
CAPACITY_SECONDS = 5.0
SETTLE_SECONDS = 15.0  # after the run: every deadline of a faulty client's connection has passed by then
QUIET_PART = 0.25
MEMORY_GROWTH = 0.05
CONNECTIONS_OF_THE_POOL = 32  # to the upstream, at most: not a leak


class FaultyModel:
    """The model server; `faulty` makes one in a hundred answers wrong."""

    def __init__(self) -> None:
        self.faulty = False
        self._random = random.Random(1)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fine = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
            len(REPLY),
            REPLY,
        )
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(length)
                answer = fine
                if self.faulty and self._random.random() < FAULTY_ANSWERS:
                    match self._random.randrange(4):
                        case 0:
                            answer = b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"
                        case 1:
                            answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"
                        case 2:
                            answer = b"\0" * 100
                        case _:
                            await asyncio.sleep(0.2)
                writer.write(answer)
                if answer.endswith((b"{", b"\0")):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@dataclass
class Part:
    """What the good clients saw in one part of the run."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * share)] * 1000 if self.seconds else float("nan")


@dataclass
class Good:
    """Clients that ask at fixed times, or as fast as they are answered."""

    hip: Hip
    token: str
    trust: ssl.SSLContext

    async def ask(self, part: Part, rate: float | None, until: float) -> None:
        await asyncio.gather(*(self._client(part, rate, until, number) for number in range(CLIENTS)))

    async def _client(self, part: Part, rate: float | None, until: float, number: int) -> None:
        loop = asyncio.get_running_loop()
        step = CLIENTS / rate if rate else 0.0
        due = loop.time() + step * number / CLIENTS
        reader = writer = None
        while due < until:
            await asyncio.sleep(max(0.0, due - loop.time()))
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", self.hip.port, ssl=self.trust, server_hostname="localhost"
                    )
                assert reader is not None
                status, last = await exchange(reader, writer, number, self.token)
            except (OSError, EOFError, TimeoutError) as error:
                part.lost.append(repr(error))
                last = True
            else:
                part.statuses[status] += 1
                part.seconds.append(loop.time() - due)
            if last and writer is not None:
                writer.close()
                reader = writer = None
            due = due + step if rate else loop.time()
        if writer is not None:
            writer.close()


class Faulty:
    """Clients that do what no client should, from an address of their own."""

    def __init__(self, hip: Hip, trust: ssl.SSLContext) -> None:
        self._hip = hip
        self._trust = trust
        self._random = random.Random(2)
        self._deeds: tuple[Callable[[], Awaitable[None]], ...] = (
            self._half_a_head,
            self._garbage,
            self._half_a_body,
            self._no_handshake,
            self._bad_token,
            self._reset,
            self._huge_head,
        )
        self.done = 0

    async def misbehave(self, rate: float, until: float) -> None:
        loop = asyncio.get_running_loop()
        deeds: set[asyncio.Task[None]] = set()
        while loop.time() < until:
            task = asyncio.ensure_future(self._one(self._random.choice(self._deeds)))
            deeds.add(task)
            task.add_done_callback(deeds.discard)
            self.done += 1
            await asyncio.sleep(1 / rate)
        await asyncio.gather(*deeds)

    async def _one(self, deed: Callable[[], Awaitable[None]]) -> None:
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await deed()

    async def _say(self, words: bytes, *, wait: bool = True) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._hip.port, ssl=self._trust, server_hostname="localhost", local_addr=(FAULTY_SOURCE, 0)
        )
        try:
            writer.write(words)
            if wait:
                await reader.read()
            else:
                await writer.drain()
        finally:
            writer.transport.abort()

    async def _half_a_head(self) -> None:
        await self._say(b"POST /v2/models/digits/infer HTTP/1.1\r\nHo")

    async def _garbage(self) -> None:
        await self._say(self._random.randbytes(200))

    async def _half_a_body(self) -> None:
        head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{"
        await self._say(head, wait=False)

    async def _no_handshake(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._hip.port, local_addr=(FAULTY_SOURCE, 0))
        try:
            await reader.read()
        finally:
            writer.transport.abort()

    async def _bad_token(self) -> None:
        head = b"GET /v2/models/digits/ready HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a.b.c\r\n"
        await self._say(head + b"Connection: close\r\n\r\n")

    async def _reset(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._hip.port, local_addr=(FAULTY_SOURCE, 0))
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _huge_head(self) -> None:
        await self._say(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000)


@dataclass
class Sampled:
    """The proxy's process over time: when, resident kilobytes, descriptors."""

    pid: int
    samples: list[tuple[float, int, int]] = field(default_factory=list)

    async def follow(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(1)

    def look(self) -> tuple[int, int]:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        kilobytes = pages * os.sysconf("SC_PAGE_SIZE") // 1024
        descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208 - a number is all we want
        self.samples.append((time.monotonic(), kilobytes, descriptors))
        return kilobytes, descriptors

    def median(self, begin: float, end: float) -> float:
        return statistics.median(kilobytes for at, kilobytes, _ in self.samples if begin <= at <= end)


@dataclass
class Looks:
    """What the process says of its own memory (`benchmarks.lab.observed`)."""

    file: Path
    pid: int

    async def look(self, number: signal.Signals = signal.SIGUSR1) -> dict[str, Any]:
        before = self._lines()
        os.kill(self.pid, number)
        async with asyncio.timeout(30):
            while len(lines := self._lines()) == len(before):
                await asyncio.sleep(0.05)
        return dict(json.loads(lines[-1]))

    def _lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []


async def soak(directory: Path, seconds: float, warm: int) -> dict[str, object]:
    """Run, and return the figures."""
    os.sched_setaffinity(0, {0})  # inherited by hip
    provider, upstream = identity(directory), FaultyModel()
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop = asyncio.get_running_loop()
    said = directory / "memory.jsonl"
    program = ("-m", "benchmarks.lab.observed", str(said))
    rules, settings = policy(url, budget=100_000_000), config("telemetry: {file: spans.jsonl}")
    with hip_serve(directory, rules, settings, program) as hip:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(1))})
        good = Good(hip, provider.token("alice", ["analyst"]), hip.trust())
        faulty, sampled = Faulty(hip, hip.trust()), Sampled(hip.process.pid)
        first = Part()
        await good.ask(first, None, loop.time() + WARM_STEP)
        upstream.faulty, until = True, loop.time() + warm * WARM_STEP / len(first.seconds)
        await asyncio.gather(good.ask(Part(), None, until), faulty.misbehave(WARM_FAULTS, until))
        upstream.faulty = False
        fastest = Part()
        await good.ask(fastest, None, loop.time() + CAPACITY_SECONDS)
        capacity = len(fastest.seconds) / CAPACITY_SECONDS
        rate = SHARE * capacity
        await asyncio.sleep(1)
        looks = Looks(said, hip.process.pid)
        held_before = await looks.look()
        _, descriptors_before = sampled.look()
        following = asyncio.create_task(sampled.follow())
        quiet, loud = Part(), Part()
        await good.ask(quiet, rate, loop.time() + QUIET_PART * seconds)
        upstream.faulty = True
        began, until = time.monotonic(), loop.time() + (1 - QUIET_PART) * seconds
        await asyncio.gather(good.ask(loud, rate, until), faulty.misbehave(FAULTY_CLIENTS * rate, until))
        ended = time.monotonic()
        await asyncio.sleep(SETTLE_SECONDS)
        following.cancel()
        _, descriptors_after = sampled.look()
        held_after = await looks.look()
        given_back = await looks.look(signal.SIGUSR2)
        quarter = (ended - began) / 4
        early, late = sampled.median(began, began + quarter), sampled.median(ended - quarter, ended)
        figures: dict[str, object] = {
            "seconds": seconds,
            "capacity_per_second": round(capacity),
            "asked_per_second": round(rate),
            "load_average": os.getloadavg()[0],
            "quiet": {
                "answers": dict(quiet.statuses),
                "p50_ms": quiet.percentile(0.5),
                "p99_ms": quiet.percentile(0.99),
            },
            "loud": {"answers": dict(loud.statuses), "p50_ms": loud.percentile(0.5), "p99_ms": loud.percentile(0.99)},
            "p99_ratio": loud.percentile(0.99) / quiet.percentile(0.99),
            "lost": len(quiet.lost) + len(loud.lost),
            "lost_how": sorted(set(quiet.lost + loud.lost))[:5],
            "faulty_clients": faulty.done,
            "rss_kb": [early, late],
            "rss_growth": late / early - 1,
            "memory": {"before": held_before, "after": held_after, "given_back": given_back},
            "in_use_growth": _in_use(held_after) / _in_use(held_before) - 1,
            "python_growth": held_after["python_blocks"] / held_before["python_blocks"] - 1,
            "rss_series_kb": [one for _, one, _ in sampled.samples][:: max(1, len(sampled.samples) // 12)],
            "descriptors": [descriptors_before, descriptors_after],
        }
    server.close()
    return figures


def _in_use(look: dict[str, Any]) -> int:
    return int(look["malloc_in_use_kb"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--warm", type=int, default=WARM_REQUESTS, help="requests before anything is looked at")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = uvloop.run(soak(Path(directory), options.seconds, options.warm))
    print(json.dumps(figures, indent=2))
    before, after = figures["descriptors"]  # type: ignore[misc]
    faults = {
        "memory has grown": figures["rss_growth"] > MEMORY_GROWTH,  # type: ignore[operator]
        "more of it is in use": max(figures["in_use_growth"], figures["python_growth"]) > MEMORY_GROWTH,  # type: ignore[type-var, operator]
        "descriptors are left behind": after > before + CONNECTIONS_OF_THE_POOL,
        "good questions were not answered": figures["lost"] != 0,
    }
    for fault in (fault for fault, found in faults.items() if found):
        print(f"soak: {fault}", file=sys.stderr)
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
