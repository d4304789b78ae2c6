"""One of several processes that spend the same budget: `spender.py URL ACCOUNT LIMIT ATTEMPTS`, prints what it got."""

import asyncio
import sys
import time

from proxy.adapters.valkey import ValkeyStore
from proxy.adapters.valkey_ledger import ValkeyLedger
from proxy.exchange import Budget, Charge, Cost, Unit, Window


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


async def spend(url: str, account: str, limit: int, attempts: int) -> None:
    store = ValkeyStore(url, SystemClock(), deadline=30)
    ledger = ValkeyLedger(store)
    budget = Budget("shared", (Window(Unit.REQUESTS, limit, 3600), Window(Unit.ROWS, limit * 100, 86_400)))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    outcomes = await asyncio.gather(*(ledger.charge(account, budget, Cost(1, 1)) for _ in range(attempts)))
    print(*(outcome.revision for outcome in outcomes if isinstance(outcome, Charge)), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(spend(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
