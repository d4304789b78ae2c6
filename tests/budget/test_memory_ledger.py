"""The memory ledger: exact under concurrency, bounded, and never forgetful to anybody's profit."""

import asyncio

import pytest

from proxy.adapters.ledger import MemoryLedger
from proxy.errors import DependencyFault
from proxy.exchange import Budget, Charge, Cost, Exhausted, Unit, Window
from proxy.reasons import Reason

MINUTE = Budget("minute", (Window(Unit.REQUESTS, 10, 60),))
HOUR = Budget("hour", (Window(Unit.REQUESTS, 10, 3600),))


async def test_ten_of_a_hundred_at_once(clock) -> None:
    ledger = MemoryLedger(clock)
    outcomes = await asyncio.gather(*(ledger.charge("a", MINUTE, Cost()) for _ in range(100)))
    paid = [outcome for outcome in outcomes if isinstance(outcome, Charge)]
    assert sorted(charge.revision for charge in paid) == list(range(1, 11))


async def test_accounts_and_budgets_are_apart(clock) -> None:
    """Also where a separator in a name could make two of them look alike."""
    ledger = MemoryLedger(clock)
    whole = Cost(10)
    for account, name in [("a", "b/c"), ("a/b", "c"), ("a", "b"), ("b", "a")]:
        budget = Budget(name, MINUTE.windows)
        assert isinstance(await ledger.charge(account, budget, whole), Charge)
        assert isinstance(await ledger.charge(account, budget, Cost()), Exhausted)


async def test_a_full_ledger_refuses_newcomers_and_keeps_its_accounts(clock) -> None:
    ledger = MemoryLedger(clock, capacity=2)
    await ledger.charge("a", MINUTE, Cost(10))
    await ledger.charge("b", MINUTE, Cost(10))
    with pytest.raises(DependencyFault) as caught:
        await ledger.charge("c", MINUTE, Cost())
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
    assert isinstance(await ledger.charge("a", MINUTE, Cost()), Exhausted)


async def test_only_what_no_longer_counts_makes_room(clock) -> None:
    """An account that was used again, or whose budget is longer, stays; the idle one goes."""
    ledger = MemoryLedger(clock, capacity=3)
    await ledger.charge("idle", MINUTE, Cost(10))
    await ledger.charge("busy", MINUTE, Cost(9))
    await ledger.charge("long", HOUR, Cost(10))
    clock.advance(40)
    await ledger.charge("busy", MINUTE, Cost(1))
    clock.advance(22)  # 62 s: past the minute and its oldest slice
    await ledger.charge("new", MINUTE, Cost())
    assert len(ledger) == 3
    assert isinstance(await ledger.charge("long", HOUR, Cost()), Exhausted)
    busy = await ledger.charge("busy", MINUTE, Cost(9))
    assert isinstance(busy, Charge)
    assert busy.revision == 3
    with pytest.raises(DependencyFault):
        await ledger.charge("idle", MINUTE, Cost())


async def test_memory_comes_back_while_newcomers_arrive(clock) -> None:
    ledger = MemoryLedger(clock, capacity=1000)
    for number in range(500):
        await ledger.charge(f"old-{number}", MINUTE, Cost())
    clock.advance(62)
    for number in range(100):
        await ledger.charge(f"new-{number}", MINUTE, Cost())
    assert len(ledger) == 100


async def test_a_settlement_finds_its_charge(clock) -> None:
    ledger = MemoryLedger(clock)
    charge = await ledger.charge("a", MINUTE, Cost(10))
    assert isinstance(charge, Charge)
    clock.advance(1)
    await ledger.settle(charge, Cost(4))
    again = await ledger.charge("a", MINUTE, Cost(6))
    assert isinstance(again, Charge)
    assert again.states[0].remaining == 0


def test_a_ledger_for_nobody_is_refused(clock) -> None:
    with pytest.raises(ValueError, match="0 accounts"):
        MemoryLedger(clock, capacity=0)
