"""Query sequences: what no single row shows. Who asks along a line or around a point is finding something out.

Three patterns per client, over its last distinct rows:
- near-duplicates: 3 of the last 200 lie within tau of another of these;
- colluding: 3 do so when the last rows of all clients count too: an attack that several clients share;
- out of distribution: 8 of the last 50, or 5 of the last 8, were suspicious to the detector.
An exact repeat (a retry, a popular input) is excused from the first two, whoever asked it before, and a client's own
repeat from the third. A row that is older than the rule's decay no longer counts. The state is a fold over
`Sightings`, which are plain numbers: `proxy.detection.shared_sequence` is the same fold in the order of a shared store.

Not guaranteed: anything about who keeps its rows tau apart (1.4 to 2.1 times the queries, measured), or about rows
that really come in small steps: a time series is flagged. "Colluding" says that rows lie near each other, not whose
fault it is: a client can ask near what others will ask. It is evidence to degrade by, not alone to refuse by.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import SKETCH, Floats
from proxy.exchange import Features, Pattern, SequenceFinding, SequenceUse, Sightings

NEAR_WINDOW = 200  # distinct rows of one client
NEAR_LIMIT = 3
STRANGE_WINDOW = 50  # distinct rows of one client
STRANGE_LIMIT = 8
# At once: of ordinary rows, one in a hundred of them suspicious, 5 of 8 are rarer (5e-9) than 8 of 50 (4e-8).
SUDDEN_WINDOW = 8
SUDDEN_LIMIT = 5
SHARED_WINDOW = 1024  # distinct rows of all clients: 0.3 MB, and a look through it takes about 20 µs
MAX_CLIENTS = 1024  # remembered at once: 0.06 MB each when their windows are full
ROUNDING = 1e-5  # of a square: what float32 may lose when |a - b|² is had as |a|² - 2ab + |b|²
FIRST_SLOTS = 16  # rows that a new client's window has room for; it doubles when it is full


class SequenceWatch:
    """Remembers what clients of one detector asked lately. One per detector: sketches of two do not compare."""

    def __init__(self, tau: float, *, clients: int = MAX_CLIENTS, shared: int = SHARED_WINDOW) -> None:
        self._tau = tau
        self._capacity = clients
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._shared = Window(shared)
        self.evicted = 0  # clients forgotten for lack of room

    def observe(self, account: str, sightings: Sightings, use: SequenceUse, now: float) -> SequenceFinding | None:
        """Take note of a request's rows, in order, and say what the client's rows show after any of them.

        Of several findings it is the one with the highest rung.
        """
        client = self._client(account)
        found: SequenceFinding | None = None
        for row, identity in enumerate(sightings.identities.tolist()):
            if not client.knows(identity):
                self._note(client, identity, sightings.sketches[row], bool(sightings.suspicious[row]), use.near, now)
            found = client.worst(found, row, now, use)
        return found

    def _note(self, client: "Client", identity: int, sketch: Floats, strange: bool, near: bool, now: float) -> None:
        own = others = None
        if near and not self._shared.knows(identity):
            own = client.rows.nearest(sketch, self._tau)
            if own is None:
                others = self._shared.nearest(sketch, self._tau)
            self._shared.add(identity, sketch)
        client.note(identity, sketch, own, others, strange, now)

    def _client(self, account: str) -> "Client":
        client = self._clients.get(account)
        if client is None:
            if len(self._clients) >= self._capacity:
                self._clients.popitem(last=False)
                self.evicted += 1
            client = self._clients[account] = Client()
        self._clients.move_to_end(account)
        return client


def identities(rows: Features) -> NDArray[np.uint64]:
    """Return the identity of each row: 64 bits of a hash over its numbers, minus zero being zero."""
    plain = np.ascontiguousarray(rows + np.float32(0))
    digests = b"".join(blake2b(row.data, digest_size=8).digest() for row in plain)
    return np.frombuffer(digests, np.uint64)


_Mark = tuple[int, float, float]  # number of the row, when it was asked, how far it was from another


class _Marks:
    """Which of the last rows had a mark."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._rows = 0
        self._marks: deque[_Mark] = deque()

    def append(self, distance: float | None, now: float) -> None:
        if distance is not None:
            self._marks.append((self._rows, now, distance))
        self._rows += 1
        if self._marks and self._marks[0][0] < self._rows - self._window:
            self._marks.popleft()

    def since(self, oldest: float) -> list[_Mark]:
        return [mark for mark in self._marks if mark[1] >= oldest]

    def among(self, last: int, marks: list[_Mark]) -> list[_Mark]:
        """Return those of the marks that the last rows have."""
        return [mark for mark in marks if mark[0] >= self._rows - last]

    def __len__(self) -> int:
        return min(self._rows, self._window)

    def __bool__(self) -> bool:
        return bool(self._marks)


class Client:
    """The last distinct rows of one client."""

    def __init__(self) -> None:
        self.rows = Window(NEAR_WINDOW)
        self.near = _Marks(NEAR_WINDOW)  # near one of its own rows
        self.other = _Marks(NEAR_WINDOW)  # near another client's row only
        self.strange = _Marks(STRANGE_WINDOW)

    def knows(self, identity: int) -> bool:
        """Say whether the row is one of them."""
        return self.rows.knows(identity)

    def note(
        self, identity: int, sketch: Floats, own: float | None, others: float | None, strange: bool, now: float
    ) -> None:
        """Add a row. `own`, `others`: how far the nearest of its own and of others' lies, in tau, if that is near."""
        self.rows.add(identity, sketch)
        self.near.append(own, now)
        self.other.append(others, now)
        self.strange.append(0.0 if strange else None, now)

    def worst(self, found: SequenceFinding | None, row: int, now: float, use: SequenceUse) -> SequenceFinding | None:
        """Return what the rows show now, or what was found before where that is on no lower rung."""
        for finding in self.findings(row, now - use.decay):
            if found is None or use.rung(finding).height > use.rung(found).height:
                found = finding
        return found

    def findings(self, row: int, oldest: float) -> Iterator[SequenceFinding]:
        """Yield what the rows since then show, the surest first."""
        if not (self.near or self.strange or self.other):
            return
        near, strange = self.near.since(oldest), self.strange.since(oldest)
        if len(near) >= NEAR_LIMIT:
            yield _finding(Pattern.NEAR_DUPLICATES, near, NEAR_LIMIT, len(self.near), row)
        if len(strange) >= STRANGE_LIMIT:
            yield _finding(Pattern.OUT_OF_DISTRIBUTION, strange, STRANGE_LIMIT, len(self.strange), row)
        elif len(sudden := self.strange.among(SUDDEN_WINDOW, strange)) >= SUDDEN_LIMIT:
            window = min(len(self.strange), SUDDEN_WINDOW)
            yield _finding(Pattern.OUT_OF_DISTRIBUTION, sudden, SUDDEN_LIMIT, window, row)
        both = sorted(near + self.other.since(oldest))
        if len(near) < NEAR_LIMIT <= len(both):
            yield _finding(Pattern.COLLUDING, both, NEAR_LIMIT, len(self.near), row)


def _finding(pattern: Pattern, marks: list[_Mark], limit: int, window: int, row: int) -> SequenceFinding:
    count = len(marks)
    reached = limit << (count // limit).bit_length() - 1  # the limit, doubled as often as the evidence has
    distance = None if pattern is Pattern.OUT_OF_DISTRIBUTION else marks[-1][2]
    return SequenceFinding(pattern, count, limit, window, row, marks[reached - 1][1], distance)


class Window:
    """The last distinct rows, oldest overwritten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sketches: Floats = np.empty((min(FIRST_SLOTS, capacity), SKETCH), np.float32)
        self._squares: Floats = np.empty(len(self._sketches), np.float32)  # of their lengths, less ROUNDING
        self._slots: list[int] = []  # identity per slot
        self._known: set[int] = set()
        self._next = 0

    def knows(self, identity: int) -> bool:
        """Say whether the row is one of them."""
        return identity in self._known

    def nearest(self, sketch: Floats, tau: float, but: int = 0) -> float | None:
        """Return the distance to the nearest row in units of tau, if that is no more than 1. `but`: not the last."""
        filled = len(self._slots)
        if not filled:
            return None
        rows = self._sketches[:filled]
        quick = self._squares[:filled] - rows @ (sketch + sketch)
        likely = quick <= tau * tau - (1 - ROUNDING) * float(sketch @ sketch)
        if but:
            likely[(self._next - 1 - np.arange(filled)) % self._capacity < but] = False
        if not likely.any():
            return None
        apart = rows[likely] - sketch
        square = float((apart * apart).sum(axis=1).min())
        return square**0.5 / tau if square <= tau * tau else None

    def add(self, identity: int, sketch: Floats) -> None:
        """Put a row in, for the oldest one if need be."""
        if len(self._slots) < self._capacity:
            if len(self._slots) == len(self._sketches):
                self._grow()
            self._slots.append(identity)
        else:
            self._known.discard(self._slots[self._next])
            self._slots[self._next] = identity
        self._known.add(identity)
        self._sketches[self._next] = sketch
        self._squares[self._next] = (1 - ROUNDING) * float(sketch @ sketch)
        self._next = (self._next + 1) % self._capacity

    def _grow(self) -> None:
        size = min(2 * len(self._sketches), self._capacity)
        sketches, squares = np.empty((size, SKETCH), np.float32), np.empty(size, np.float32)
        sketches[: len(self._sketches)], squares[: len(self._squares)] = self._sketches, self._squares
        self._sketches, self._squares = sketches, squares
