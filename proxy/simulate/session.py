"""What one attacker has asked and learned: answers received, and when it was stopped."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Scores = NDArray[np.float64]  # shape (rows, classes)


class Stop(StrEnum):
    """Why a caller got no answer."""

    REFUSED = "refused"
    BUDGET = "budget"


class Target(Protocol):
    """A model that answers callers."""

    @property
    def batch(self) -> int:
        """How many rows to send at once: one where somebody may be watching."""
        ...

    async def ask(self, caller: int, rows: Rows) -> Scores | Stop:
        """Return the scores of each row, or why there are none."""
        ...


class StoppedError(Exception):
    """The attacker gets no more answers, or has asked all that it may."""


@dataclass(eq=False)
class Session:
    """One attack on one side. `callers` take turns; one that is stopped is out of the game."""

    target: Target
    callers: list[int]
    limit: int  # queries
    asked: int = 0
    stopped_at: int | None = None  # the first query without an answer, counted from 1
    stopped_by: Stop | None = None
    rows: list[Rows] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)

    @property
    def answers(self) -> int:
        """How many rows were answered."""
        return sum(map(len, self.rows))

    def received(self) -> tuple[Rows, Scores]:
        """Return what was asked and answered; at least one row was."""
        return np.vstack(self.rows), np.vstack(self.scores)

    async def ask(self, rows: Rows) -> Scores:
        """Return the scores of all rows. Raise StoppedError when one of them gets none."""
        parts = []
        for at in range(0, len(rows), self.target.batch):
            part = rows[at : at + self.target.batch]
            allowed = part[: self.limit - self.asked]
            if len(allowed):
                parts.append(await self._ask(allowed))
            if len(allowed) < len(part):
                raise StoppedError
        return np.vstack(parts)

    async def _ask(self, rows: Rows) -> Scores:
        while self.callers:
            caller = self.callers.pop(0)
            self.asked += len(rows)
            answer = await self.target.ask(caller, rows)
            if not isinstance(answer, Stop):
                self.callers.append(caller)
                self.rows.append(rows)
                self.scores.append(answer)
                return answer
            if self.stopped_at is None:
                self.stopped_at, self.stopped_by = self.asked, answer
        raise StoppedError
