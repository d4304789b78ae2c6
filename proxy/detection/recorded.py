"""What a detector is fitted to of a recorded sample: which of its rows count. Pure.

Repeats count once: a client that asks the same every minute is no distribution. Of one caller within one file (a day at
most) at most `per_caller` rows count, so that nobody alone decides what is ordinary. Numbers count where a row is as
wide as most are. What was left out is told.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from proxy.detection.rows import Numbers
from proxy.detection.sample import Row

PER_CALLER = 200  # rows of one caller in one file


@dataclass(slots=True)
class Collected:
    """The rows that count so far."""

    per_caller: int = PER_CALLER
    numbers: list[bytes] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)  # and encoded images, until they are decoded
    images: list[Numbers] = field(default_factory=list)
    repeats: int = 0
    above_share: int = 0  # of rows of callers who gave more than theirs
    other_width: int = 0
    undecoded: int = 0  # texts among images, and images that nothing is made of
    _seen: set[bytes] = field(default_factory=set)

    def take(self, rows: Iterable[Row]) -> None:
        """Add the rows of one file."""
        given: Counter[str] = Counter()
        for row in rows:
            data = row.numbers if row.numbers is not None else row.text
            if data is None:
                continue
            digest = sha256((b"n" if row.numbers is not None else b"t") + data).digest()
            if digest in self._seen:
                self.repeats += 1
            elif given[row.caller] >= self.per_caller:
                self.above_share += 1
            else:
                self._seen.add(digest)
                given[row.caller] += 1
                (self.texts if row.numbers is None else self.numbers).append(data)

    def table(self) -> Numbers:
        """Return the rows of numbers, as wide as most of them are."""
        widths = Counter(map(len, self.numbers))
        width = widths.most_common(1)[0][0] if widths else 0
        same = [data for data in self.numbers if len(data) == width]
        self.other_width = len(self.numbers) - len(same)
        return np.frombuffer(b"".join(same), "<f4").reshape(len(same), width // 4).astype(np.float64)
