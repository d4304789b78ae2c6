"""The texts or encoded images of a request whose tensors are all BYTES, for a detector of either."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from proxy.dialects import images
from proxy.dialects.oip_v2 import tensors
from proxy.dialects.oip_v2.datatypes import strings
from proxy.errors import Malformed
from proxy.exchange import Texts
from proxy.reasons import Reason

Part = tuple[list[int], list[Any] | None, memoryview | None]  # shape, data in the JSON, data behind it: one of them


def texts(parts: Sequence[Part], size: int) -> Texts:
    """Return the texts of tensors that were found to be as they say, in a request of `size` bytes."""
    return Texts(partial(_read, parts), images.of_elements(partial(_read_single, parts), size))


def _read(parts: Sequence[Part]) -> list[bytes]:
    """Return one text for each row: its elements in all tensors, a line each."""
    rows = parts[0][0][0]
    if any(shape[0] != rows for shape, _, _ in parts):
        raise Malformed(Reason.SCHEMA_MISMATCH, "tensors of different numbers of rows")
    tables = []
    for part in parts:
        elements = _elements(*part)
        width = len(elements) // rows
        tables.append([b"\n".join(elements[at : at + width]) for at in range(0, len(elements), width)])
    return [b"\n".join(row) for row in zip(*tables, strict=True)]


def _read_single(parts: Sequence[Part]) -> list[bytes]:
    """Return the only element of each row."""
    if len(parts) != 1 or math.prod(parts[0][0]) != parts[0][0][0]:
        raise Malformed(Reason.SCHEMA_MISMATCH, "more than one image in a row")
    return _elements(*parts[0])


def _elements(shape: list[int], data: list[Any] | None, raw: memoryview | None) -> list[bytes]:
    if data is not None:
        return [text.encode() for text in tensors.leaves(data)]
    assert raw is not None  # noqa: S101 - a tensor has either
    return strings(raw, math.prod(shape))
