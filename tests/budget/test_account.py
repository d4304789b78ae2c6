"""The arithmetic of budgets: what must hold for any history, and the cases that a reader wants to see."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.budget.account import Account, horizon
from proxy.budget.windows import SECOND, SLICES, slice_width
from proxy.exchange import Budget, Charge, Cost, Exhausted, Unit, Window

START = 1_700_000_000_000_000  # microseconds
MINUTE = Budget("minute", (Window(Unit.REQUESTS, 60, 60),))
TRIAL = Budget("trial", (Window(Unit.REQUESTS, 5, 60), Window(Unit.ROWS, 20, 3600)))


def pay(account: Account, budget: Budget, cost: Cost, now: int) -> Charge:
    outcome = account.charge("a", budget, cost, now)
    assert isinstance(outcome, Charge)
    return outcome


def fail(account: Account, budget: Budget, cost: Cost, now: int) -> Exhausted:
    outcome = account.charge("a", budget, cost, now)
    assert isinstance(outcome, Exhausted)
    return outcome


# ── for any history ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Step:
    """Let time pass, charge, and perhaps settle one of the charges so far."""

    wait: int  # microseconds
    cost: Cost
    settle: int | None  # which charge, counted from the last one
    actual: Cost


SECONDS = [1, 2, 7]  # lengths of windows
windows = st.builds(Window, st.sampled_from([Unit.REQUESTS, Unit.ROWS]), st.integers(1, 8), st.sampled_from(SECONDS))
budgets = st.lists(windows, min_size=1, max_size=3, unique_by=lambda window: window.name).map(
    lambda found: Budget("any", tuple(found))
)
# Mostly the waits where mistakes live: none, a whole window, a slice, and one microsecond beside them.
edges = st.sampled_from([0, 0, *(seconds * SECOND for seconds in SECONDS), *map(slice_width, SECONDS)])
beside = st.builds(lambda edge, off: max(0, edge + off), edges, st.sampled_from([-1, 1]))
waits = st.one_of(edges, edges, beside, st.integers(0, 8 * SECOND))
costs = st.builds(Cost, st.integers(0, 3), st.integers(0, 6))
histories = st.lists(st.builds(Step, waits, costs, st.none() | st.integers(0, 2), costs), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(budgets, histories)
def test_no_interval_holds_more_than_the_limit(budget: Budget, history: list[Step]) -> None:
    """Whatever is charged, refused and settled: a charge is allowed only where what was really used leaves room for it
    in the window that ends with it, and is refused only where a window longer by one slice has none.
    """
    account, now = Account(), START
    used: list[tuple[int, Cost]] = []  # what was really used, and when
    charges: list[tuple[int, Charge]] = []  # where in `used`, and the receipt

    def total(window: Window, longer: int = 0) -> int:
        since = now - window.seconds * SECOND - longer
        return sum(cost.of(window.unit) for at, cost in used if at >= since)

    for step in history:
        now += step.wait
        room = all(
            step.cost.of(window.unit) == 0
            or total(window, slice_width(window.seconds)) + step.cost.of(window.unit) <= window.limit
            for window in budget.windows
        )
        outcome = account.charge("a", budget, step.cost, now)
        if isinstance(outcome, Charge):
            used.append((now, step.cost))
            charges.append((len(used) - 1, outcome))
            for window in budget.windows:
                assert step.cost.of(window.unit) == 0 or total(window) <= window.limit
        else:
            assert not room
        if step.settle is not None and step.settle < len(charges):
            place, charge = charges.pop(-1 - step.settle)
            account.settle(charge, step.actual, now)
            at, estimate = used[place]
            used[place] = at, Cost(min(estimate.requests, step.actual.requests), min(estimate.rows, step.actual.rows))
            more = Cost(max(0, step.actual.requests - estimate.requests), max(0, step.actual.rows - estimate.rows))
            used.append((now, more))


@settings(max_examples=200, deadline=None)
@given(budgets, histories, costs)
def test_a_refused_charge_changes_nothing(budget: Budget, history: list[Step], cost: Cost) -> None:
    """After a refusal, everything that can be asked has the answer that it had before."""
    account, now = Account(), START
    for step in history:
        now += step.wait
        account.charge("a", budget, step.cost, now)
    before = account.charge("a", budget, Cost(0, 0), now)
    if isinstance(account.charge("a", budget, cost, now), Exhausted):
        after = account.charge("a", budget, Cost(0, 0), now)
        assert isinstance(before, Charge)
        assert isinstance(after, Charge)
        assert (after.states, after.revision) == (before.states, before.revision + 1)  # the probes themselves count


@settings(max_examples=200, deadline=None)
@given(budgets, histories, costs)
def test_who_waits_as_long_as_told_is_let_in(budget: Budget, history: list[Step], cost: Cost) -> None:
    """`retry_after` is long enough, one second less is not always, and None means that waiting never helps."""
    account, now = Account(), START
    for step in history:
        now += step.wait
        account.charge("a", budget, step.cost, now)
    outcome = account.charge("a", budget, cost, now)
    if isinstance(outcome, Charge):
        return
    if outcome.retry_after is None:
        assert cost.of(outcome.window.unit) > outcome.window.limit
        now += horizon(budget)
        assert isinstance(account.charge("a", budget, cost, now), Exhausted)
    else:
        assert 1 <= outcome.retry_after <= -(-horizon(budget) // SECOND)
        assert isinstance(account.charge("a", budget, cost, now + outcome.retry_after * SECOND), Charge)


@given(budgets, histories)
def test_an_account_stays_small(budget: Budget, history: list[Step]) -> None:
    """However long the history: at most SLICES + 1 numbers a window."""
    account, now = Account(), START
    for step in history * 4:
        now += step.wait
        account.charge("a", budget, step.cost, now)
        for tally in account._tallies.values():
            assert len(tally._slices) <= SLICES + 1


# ── cases ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_whole_limit_at_once_and_no_more() -> None:
    account = Account()
    for remaining in (4, 3, 2, 1, 0):
        charge = pay(account, TRIAL, Cost(1, 4), START)
        assert charge.states[0].remaining == remaining
    refusal = fail(account, TRIAL, Cost(1, 0), START)
    assert refusal.window is TRIAL.windows[0]


def test_two_bursts_do_not_meet_at_a_bucket_boundary() -> None:
    """The fault of fixed windows: 60 at the end of one minute and 60 at the start of the next."""
    account, edge = Account(), START - START % (60 * SECOND)
    for _ in range(60):
        pay(account, MINUTE, Cost(), edge - 1)
    fail(account, MINUTE, Cost(), edge)
    fail(account, MINUTE, Cost(), edge + 60 * SECOND - 2)
    pay(account, MINUTE, Cost(), edge + 60 * SECOND)


def test_all_windows_or_none() -> None:
    """The rows do not fit, so the request is not counted either."""
    account = Account()
    assert pay(account, TRIAL, Cost(1, 15), START).revision == 1
    refusal = fail(account, TRIAL, Cost(1, 6), START)
    assert refusal.window is TRIAL.windows[1]
    assert [state.remaining for state in refusal.states] == [4, 5]
    assert pay(account, TRIAL, Cost(1, 5), START).revision == 2


def test_a_cost_above_the_limit_never_fits() -> None:
    """`retry_after` None, and the window is the one that can never cover it, not one that is merely full."""
    account = Account()
    for _ in range(5):
        pay(account, TRIAL, Cost(1, 0), START)
    refusal = fail(account, TRIAL, Cost(1, 21), START)
    assert refusal.retry_after is None
    assert refusal.window is TRIAL.windows[1]


def test_the_window_that_keeps_the_caller_longest_is_named() -> None:
    account = Account()
    for _ in range(5):
        pay(account, TRIAL, Cost(1, 4), START)
    refusal = fail(account, TRIAL, Cost(1, 1), START)
    assert refusal.window is TRIAL.windows[1]
    assert refusal.retry_after is not None
    assert 3600 < refusal.retry_after <= 3600 + 3600 / SLICES + 1


def test_a_cost_of_nothing_passes_an_exhausted_window() -> None:
    """Metadata costs no rows: a caller without rows left may still read it."""
    account = Account()
    pay(account, TRIAL, Cost(1, 20), START)
    assert pay(account, TRIAL, Cost(1, 0), START).states[1].remaining == 0


def test_reset_is_when_units_come_back() -> None:
    account = Account()
    assert [state.reset for state in pay(account, TRIAL, Cost(1, 0), START).states][1] == 3600  # nothing spent
    first = pay(account, MINUTE, Cost(), START).states[0].reset
    assert 60 <= first <= 60 + 60 / SLICES + 1
    later = pay(account, MINUTE, Cost(), START + 10 * SECOND).states[0].reset
    assert later == first - 10


def test_a_settlement_gives_back_what_was_not_used() -> None:
    account = Account()
    charge = pay(account, TRIAL, Cost(1, 20), START)
    account.settle(charge, Cost(1, 3), START + SECOND)
    assert pay(account, TRIAL, Cost(1, 17), START + SECOND).states[1].remaining == 0


def test_a_settlement_may_overdraw_by_what_was_really_used() -> None:
    account = Account()
    charge = pay(account, TRIAL, Cost(1, 20), START)
    account.settle(charge, Cost(1, 30), START + SECOND)
    refusal = fail(account, TRIAL, Cost(1, 1), START + SECOND)
    assert refusal.states[1].remaining == 0  # never below, RateLimit's `r` is not negative


def test_a_late_settlement_takes_nothing_from_younger_charges() -> None:
    """A stream that ended after its window: giving back now would let others use what is really spent."""
    account = Account()
    charge = pay(account, MINUTE, Cost(60), START)
    later = START + 90 * SECOND
    pay(account, MINUTE, Cost(60), later)
    account.settle(charge, Cost(0), later)
    fail(account, MINUTE, Cost(1), later)


def test_a_receipt_without_its_time_gives_nothing_back() -> None:
    account = Account()
    charge = pay(account, MINUTE, Cost(60), START)
    bare = Charge(charge.account, charge.budget, charge.cost, charge.states, charge.revision)
    account.settle(bare, Cost(0), START)
    fail(account, MINUTE, Cost(1), START)


def test_a_clock_that_goes_back_gives_nothing_back() -> None:
    account = Account()
    pay(account, MINUTE, Cost(60), START)
    fail(account, MINUTE, Cost(1), START - 10 * SECOND)
    fail(account, MINUTE, Cost(1), START - 3600 * SECOND)
    pay(account, MINUTE, Cost(1), START + 62 * SECOND)


def test_another_limit_after_a_reload_does_not_forget() -> None:
    """A policy that is edited keeps what was spent, for every window of the same unit and length."""
    account = Account()
    pay(account, MINUTE, Cost(60), START)
    wider = Budget("minute", (Window(Unit.REQUESTS, 61, 60), Window(Unit.ROWS, 1, 60)))
    assert [state.remaining for state in pay(account, wider, Cost(1, 1), START).states] == [0, 0]
    narrower = Budget("minute", (Window(Unit.REQUESTS, 10, 60),))
    assert fail(account, narrower, Cost(1), START).states[0].remaining == 0


@pytest.mark.parametrize("cost", [Cost(-1), Cost(1, -1)])
def test_a_negative_cost_is_a_bug(cost: Cost) -> None:
    with pytest.raises(ValueError, match="negative"):
        Account().charge("a", TRIAL, cost, START)


def test_a_budget_without_windows_is_a_bug_and_not_a_free_pass() -> None:
    with pytest.raises(ValueError, match="no windows"):
        Account().charge("a", Budget("empty", ()), Cost(), START)
