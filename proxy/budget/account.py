"""What one account has spent of one budget: every window is charged, or none.

Decides whether a cost is covered. Does not know where accounts are kept, nor how long: that is a ledger's business
(`proxy.adapters.ledger`, `proxy.adapters.valkey_ledger`), and both answer with the methods of this file.
"""

from proxy.budget.windows import Tally, lifetime
from proxy.exchange import Budget, Charge, Cost, Exhausted, Window, WindowState


def amounts(budget: Budget, cost: Cost) -> list[int]:
    """Return the units for each window. A budget that limits nothing, or a cost that pays back, is a bug of ours."""
    units = [cost.of(window.unit) for window in budget.windows]
    if not units:
        msg = f"budget {budget.name!r} has no windows"
        raise ValueError(msg)
    if min(units) < 0:
        msg = f"a negative cost: {cost}"
        raise ValueError(msg)
    return units


def differences(charge: Charge, actual: Cost) -> list[int]:
    """Return what a settlement adds to each window; below zero: gives back."""
    estimated, real = amounts(charge.budget, charge.cost), amounts(charge.budget, actual)
    return [after - before for before, after in zip(estimated, real, strict=True)]


def horizon(budget: Budget) -> int:
    """Return the microseconds after which nothing that is charged now counts any more."""
    return lifetime(max(window.seconds for window in budget.windows))


class Account:
    """The tallies by window name, and how many charges there were.

    A budget is matched with its tallies once, and again when a reloaded policy brings another one.
    """

    __slots__ = ("_budget", "_rows", "_tallies", "revision")

    def __init__(self, revision: int = 0, tallies: dict[str, Tally] | None = None) -> None:
        self.revision = revision
        self._tallies = tallies or {}
        self._budget: Budget | None = None
        self._rows: list[tuple[Window, Tally]] = []

    def charge(self, name: str, budget: Budget, cost: Cost, now: int) -> Charge | Exhausted:
        """Charge every window, or none and leave everything as it was."""
        units = amounts(budget, cost)
        rows = self._turned(budget, now)
        for (window, tally), amount in zip(rows, units, strict=True):
            if not tally.covers(amount, window.limit):
                return self.refused(budget, cost, now)
        for (_, tally), amount in zip(rows, units, strict=True):
            tally.add(amount)
        self.revision += 1
        return self.paid(name, budget, cost, now)

    def settle(self, charge: Charge, actual: Cost, now: int) -> None:
        """Put the real cost in the place of the estimate; once a charge."""
        change = differences(charge, actual)
        for (_, tally), difference in zip(self._turned(charge.budget, now), change, strict=True):
            if difference < 0:
                tally.take_back(-difference, charge.at)
            else:
                tally.add(difference)

    def paid(self, name: str, budget: Budget, cost: Cost, now: int) -> Charge:
        """Return the receipt of the charge that was made last."""
        return Charge(name, budget, cost, _states(self._matched(budget), now), self.revision, now)

    def refused(self, budget: Budget, cost: Cost, now: int) -> Exhausted:
        """Return the refusal: the window that says no the longest, and until when."""
        rows = self._matched(budget)
        longest, wait = budget.windows[0], 0
        for (window, tally), units in zip(rows, amounts(budget, cost), strict=True):
            seconds = tally.wait(units, window.limit, now)
            if seconds is None:
                return Exhausted(budget, cost, _states(rows, now), window, None)
            if seconds > wait:
                longest, wait = window, seconds
        return Exhausted(budget, cost, _states(rows, now), longest, wait)

    def _turned(self, budget: Budget, now: int) -> list[tuple[Window, Tally]]:
        rows = self._matched(budget)
        for _, tally in rows:
            tally.turn(now)
        return rows

    def _matched(self, budget: Budget) -> list[tuple[Window, Tally]]:
        if budget is not self._budget:
            tallies = self._tallies
            self._rows = [(each, tallies.setdefault(each.name, Tally(each.seconds))) for each in budget.windows]
            self._budget = budget
        return self._rows


def _states(rows: list[tuple[Window, Tally]], now: int) -> tuple[WindowState, ...]:
    return tuple([WindowState(window, tally.room(window.limit), tally.reset(now)) for window, tally in rows])
