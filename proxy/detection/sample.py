"""A thinned sample of what a model is asked: which inputs are kept, and how one is written down.

Of the requests of one window every one has the same chance (Vitter's algorithm R, 1985), and of its rows one is kept,
so that neither a large batch nor a busy minute fills the sample. A row is what a detector would be given: numbers as
float32, or the bytes of one text or encoded image. Who asked is a tag that means something within one file only.

Not guaranteed: that what is kept is ordinary. Whoever asks decides what is in it, and what a detector in `enforce`
found strange is left out; `proxy.detection.recorded` limits what one caller gives to a fit.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from proxy.errors import Malformed
from proxy.exchange import Images, Inputs, Texts
from proxy.reasons import Reason

MAX_ROW: Final = 4 << 20  # bytes of one input: an image of 1,048,576 numbers
MAX_PENDING: Final = 16 << 20  # bytes of one model's inputs in memory
WINDOW: Final = 60.0  # seconds
KEEP: Final = 30 * 86_400  # seconds, unless a policy says otherwise; also for a model of which it says nothing any more

Pick = Callable[[int], int]  # a number below another one, each with the same chance


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input, as it is written. Exactly one of the two is there."""

    at: int  # UNIX seconds
    caller: str
    numbers: bytes | None = None  # float32, little-endian
    text: bytes | None = None  # or an encoded image, as it was sent


class TooLarge(ValueError):
    """An input above MAX_ROW."""


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Row).decode


def row_of(features: Inputs, at: int, caller: str, pick: Pick) -> Row:
    """Return one row of a request. Raise Malformed where no detector could read it, TooLarge for a large one."""
    if isinstance(features, (Texts, Images)):
        texts = features.read()
        if not texts:
            raise Malformed(Reason.SCHEMA_MISMATCH, "no text and no image")
        return Row(at, caller, text=_small(texts[pick(len(texts))]))
    if features.ndim != 2 or not features.size:
        raise Malformed(Reason.SCHEMA_MISMATCH, "no row of numbers")
    chosen = features[pick(len(features))]
    if chosen.nbytes > 2 * MAX_ROW:  # as doubles
        raise TooLarge
    with np.errstate(over="ignore"):  # infinite then, and refused next
        numbers = chosen.astype("<f4")
    if not np.isfinite(numbers).all():
        raise Malformed(Reason.SCHEMA_MISMATCH, "a number that is not a finite float32")
    return Row(at, caller, numbers=_small(numbers.tobytes()))


def _small(data: bytes) -> bytes:
    if len(data) > MAX_ROW:
        raise TooLarge
    return data


class Reservoir:
    """The chosen rows of one window."""

    def __init__(self, most: int) -> None:
        self._most = most  # rows
        self._rows: list[Row] = []
        self._bytes = 0
        self._offered = 0

    def place(self, pick: Pick) -> int | None:
        """Count a request; return the place that its row gets, or None."""
        self._offered += 1
        if self._offered <= self._most:
            return len(self._rows)
        place = pick(self._offered)
        return place if place < len(self._rows) else None

    def put(self, place: int, row: Row) -> bool:
        """Put a row there, in the place of another; say whether there was memory for it."""
        before = _size(self._rows[place]) if place < len(self._rows) else 0
        if self._bytes - before + _size(row) > MAX_PENDING:
            return False
        self._rows[place : place + 1] = [row]
        self._bytes += _size(row) - before
        return True

    def take(self) -> list[Row]:
        """Return the rows, and begin the next window."""
        rows, self._rows, self._bytes, self._offered = self._rows, [], 0, 0
        return rows


def _size(row: Row) -> int:
    return len(row.numbers or b"") + len(row.text or b"")
