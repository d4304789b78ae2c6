"""The ledger of one worker: accounts in this process's memory.

Exact by construction: there is no `await` between test and charge. The number of accounts is bounded; when it is
reached, accounts of which nothing counts any more make room, and if there are none, a new account is refused
(`LEDGER_UNAVAILABLE`) rather than an old one forgotten, because forgetting would give its budget back.

Not guaranteed: a restart forgets everything, and two workers count apart. More than one worker needs the shared ledger
(`proxy.adapters.valkey_ledger`). Single-threaded: call it from one event loop.
"""

import heapq
from dataclasses import dataclass

from proxy.budget.account import Account, horizon
from proxy.budget.windows import SECOND
from proxy.errors import DependencyFault
from proxy.exchange import Budget, Charge, Cost, Exhausted
from proxy.ports import Clock
from proxy.reasons import Reason

CAPACITY = 65_536  # accounts
SWEEP = 8  # accounts looked at for each new one, so that memory comes back without a pause for all at once

Key = tuple[str, str]  # account, budget name


@dataclass(slots=True)
class _Held:
    until: int  # microseconds; nothing of the account counts after this
    account: Account
    budget: Budget  # charged last …
    horizon: int  # … and how long that counts, in microseconds


class MemoryLedger:
    """`proxy.ports.Ledger` for a single worker. Time is the monotonic clock's: nobody can set it."""

    def __init__(self, clock: Clock, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            msg = f"a ledger for {capacity} accounts cannot serve anybody"
            raise ValueError(msg)
        self._clock = clock
        self._capacity = capacity
        self._held: dict[Key, _Held] = {}
        self._due: list[tuple[int, Key]] = []  # a heap: each account once, with an `until` that may have moved on

    def __len__(self) -> int:
        """Return how many accounts are held."""
        return len(self._held)

    async def charge(self, account: str, budget: Budget, cost: Cost) -> Charge | Exhausted:
        """Charge every window of the budget at once, or none."""
        now = self._now()
        return self._find((account, budget.name), budget, now).account.charge(account, budget, cost, now)

    async def settle(self, charge: Charge, actual: Cost) -> None:
        """Correct an estimated cost after the fact."""
        now = self._now()
        self._find((charge.account, charge.budget.name), charge.budget, now).account.settle(charge, actual, now)

    def _now(self) -> int:
        return round(self._clock.monotonic() * SECOND)

    def _find(self, key: Key, budget: Budget, now: int) -> _Held:
        held = self._held.get(key)
        if held is None:
            self._make_room(now)
            lasts = horizon(budget)
            held = self._held[key] = _Held(now + lasts, Account(), budget, lasts)
            heapq.heappush(self._due, (held.until, key))
            return held
        if held.budget is not budget:  # a reloaded policy's
            held.budget, held.horizon = budget, horizon(budget)
        held.until = max(held.until, now + held.horizon)
        return held

    def _make_room(self, now: int) -> None:
        looked = 0
        while self._due and self._due[0][0] <= now and (looked < SWEEP or len(self._held) >= self._capacity):
            _, key = heapq.heappop(self._due)
            until = self._held[key].until
            if until <= now:
                del self._held[key]
            else:
                heapq.heappush(self._due, (until, key))
            looked += 1
        if len(self._held) >= self._capacity:
            detail = f"all {self._capacity} accounts of the ledger are in use; raise its capacity"
            raise DependencyFault(Reason.LEDGER_UNAVAILABLE, detail)
