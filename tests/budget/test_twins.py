"""The Lua script and the Python arithmetic are one: the same history, the same answers, to the microsecond."""

from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_account import Step, budgets, histories

from proxy.adapters.ledger import MemoryLedger
from proxy.adapters.valkey import Script, ValkeyStore
from proxy.adapters.valkey_ledger import ValkeyLedger
from proxy.budget.windows import SECOND
from proxy.exchange import Budget, Charge, Exhausted, Unit, Window

CLOCK = "local now = tonumber(redis.call('GET', 'test:clock'))\n"
SET_CLOCK = Script.of("redis.call('SET', KEYS[1], ARGV[1]); return ''")
DAY = Budget("day", (Window(Unit.REQUESTS, 3, 86_400), Window(Unit.ROWS, 10**15 - 1, 60)))
fresh = count()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(budgets, st.just(DAY)), histories, st.lists(st.sampled_from([0, 0, 0, 1, 3]), max_size=40))
async def test_the_twins_agree(
    store: ValkeyStore, clock, budget: Budget, history: list[Step], slips: list[int]
) -> None:
    """Charges, refusals, settlements up and down, and a clock that sometimes slips back by seconds.

    Not right after a refusal: there the memory ledger, whose clock is monotonic, has already forgotten what has left
    the window, and the store, which writes nothing for a refusal, has not.
    """
    memory, shared, account = MemoryLedger(clock), ValkeyLedger(store, CLOCK), f"account-{next(fresh)}"
    charges: list[Charge] = []
    ours: Charge | Exhausted | None = None
    for number, step in enumerate(history):
        slip = slips[number] if number < len(slips) and isinstance(ours, Charge) else 0
        clock.microseconds += -slip * SECOND if slip else step.wait
        await store.run(SET_CLOCK, "test:clock", b"%d" % clock.microseconds)
        ours = await memory.charge(account, budget, step.cost)
        theirs = await shared.charge(account, budget, step.cost)
        assert ours == theirs
        if isinstance(ours, Charge):
            charges.append(ours)
        if step.settle is not None and step.settle < len(charges):
            charge = charges.pop(-1 - step.settle)
            await memory.settle(charge, step.actual)
            await shared.settle(charge, step.actual)
