"""Query sequences of workers that share a store: the fold of `proxy.detection.sequence` in the order of the store.

The store keeps each caller's last distinct rows and everybody's, numbered in the order in which they were asked, and
tells a worker of those that came since it last heard. The worker looks for what lies near, so that the store only
remembers. A worker that hears of every row comes to the marks of a single worker, also when requests overlap.

Not guaranteed: marks that rest on rows which the store no longer had when a worker first heard of the caller.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import SKETCH, Floats
from proxy.detection.sequence import MAX_CLIENTS, SHARED_WINDOW, Client, Window
from proxy.exchange import SequenceFinding, SequenceUse, Sightings

STRANGE, FRESH = 1, 2  # flags of a row: suspicious to the detector; new to every caller, so that nearness counts
ROW = np.dtype(  # of one caller; `position`: how many rows of everybody came before; `when` in UNIX seconds
    [("identity", "<u8"), ("position", "<f8"), ("when", "<f8"), ("flags", "u1"), ("sketch", "<f4", SKETCH)]
)
SHARED_ROW = np.dtype([("identity", "<u8"), ("sketch", "<f4", SKETCH)])  # of everybody


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a record of the store is known. `born` names the record: one that was lost begins again as another."""

    born: float = 0.0
    count: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class News:
    """What happened to a record since a cursor, before the rows that are asked about now."""

    born: float
    first: int  # number of the first of `rows`
    rows: NDArray[Any]  # of ROW or of SHARED_ROW


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What the store says to the rows of one request. `taken`, for each: 0 known, 1 a new row, FRESH new to all."""

    now: float  # UNIX seconds, by the store's clock
    caller: News
    everybody: News
    taken: NDArray[np.uint8]


class Caller:
    """A caller's rows as far as this worker knows them."""

    def __init__(self) -> None:
        self.cursor = Cursor()
        self.client = Client()

    def catch_up(self, news: News) -> int:
        """Begin again where the record did, or where rows are missing; return how many of the news are known."""
        if news.born != self.cursor.born or news.first > self.cursor.count:
            self.client, self.cursor = Client(), Cursor(news.born, news.first)
        return self.cursor.count - news.first


class SharedWatch:
    """What this worker knows of the rows that one detector saw, on any worker."""

    def __init__(self, tau: float, *, clients: int = MAX_CLIENTS) -> None:
        self._tau = tau
        self._capacity = clients
        self._callers: OrderedDict[str, Caller] = OrderedDict()
        self._rows = Window(SHARED_WINDOW)
        self.cursor = Cursor()  # of everybody's rows

    def caller(self, account: str) -> Caller:
        """Return what is known of a caller. Who is forgotten here is still in the store."""
        caller = self._callers.get(account)
        if caller is None:
            caller = self._callers[account] = Caller()
            if len(self._callers) > self._capacity:
                self._callers.popitem(last=False)
        self._callers.move_to_end(account)
        return caller

    def fold(self, caller: Caller, sightings: Sightings, told: Told, use: SequenceUse) -> SequenceFinding | None:
        """Take note of what others were told, then of this request's rows, and say what the caller's rows show."""
        self._hear(told.everybody)
        known = caller.catch_up(told.caller)
        rows = told.caller.rows[max(0, known) :]
        for row, sketch in zip(rows, np.ascontiguousarray(rows["sketch"]), strict=True):
            self._note(
                caller, int(row["identity"]), sketch, int(row["flags"]), int(row["position"]), float(row["when"])
            )
        number = told.caller.first + len(told.caller.rows)
        position = told.everybody.first + len(told.everybody.rows)
        found: SequenceFinding | None = None
        for at, (identity, taken) in enumerate(zip(sightings.identities.tolist(), told.taken.tolist(), strict=True)):
            sketch = sightings.sketches[at]
            if taken:
                if number == caller.cursor.count:  # else an answer that overtook this one brought it
                    strange = STRANGE if sightings.suspicious[at] else 0
                    self._note(caller, identity, sketch, strange | (taken & FRESH), position, told.now)
                number += 1
            if taken == FRESH:
                self._share(position, identity, sketch)
                position += 1
            found = caller.client.worst(found, at, told.now, use)
        return found

    def _hear(self, news: News) -> None:
        if news.born != self.cursor.born or news.first > self.cursor.count:
            self._rows, self.cursor = Window(SHARED_WINDOW), Cursor(news.born, news.first)
        sketches = np.ascontiguousarray(news.rows["sketch"])
        for at, identity in enumerate(news.rows["identity"].tolist()):
            self._share(news.first + at, identity, sketches[at])

    def _share(self, position: int, identity: int, sketch: Floats) -> None:
        if position == self.cursor.count:
            self._rows.add(identity, sketch)
            self.cursor = Cursor(self.cursor.born, position + 1)

    def _note(self, caller: Caller, identity: int, sketch: Floats, flags: int, position: int, when: float) -> None:
        own = others = None
        if flags & FRESH:
            own = caller.client.rows.nearest(sketch, self._tau)
            if own is None:  # only what had been asked before it
                others = self._rows.nearest(sketch, self._tau, max(0, self.cursor.count - position))
        caller.client.note(identity, sketch, own, others, bool(flags & STRANGE), when)
        caller.cursor = Cursor(caller.cursor.born, caller.cursor.count + 1)
