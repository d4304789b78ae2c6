"""One sliding window, counted in slices: what it has room for, and when more comes.

Decides in whole numbers only, from the `now` (microseconds) that it is given: the same history gives the same answer
in every process, and in the Lua twin of this file, `proxy/adapters/valkey_ledger.lua`.

Guaranteed: in no interval as long as the window, wherever it begins, are more than `limit` units charged. A slice
counts until its last microsecond has left the window, so units come back late, never early: by at most 1/SLICES of the
window. At most SLICES + 1 numbers are kept. A clock that goes back is taken to stand still.

Not guaranteed: a clock that jumps ahead gives units back early; a settlement above its estimate may pass the limit, by
what was really used. Why not `limits`: docs/adr/0004-budget-ledger.md.
"""

from collections.abc import Iterable

SECOND = 1_000_000  # microseconds
SLICES = 32  # a window; divides a second's microseconds, so that every slice is a whole number of them


def slice_width(seconds: int) -> int:
    """Return the length of a slice of a window, in microseconds."""
    return seconds * (SECOND // SLICES)


def lifetime(seconds: int) -> int:
    """Return the microseconds after which a charge to a window counts no more, at the latest."""
    return (SLICES + 1) * slice_width(seconds)


class Tally:
    """The units charged to one window: slice number → units, the oldest first.

    Answers hold for the instant of the last `turn`, which comes before every `add`. The limit is an argument, not a
    part: a policy that is reloaded with another limit does not forget what was spent.
    """

    __slots__ = ("_current", "_seconds", "_slices", "_turned", "_width", "total")

    def __init__(self, seconds: int, slices: Iterable[tuple[int, int]] = ()) -> None:
        self._seconds = seconds
        self._width = slice_width(seconds)
        self._slices = dict(slices)
        self.total = sum(self._slices.values())
        self._turned = self._current = -1  # the slice of the last `turn`; the one that is charged

    def turn(self, now: int) -> None:
        """Forget the slices that have left the window."""
        number = now // self._width
        if number == self._turned:  # within one slice, none leaves
            return
        slices = self._slices
        self._turned, self._current = number, max(number, next(reversed(slices), number))
        first = self._current - SLICES
        while slices and (oldest := next(iter(slices))) < first:
            self.total -= slices.pop(oldest)

    def covers(self, units: int, limit: int) -> bool:
        """Say whether there is room. Nothing always fits, also into a window that a settlement has overdrawn."""
        return units == 0 or self.total + units <= limit

    def room(self, limit: int) -> int:
        """Return how many units there is room for."""
        return limit - self.total if limit > self.total else 0

    def add(self, units: int) -> None:
        """Charge the current slice."""
        if units:
            self._slices[self._current] = self._slices.get(self._current, 0) + units
            self.total += units

    def take_back(self, units: int, at: int) -> None:
        """Give back units that were charged at `at`, as far as that slice still counts.

        From no younger slice: the older one, with units really used in it, would leave the window early.
        """
        charged = at // self._width
        spent = self._slices.get(charged, 0)
        if units < spent:
            self._slices[charged] = spent - units
            self.total -= units
        elif spent:
            del self._slices[charged]
            self.total -= spent
            self._turned = -1  # it may have been the current one, under a clock that went back

    def wait(self, units: int, limit: int, now: int) -> int | None:
        """Return the whole seconds until the window covers the units; 0: it does; None: it never will."""
        if self.covers(units, limit):
            return 0
        missing = self.total + units - limit
        for number, spent in self._slices.items():
            missing -= spent
            if missing <= 0:
                return self._until_gone(number, now)
        return None

    def reset(self, now: int) -> int:
        """Return the whole seconds until units come back: a whole window, where none are spent."""
        oldest = next(iter(self._slices), None)
        return self._seconds if oldest is None else self._until_gone(oldest, now)

    def _until_gone(self, number: int, now: int) -> int:
        gone = (number + SLICES + 1) * self._width
        return max(1, -((now - gone) // SECOND))  # rounded up: a caller who waits so long is not sent away again
