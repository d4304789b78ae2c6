"""Pairs: every allowed request has a `decision` and a `completion`. Counts both and what lacks its other half."""

from proxy.record import Completion, Decision

MAX_OPEN_PAIRS = 1_000_000  # decisions without their completion that one pass remembers


class Pairs:
    """One stream's. Not `whole`: a completion's decision may stand before what is there, and is not missed."""

    __slots__ = ("_open", "_strange", "_whole", "allowed", "completions", "lost", "refused")

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._open: set[str] = set()
        self._strange = 0
        self.allowed = self.refused = self.completions = 0
        self.lost = False  # there were too many to remember

    def decided(self, event: Decision) -> None:
        """Count a decision."""
        if event.effect == "deny":
            self.refused += 1
            return
        self.allowed += 1
        if len(self._open) < MAX_OPEN_PAIRS:
            self._open.add(event.event)
        else:
            self.lost = True

    def completed(self, event: Completion) -> None:
        """Count a completion."""
        self.completions += 1
        if event.event in self._open:
            self._open.remove(event.event)
        elif self._whole:
            self._strange += 1

    @property
    def unpaired(self) -> int:
        """How many stand alone."""
        return len(self._open) + self._strange
