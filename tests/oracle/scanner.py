"""The oracle: what does an answer tell, whoever made it? It shares no code with the proxy.

Given the raw bytes of an answer it undoes the content coding, unframes events, reads binary tensors from their own
description, and reports every number that is finer than the profile and every row with more classes than it allows.
It reads by looking, not by protocol: numbers in names, labels, headers and error texts count like those in tensors.
"""

import base64
import binascii
import gzip
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_OURS = {"date", "content-length", "cache-control", "ratelimit", "ratelimit-policy", "x-content-type-options"}
_FRACTION = re.compile(r"-?\d*\.\d+(?:[eE][+-]?\d+)?|(?<![A-Za-z0-9-])-?\d+[eE][+-]?\d+(?![A-Za-z0-9-])")
_SCORED = re.compile(r"-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?:\d+(?::.*)?", re.DOTALL)
_FORMATS = {"FP16": "e", "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "BOOL": "?"}
_FORMATS |= {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"}
_LISTS_OF_OTHER_THINGS = {"shape", "dims", "text_offset"}  # where in a text each of its tokens begins
_NUMBERS_OF_CLASSES = {"index", "class"}
_ONE_BY_ONE = {"token_logprobs", "embedding"}  # one score for each token of a text; no classes


@dataclass(frozen=True, slots=True)
class Profile:
    """What an answer may tell. `rows`: of the request, so that one score per row is not taken for one row."""

    decimals: int | None = None
    top_k: int | None = None
    label_only: bool = False
    rows: int = 1


@dataclass(slots=True)
class _Scan:
    profile: Profile
    findings: list[str] = field(default_factory=list)

    def number(self, value: float, near: str = "d") -> None:
        """A number is fine if some number of the allowed precision looks like it in its datatype."""
        decimals = 0 if self.profile.label_only else self.profile.decimals
        if decimals is not None and _seen(round(value, decimals), near) != value:
            self.findings.append(f"number {value!r}")

    def row(self, scores: list[float], where: str) -> None:
        """Suppressed scores are 0; among negative ones (logits), they are put level with the lowest that is kept."""
        most = 1 if self.profile.label_only else self.profile.top_k
        if most is None or len(scores) <= most:
            return
        lowest = min(scores)
        told = sum(score != 0 for score in scores) if lowest >= 0 else sum(score != lowest for score in scores)
        if told > (most if lowest >= 0 else max(1, most - 1)):
            self.findings.append(f"{told} classes in {where}")

    def classes(self, texts: list[str], where: str) -> None:
        most = 1 if self.profile.label_only else self.profile.top_k
        if most is not None and sum(bool(_SCORED.fullmatch(text)) for text in texts) > most:
            self.findings.append(f"{len(texts)} classified strings in {where}")

    def text(self, text: str) -> None:
        for match in _FRACTION.finditer(text):
            self.number(float(match[0]))


def findings(headers: Mapping[str, str], body: bytes, profile: Profile) -> list[str]:
    """Return everything that an answer tells beyond the profile. Header names in lower case."""
    scan = _Scan(profile)
    scan.text("\n".join(f"{name}: {value}" for name, value in headers.items() if name not in _OURS))
    match headers.get("content-encoding"):
        case "gzip":
            body = gzip.decompress(body)
        case "deflate":
            body = zlib.decompress(body)
    end = headers.get("inference-header-content-length")
    rest = b"" if end is None else body[int(end) :]
    text = body[: len(body) - len(rest)].decode("utf-8", "replace")
    scan.text(text)
    for document in _documents(text, headers.get("content-type", "")):
        _walk(scan, document, "answer")
        if rest:
            _tensors(scan, document, rest)
        for scores in zip(*_lone(document, rest, scan.profile.rows), strict=False):
            scan.row(list(scores), "outputs side by side")
    return scan.findings


def _documents(text: str, kind: str) -> Iterator[object]:
    """Yield every JSON document in an answer."""
    found = [text]
    if kind.startswith("text/event-stream"):
        found = [line[5:] for line in text.splitlines() if line.startswith("data:")]
    for one in found:
        try:
            yield json.loads(one)
        except ValueError:
            continue


def _walk(scan: _Scan, value: object, where: str, *, listed: bool = False) -> None:
    """`listed`: the value is in a list, so that what it holds belongs to one row."""
    if isinstance(value, dict):
        if isinstance(value.get("shape"), list) and isinstance(value.get("data"), list):
            _rows(scan, list(_leaves(value["data"])), value["shape"], str(value.get("name")))
            value = {key: entry for key, entry in value.items() if key != "data"}
        scan.row(_object(value), where)
        for scores in () if listed else _columns(value, scan.profile.rows):
            scan.row(scores, where)
        for key, entry in value.items():
            if key == "embedding" and isinstance(entry, str):
                _embedding(scan, entry)
            elif key not in _LISTS_OF_OTHER_THINGS | _ONE_BY_ONE:
                _walk(scan, entry, key, listed=listed)
    elif isinstance(value, list):
        if len(value) != scan.profile.rows:
            for scores in _listed(value):
                scan.row(scores, where)
        if all(isinstance(entry, str) for entry in value) and len(value) != scan.profile.rows:
            scan.classes(value, where)
        for entry in value:
            _walk(scan, entry, where, listed=True)


def _object(value: dict[str, object]) -> list[float]:
    """The scores under several names; beside a label, one fraction is its score, and 0 or 1 may be anything."""
    numbers = [_alone(entry) for key, entry in value.items() if key not in _NUMBERS_OF_CLASSES]
    labelled = any(isinstance(entry, str) for entry in value.values())
    return [] if labelled and sum(isinstance(one, float) for one in numbers) == 1 else _fractions(numbers)


def _columns(value: dict[str, object], rows: int) -> Iterator[list[float]]:
    """Yield the scores that several columns have for each of the rows."""
    columns = [list(map(_alone, entry)) for entry in value.values() if isinstance(entry, list) and len(entry) == rows]
    scores = [one for one in columns if any(isinstance(n, float) for n in one) or {0, 1}.issuperset(one)]
    for entries in zip(*scores, strict=True):
        yield _fractions(list(entries))


def _listed(values: list[object]) -> Iterator[list[float]]:
    """Yield the scores of a list, whatever each of them stands in: by itself, in a list, in a pair, under a key."""
    alone = [_alone(value) for value in values]
    if all(number is not None for number in alone):
        yield [number for number in alone if number is not None]
    if all(isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) for value in values):
        yield _fractions([_alone(value[1]) for value in values])
    objects = [value for value in values if isinstance(value, dict)]
    if any("top_logprobs" in value for value in objects):
        return  # each is a token of a text, not a class
    if len(objects) == len(values) and all(sum(map(_is_number, value.values())) == 1 for value in objects):
        yield _fractions([_alone(one) for value in objects for one in value.values() if _is_number(one)])
    labelled = [value for value in objects if any(map(_is_label, value.values()))]
    for key in {key for value in labelled for key in value}:
        yield _fractions([_alone(value.get(key)) for value in labelled])


def _is_label(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and value not in {0, 1})


def _alone(value: object) -> float | None:
    """The number that a value is, also where lists of one stand around it."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if _is_number(value) else None  # type: ignore[return-value]


def _fractions(numbers: list[float | None]) -> list[float]:
    """Those that are scores if some of them are: beside a fraction, a whole number above 1 is something else."""
    if not any(isinstance(number, float) for number in numbers):
        return []
    return [number for number in numbers if isinstance(number, float) or (number is not None and number in {0, 1})]


def _embedding(scan: _Scan, text: str) -> None:
    """Base64 of float32."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        return
    for value in _unpacked(raw[: len(raw) // 4 * 4], "f"):
        scan.number(value, "f")


def _tensors(scan: _Scan, document: object, rest: bytes) -> None:
    """Read the bytes behind the JSON as the JSON describes them; every byte has to be described."""
    outputs = document.get("outputs", []) if isinstance(document, dict) else []
    at = 0
    for output in outputs:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            continue
        raw, at = rest[at : at + size], at + size
        name, datatype, shape = output["name"], output["datatype"], output["shape"]
        if datatype == "BYTES":
            texts = list(_strings(raw))
            for text in texts:
                scan.text(text)
            _rows(scan, texts, shape, name)
            continue
        near = "bf16" if datatype == "BF16" else _FORMATS[datatype]
        values = _unpacked(raw, near)
        for value in values:
            scan.number(value, near)
        _rows(scan, values, shape, name)
    if at != len(rest):
        scan.findings.append(f"{len(rest) - at} bytes that nothing describes")


def _lone(document: object, rest: bytes, rows: int) -> Iterator[list[float]]:
    """Yield the numbers of each output that has one fraction for a row, in JSON or behind it."""
    outputs = document.get("outputs", []) if isinstance(document, dict) else []
    at = 0
    for output in outputs if isinstance(outputs, list) else []:
        if not isinstance(output, dict) or "datatype" not in output:
            continue
        size = output.get("parameters", {}).get("binary_data_size", 0)
        raw, at = rest[at : at + size], at + size
        if output["datatype"] in {"FP16", "BF16", "FP32", "FP64"} and _length(output["shape"], rows) == 1:
            near = "bf16" if output["datatype"] == "BF16" else _FORMATS[output["datatype"]]
            yield _unpacked(raw, near) if raw else list(_leaves(output["data"]))


def _length(shape: list[int], rows: int) -> int:
    return shape[-1] if len(shape) > 1 else 1 if shape[0] == rows else shape[0]


def _rows(scan: _Scan, values: list[object], shape: list[int], name: str) -> None:
    length = _length(shape, scan.profile.rows)
    for at in range(0, len(values), length):
        row = values[at : at + length]
        if all(isinstance(value, str) for value in row):
            scan.classes(row, name)
        elif all(_is_number(value) for value in row):
            scan.row(row, name)


def _leaves(value: list[object]) -> Iterator[object]:
    for entry in value:
        if isinstance(entry, list):
            yield from _leaves(entry)
        else:
            yield entry


def _strings(raw: bytes) -> Iterator[str]:
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        yield raw[4 : 4 + size].decode("utf-8", "replace")
        raw = raw[4 + size :]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unpacked(raw: bytes, near: str) -> list[float]:
    if near == "bf16":
        return [struct.unpack("<f", b"\0\0" + raw[at : at + 2])[0] for at in range(0, len(raw), 2)]
    return list(struct.unpack(f"<{len(raw) // struct.calcsize('<' + near)}{near}", raw))


def _seen(value: float, near: str) -> float:
    """What a number becomes in a datatype."""
    if near == "bf16":
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        return _unpacked(struct.pack("<H", min(bits + 0x7FFF + (bits >> 16 & 1) >> 16, 0xFFFF)), near)[0]
    if near in "efd":
        return float(struct.unpack("<" + near, struct.pack("<" + near, value))[0])
    return value
