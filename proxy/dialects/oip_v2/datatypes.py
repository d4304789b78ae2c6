"""The datatypes of the Open Inference Protocol: what JSON data of each is made of, and how each lies on the wire.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#tensor-data-types
On the wire numbers are little endian; BF16 is the upper half of an FP32; a BYTES element has its length before it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.hardening.matrix import tied

LENGTH_BYTES = 4  # before each BYTES element
BLOCK = 1 << 16  # numbers that are looked at at once


class Unreadable(ValueError):
    """A tensor that is not what it says it is. The message is in our own words."""


class Family(Enum):
    """What kind of thing the elements of a tensor are."""

    FLOAT = "float"
    INTEGER = "integer"
    TRUTH = "truth"
    TEXT = "text"


FLOATS, INTEGERS, TRUTHS, TEXTS = Family  # looking a member up costs as much as a call, and every tensor asks


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype. `wire` is None where elements differ in size; BF16's are read as bit patterns."""

    name: str
    family: Family
    kinds: frozenset[type]  # of JSON data
    wire: np.dtype[Any] | None


def _numbers(family: Family, kinds: Iterable[type], wires: Mapping[str, str]) -> dict[str, Datatype]:
    return {name: Datatype(name, family, frozenset(kinds), np.dtype(wire)) for name, wire in wires.items()}


_INTEGER_WIRES = {
    f"{sign}INT{8 * size}": f"<{sign.lower() or 'i'}{size}" for sign in ("", "U") for size in (1, 2, 4, 8)
}

DATATYPES: Mapping[str, Datatype] = MappingProxyType(
    _numbers(FLOATS, (int, float), {"FP16": "<f2", "BF16": "<u2", "FP32": "<f4", "FP64": "<f8"})
    | _numbers(INTEGERS, (int,), _INTEGER_WIRES)
    | _numbers(TRUTHS, (bool,), {"BOOL": "|u1"})
    | {"BYTES": Datatype("BYTES", TEXTS, frozenset({str}), None)}
)


def datatype(name: str) -> Datatype:
    """Return a datatype by its name."""
    found = DATATYPES.get(name)
    if found is None:
        raise Unreadable("unknown datatype")
    return found


# ── from the wire ───────────────────────────────────────────────────────────────────────────────────────────────


def numbers(kind: Datatype, raw: memoryview) -> NDArray[np.generic]:
    """Return the elements of a tensor of numbers, without a copy (BF16 apart)."""
    assert kind.wire is not None  # noqa: S101 - `strings` reads the others
    found = np.frombuffer(raw, dtype=kind.wire)
    if kind.family is TRUTHS and len(found) and int(found.max()) > 1:
        raise Unreadable("BOOL data that is neither 0 nor 1")
    return _from_bf16(found) if kind.name == "BF16" else found


def finite(found: NDArray[np.generic]) -> bool:
    """Say whether all numbers are: block by block, in the processor's cache."""
    blocks = (np.require(found[at : at + BLOCK], requirements="A") for at in range(0, len(found), BLOCK))
    return all(np.isfinite(block).all() for block in blocks)


def strings(raw: memoryview, count: int) -> list[bytes]:
    """Return the elements of a BYTES tensor."""
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        begin = at + LENGTH_BYTES
        at = begin + int.from_bytes(raw[at:begin], "little")
        if begin > len(raw) or at > len(raw) or len(found) == count:
            raise Unreadable("BYTES data of another length")
        found.append(bytes(raw[begin:at]))
    if len(found) != count:
        raise Unreadable("BYTES data of another length")
    return found


# ── to the wire ─────────────────────────────────────────────────────────────────────────────────────────────────


def from_strings(texts: Iterable[str]) -> bytes:
    """Return BYTES data."""
    return b"".join(len(data).to_bytes(LENGTH_BYTES, "little") + data for data in map(str.encode, texts))


def from_scores(kind: Datatype, rows: NDArray[np.float64], raw: NDArray[np.float64] | None) -> NDArray[np.generic]:
    """Return hardened rows in their datatype. Where a narrow one has made a tie, the winner of `raw` is a step ahead.

    The step goes up, or down for the others where the winner is 1 already: as `hardening.scores` does it.
    """
    assert kind.wire is not None  # noqa: S101 - only numbers come here
    if kind.family is not FLOATS:
        limits = np.iinfo(kind.wire)
        return np.clip(np.trunc(rows), limits.min, limits.max).astype(kind.wire)
    near = _to_bf16(rows) if kind.name == "BF16" else rows.astype(kind.wire)
    if raw is None or kind.name == "FP64":
        return near
    values = _from_bf16(near) if kind.name == "BF16" else near
    for row in tied(values.T):
        winner = raw[row].argmax()
        best = values[row, winner]
        up = not (0.5 < float(best) <= 1.0)
        level = np.flatnonzero(values[row] >= best)
        for column in (winner,) if up else level[level != winner]:
            near[row, column] = _next(kind, near[row, column], up=up)
    return near


def _next(kind: Datatype, value: np.generic, *, up: bool) -> np.generic:
    """Return the neighbour of a number in its datatype."""
    if kind.name != "BF16":
        towards = np.array([np.inf if up else -np.inf], dtype=value.dtype)
        neighbour: np.generic = np.nextafter(np.array([value]), towards)[0]
        return neighbour
    bits = int(value)
    away = up != (bits >= 0x8000)  # a pattern's magnitude grows away from zero
    return np.uint16((0x0001 if up else 0x8001) if bits & 0x7FFF == 0 else bits + (1 if away else -1))


def _from_bf16(patterns: NDArray[np.generic]) -> NDArray[np.float32]:
    return (patterns.astype("<u4") << 16).view("<f4")


def _to_bf16(rows: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Round to nearest, ties to even, on the bits of an FP32."""
    bits: NDArray[np.uint32] = rows.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
