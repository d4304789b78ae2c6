"""Counts over time in bounded memory: when a period has too many steps, two steps become one.

Decides the step: the finest of a fixed list that keeps the period within the cap. Times are UNIX nanoseconds.
"""

from collections import defaultdict

MAX_STEPS = 512  # that one timeline remembers
STEPS = (60, 300, 900, 3_600, 4 * 3_600, 86_400, 7 * 86_400, 28 * 86_400)  # seconds


class Timeline:
    """How often each key was seen in each step."""

    __slots__ = ("_cells", "_level", "_starts")

    def __init__(self) -> None:
        self._level = 0
        self._starts: set[int] = set()
        self._cells: defaultdict[tuple[int, str], int] = defaultdict(int)

    @property
    def step(self) -> int:
        """How many seconds a step has."""
        return STEPS[self._level]

    def count(self, t_ns: int, key: str) -> None:
        """Count one."""
        start = t_ns // 1_000_000_000 // self.step * self.step
        self._cells[start, key] += 1
        if start not in self._starts:
            self._starts.add(start)
            while len(self._starts) > MAX_STEPS and self._level < len(STEPS) - 1:
                self.coarsen()

    def coarsen(self) -> None:
        """Make steps longer."""
        self._level += 1
        cells, self._cells = self._cells, defaultdict(int)
        for (start, key), number in cells.items():
            self._cells[start // self.step * self.step, key] += number
        self._starts = {start for start, _ in self._cells}

    def rows(self, most: int) -> list[tuple[int, dict[str, int]]]:
        """Return every step of the period in order, also those in which nothing was seen; at most `most` of them."""
        while self._starts and (max(self._starts) - min(self._starts)) // self.step >= most:
            if self._level == len(STEPS) - 1:
                break
            self.coarsen()
        if not self._starts:
            return []
        found: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for (start, key), number in self._cells.items():
            found[start][key] = number
        steps = range(min(self._starts), max(self._starts) + 1, self.step)
        return [(start, found.get(start, {})) for start in steps[-most:]]


class Lowest:
    """The lowest value of each step: what is left of a budget."""

    __slots__ = ("_level", "_lowest")

    def __init__(self) -> None:
        self._level = 0
        self._lowest: dict[int, int] = {}

    @property
    def step(self) -> int:
        """How many seconds a step has."""
        return STEPS[self._level]

    def note(self, t_ns: int, value: int) -> None:
        """Take note of a value."""
        start = t_ns // 1_000_000_000 // self.step * self.step
        before = self._lowest.get(start)
        if before is None or value < before:
            self._lowest[start] = value
        if before is None and len(self._lowest) > MAX_STEPS and self._level < len(STEPS) - 1:
            self._level += 1
            merged: dict[int, int] = {}
            for at, low in self._lowest.items():
                at = at // self.step * self.step
                merged[at] = min(low, merged.get(at, low))
            self._lowest = merged

    def points(self) -> list[tuple[int, int]]:
        """Return the steps that have a value, in order."""
        return sorted(self._lowest.items())
