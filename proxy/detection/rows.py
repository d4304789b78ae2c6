"""Reads a file of inputs for `hip detector fit`: CSV, NPY, or JSON lines of rows or of OIP v2 request bodies.

Every fault is told with its line. Numbers are kept as they are: whether a detector can be fitted to them is decided in
`proxy.detection.fit`. Not guaranteed: that the rows are ordinary; what is in them is what the detector takes for good.
"""

import csv
import io
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from proxy.errors import ConfigError, Finding

MAX_INPUT = 1 << 30  # bytes
MAX_FAULTS = 20  # told at once

Numbers = NDArray[np.float64]


class Form(StrEnum):
    """How a file holds rows; the value is the file name's ending."""

    CSV = "csv"
    NPY = "npy"
    JSON_LINES = "jsonl"


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The rows of a file, and the names that its header gives to the features."""

    rows: Numbers
    names: tuple[str, ...] = ()
    sides: tuple[int, ...] = ()  # of one row, where the file says more than how many numbers it has


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float | list[float | list[float]]]  # flat, or nested as deep as an image with channels


class _InferRequest(msgspec.Struct):
    """What is read of an OIP v2 request body; whatever else it holds does not concern a detector."""

    inputs: list[_Tensor]


_LINE = msgspec.json.Decoder(list[float] | _InferRequest)


def read_table(data: bytes, form: Form, source: str) -> Table:
    """Return the rows of a file. Raise ConfigError with its faults."""
    if len(data) > MAX_INPUT:
        raise ConfigError([Finding(source, 0, 0, f"larger than {MAX_INPUT:,} bytes", "a random part of it will do")])
    match form:
        case Form.NPY:
            return _npy(data, source)
        case Form.CSV:
            return _csv(data, source)
        case Form.JSON_LINES:
            return _json_lines(data, source)


def _npy(data: bytes, source: str) -> Table:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)  # a pickle is a program
    except (ValueError, OSError, EOFError, SyntaxError, struct.error) as exc:
        raise ConfigError([Finding(source, 0, 0, "not an NPY file of numbers", "`numpy.save` makes one")]) from exc
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or array.ndim < 2:
        hint = "save one array of numbers, one row per input"
        raise ConfigError([Finding(source, 0, 0, "not a table of numbers", hint)])
    with np.errstate(over="ignore"):
        return Table(array.reshape(len(array), math.prod(array.shape[1:])).astype(np.float64), sides=array.shape[1:])


def _csv(data: bytes, source: str) -> Table:
    text = _text(data, source)
    lines = csv.reader(io.StringIO(text), strict=True)
    faults = _Faults(source)
    names: tuple[str, ...] = ()
    rows: list[list[float]] = []
    try:
        for cells in lines:
            if not cells:
                continue
            try:
                numbers = list(map(float, cells))
            except ValueError:
                if rows or names:
                    faults.add(lines.line_num, f"not a number: {_first_word(cells)!r:.40}", "remove the line")
                else:
                    names = tuple(cell.strip() for cell in cells)
                continue
            width = len(rows[0]) if rows else len(names) or len(numbers)
            if len(numbers) == width:
                rows.append(numbers)
            else:
                faults.add(lines.line_num, f"{len(numbers)} numbers and not {width}", "every row has the same columns")
    except csv.Error as exc:
        faults.add(lines.line_num, f"not CSV: {exc}", "separate numbers by commas")
    faults.refuse_any(rows)
    return Table(np.array(rows, np.float64), names)


def _json_lines(data: bytes, source: str) -> Table:
    faults = _Faults(source)
    parts: list[Numbers] = []
    sides: set[tuple[int, ...]] = set()
    for number, line in enumerate(_text(data, source).splitlines(), 1):
        if not line.strip():
            continue
        try:
            decoded = _LINE.decode(line)
            part = np.array([decoded], np.float64) if isinstance(decoded, list) else _tensors(decoded.inputs)
            sides.add(() if isinstance(decoded, list) else _sides(decoded.inputs))
        except (msgspec.DecodeError, ValueError, RecursionError):
            faults.add(number, "neither a list of numbers nor an OIP v2 request", "write `[1.5, 2]` or the body sent")
            continue
        if parts and part.shape[1] != parts[0].shape[1]:
            faults.add(number, f"{part.shape[1]} numbers and not {parts[0].shape[1]}", "every row has the same numbers")
        else:
            parts.append(part)
    faults.refuse_any(parts)
    return Table(np.concatenate(parts), sides=sides.pop() if len(sides) == 1 else ())


def _tensors(tensors: list[_Tensor]) -> Numbers:
    """Return the rows of a request as its dialect hands them to the detector: tensors side by side."""
    arrays = []
    for tensor in tensors:
        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        array = np.array(list(_flat(tensor.data)), np.float64)
        if tensor.datatype == "BYTES" or rows < 1 or array.size != math.prod(tensor.shape):
            raise ValueError("not a tensor of numbers")
        arrays.append(array.reshape(rows, -1))
    return np.hstack(arrays)


def _sides(tensors: list[_Tensor]) -> tuple[int, ...]:
    return tuple(tensors[0].shape[1:]) if len(tensors) == 1 else ()


def _flat(data: Sequence[float | Sequence[float | Sequence[float]]]) -> Iterator[float]:
    for item in data:
        if isinstance(item, Sequence):
            yield from _flat(item)
        else:
            yield item


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError([Finding(source, 0, 0, "not UTF-8 text", "save it as UTF-8")]) from exc


def _first_word(cells: list[str]) -> str:
    for cell in cells:
        try:
            float(cell)
        except ValueError:
            return cell
    return ""


class _Faults:
    def __init__(self, source: str) -> None:
        self._source = source
        self._findings: list[Finding] = []

    def add(self, line: int, message: str, hint: str) -> None:
        if len(self._findings) < MAX_FAULTS:
            self._findings.append(Finding(self._source, line, 1, message, hint))

    def refuse_any(self, rows: list[list[float]] | list[Numbers]) -> None:
        if not self._findings and not rows:
            self.add(0, "no rows", "one line per input")
        if self._findings:
            raise ConfigError(self._findings)
