"""What `hip detector fit` reads: files of rows, of images and of texts, and directories of images or texts.

A request body is read as its dialect reads it, so that what is learned is what will be judged.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from proxy.detection.encoded import PICTURE
from proxy.detection.picture import Layout, Picture, picture
from proxy.detection.rows import MAX_INPUT, Form, Numbers, Table, read_table
from proxy.dialects.oip_v2 import tensors
from proxy.dialects.oip_v2.datatypes import datatype
from proxy.dialects.oip_v2.texts import texts as tensor_texts
from proxy.dialects.openai.fields import FORMS, INPUTS
from proxy.dialects.openai.texts import texts as prompt_texts
from proxy.errors import ConfigError, Finding, Malformed

MAX_FILES = 1_000_000  # of a directory
MAX_FAULTS = 20  # told at once
CHANNELS = frozenset({1, 3, 4})  # a side that is one of these is taken for the channels
ENCODED = frozenset({".png", ".jpg", ".jpeg"})
BYTES = datatype("BYTES")

_ROWS = {".csv": Form.CSV, ".npy": Form.NPY, ".jsonl": Form.JSON_LINES, ".ndjson": Form.JSON_LINES}
_SHAPE = re.compile(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){1,2}")


def read_rows(source: Path) -> Table:
    """Return the rows of a file. Raise ConfigError."""
    form = _ROWS.get(source.suffix.lower())
    if form is None:
        raise refused(source, "unknown kind of file", f"name it {', '.join(_ROWS)}")
    return read_table(read(source, MAX_INPUT), form, str(source))


# ── images ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_images(source: Path, layout: Layout | None, shape: str, table: Table | None = None) -> tuple[Table, Picture]:
    """Return images, a row each, and how a row is one; of `table`, if they are read already. Raise ConfigError."""
    if table is None and source.is_dir() and any(path.suffix.lower() in ENCODED for path in source.iterdir()):
        if layout or shape:
            raise refused(source, "--layout and --shape mean nothing to PNG and JPEG", "leave them out")
        return _directory_of_encoded(source), PICTURE
    if table is None:
        table = _directory_of_images(source) if source.is_dir() else read_rows(source)
    if shape and not _SHAPE.fullmatch(shape):
        raise refused(source, f"--shape {shape!a:.40} is not the shape of an image", "like 3x32x32, or 28x28")
    sides = tuple(map(int, shape.split("x"))) if shape else table.sides
    if len(sides) < 2:
        raise refused(source, "nothing says how a row is an image", "write --shape, like 3x32x32 or 28x28")
    found = picture(layout or _layout(source, sides), sides)
    if found is None:
        raise refused(source, f"{len(sides)} sides are no image in this layout", "write --shape, like 3x32x32")
    return table, found


def _layout(source: Path, sides: tuple[int, ...]) -> Layout:
    if len(sides) == 2:
        return Layout.NHW
    first, last = sides[0] in CHANNELS, sides[-1] in CHANNELS
    if first == last:
        raise refused(source, f"which side of {'x'.join(map(str, sides))} are the channels?", "write --layout")
    return Layout.NCHW if first else Layout.NHWC


def _directory_of_images(source: Path) -> Table:
    """Read one image from each .npy."""
    images: list[Numbers] = []
    sides: tuple[int, ...] = ()
    for path, data in _files(source, {".npy"}):
        table = read_table(data, Form.NPY, str(path))
        own = (len(table.rows), *table.sides)
        if images and own != sides:
            raise refused(path, f"an image of {own}, and the first one is of {sides}", "give images of one shape")
        sides = own
        images.append(table.rows.reshape(-1))
    return Table(np.array(images), sides=sides)


def _directory_of_encoded(source: Path) -> Table:
    """Decode each PNG and JPEG, as the proxy will."""
    images: list[Numbers] = []
    findings: list[Finding] = []
    for path, data in _files(source, ENCODED):
        try:
            images.append(decoded(data))
        except Malformed as fault:
            findings.append(Finding(str(path), 0, 0, str(fault.detail), "the proxy refuses it too: leave it out"))
    if findings:
        raise ConfigError(findings[:MAX_FAULTS])
    return Table(np.array(images))


def decoded(data: bytes) -> Numbers:
    """Return the row of numbers of an encoded image. Raise Malformed."""
    from proxy.adapters.image_decoder import headers, rows  # an image decoder is there only where one is needed

    row: Numbers = rows(headers([data]))[0].astype(np.float64)
    return row


# ── texts ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


def read_texts(source: Path) -> list[bytes]:
    """Return texts: the lines of a .txt, what is in each line of a .jsonl, each .txt of a directory."""
    if source.is_dir():
        return [data for _, data in _files(source, {".txt"})]
    match source.suffix.lower():
        case ".txt":
            return [line for line in read(source, MAX_INPUT).splitlines() if line.strip()]
        case ".jsonl" | ".ndjson":
            return _json_texts(source)
    raise refused(source, "unknown kind of file", "name it .txt, .jsonl or .ndjson, or give a directory of .txt")


def _json_texts(source: Path) -> list[bytes]:
    found: list[bytes] = []
    findings: list[Finding] = []
    for number, line in enumerate(read(source, MAX_INPUT).splitlines(), 1):
        if line.strip() and len(findings) < MAX_FAULTS:
            try:
                found += _texts(msgspec.json.decode(line))
            except (msgspec.DecodeError, ValueError, RecursionError, Malformed):
                hint = 'write `"a text"`, or the body sent: chat, completions, embeddings, or OIP v2 with BYTES'
                findings.append(Finding(str(source), number, 1, "neither a text nor a request with texts only", hint))
    if findings:
        raise ConfigError(findings)
    return found


def _texts(given: object) -> list[bytes]:
    """Return what the dialects would hand to a detector. Raise ValueError or Malformed."""
    if isinstance(given, str):
        return [given.encode()]
    if not isinstance(given, dict):
        raise ValueError("neither a text nor a request")  # noqa: TRY004 - what a line holds, not what a caller passed
    if "inputs" in given:
        inputs = msgspec.convert(given["inputs"], list[_Tensor])
        if not inputs or any(tensor.datatype != "BYTES" for tensor in inputs):
            raise ValueError("not of texts")
        for tensor in inputs:
            tensors.flat(tensor.data, BYTES, tensors.elements(tensor.shape, BYTES))
        return list(tensor_texts([(tensor.shape, tensor.data, None) for tensor in inputs], 0).read())
    form = next((form for form, key in INPUTS.items() if key in given), "")
    if not form:
        raise ValueError("no input of a dialect that has texts")
    fields = {
        name: msgspec.convert(given[name], FORMS[form][name].kind)
        for name in (INPUTS[form], "suffix")
        if given.get(name) is not None and name in FORMS[form]
    }
    return list(prompt_texts(form, fields).read())


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _files(directory: Path, endings: Collection[str]) -> Iterator[tuple[Path, bytes]]:
    """Yield the files of a directory, by name; at most MAX_INPUT bytes of them."""
    paths = sorted(path for path in directory.iterdir() if path.suffix.lower() in endings)
    if not 0 < len(paths) <= MAX_FILES:
        raise refused(
            directory,
            f"{len(paths)} files *{', *'.join(sorted(endings))} in it",
            f"at least one, at most {MAX_FILES:,}",
        )
    left = MAX_INPUT
    for path in paths:
        data = read(path, left)
        left -= len(data)
        yield path, data


def read(path: Path, limit: int) -> bytes:
    """Return a file, up to a number of bytes. Raise ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise refused(path, f"cannot be read: {exc.strerror}", "name a file that is there and yours to read") from exc
    if len(data) > limit:
        raise refused(path, f"larger than {limit:,} bytes", "name another file, or a random part of this one")
    return data


def refused(path: Path, message: str, hint: str) -> ConfigError:
    """Return what is wrong with a file."""
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
