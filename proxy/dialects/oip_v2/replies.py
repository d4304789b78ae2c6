"""Inference replies: rebuilt from what was understood of them, in the form in which they came."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from proxy.dialects.oip_v2 import tensors
from proxy.dialects.oip_v2.columns import harden_columns
from proxy.dialects.oip_v2.datatypes import (
    FLOATS,
    INTEGERS,
    TEXTS,
    TRUTHS,
    Datatype,
    Family,
    Unreadable,
    datatype,
    from_scores,
    from_strings,
    numbers,
    strings,
)
from proxy.exchange import Hardened, Headers, Output, Query, Reply, Target
from proxy.hardening.matrix import harden_rows
from proxy.hardening.scores import harden_row
from proxy.hardening.text import harden_text

BLOCK = 1 << 16  # numbers that are hardened at once: what is held beside a tensor
FEW = 64  # numbers up to which one row after the other is faster

TextHardener = Callable[[Sequence[str], Output], list[str]]

_NUMBER_IN_NAME = re.compile(r"[0-9]\.[0-9]|\.[0-9]{2}")


class ReplyParameters(msgspec.Struct, omit_defaults=True):
    """What is read of a tensor's parameters. What is not named here does not leave."""

    binary_data_size: int | None = None


class ReplyTensor(msgspec.Struct, omit_defaults=True):
    """An output tensor. What is not named here does not leave."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET
    parameters: ReplyParameters | msgspec.UnsetType = msgspec.UNSET


class InferReply(msgspec.Struct, omit_defaults=True):
    """The body of an inference reply. What is not named here does not leave."""

    model_name: str
    outputs: list[ReplyTensor]
    model_version: str | None = None
    id: str | None = None


_decoder = msgspec.json.Decoder(InferReply)
_encode = msgspec.json.Encoder().encode


def name(text: str) -> str:
    """Return a name that an upstream chose; one that may hold a score is refused."""
    if len(text) > tensors.MAX_NAME or _NUMBER_IN_NAME.search(text):
        raise Unreadable("a number inside a name")
    return text


def harden(target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
    """Return what may leave of a whole reply."""
    kind = (reply.value(b"content-type") or b"").split(b";")[0].strip().lower()
    json, rest = tensors.parted(reply.headers, reply.body)
    # KServe's binary replies name no content type: there the JSON's end says enough.
    known = {b"application/octet-stream", b"application/json", b""} if len(rest) else {b"application/json"}
    if kind not in known or (not kind and any(key == b"content-type" for key, _ in reply.headers)):
        raise Unreadable("content type")
    return rebuilt(target, query, json, rest, output)


def rebuilt(target: Target, query: Query, json: bytes, rest: memoryview, output: Output) -> Hardened:
    """Return what may leave of a reply's JSON and the bytes behind it."""
    answer = _decoder.decode(json)
    if len(answer.outputs) > tensors.MAX_TENSORS:
        raise Unreadable("number of outputs")
    answer.model_name = target.model or ""
    answer.model_version = target.version  # the server's own version string is nobody's business
    answer.id = query.id
    pieces = tensors.cut(rest, [_size(tensor) for tensor in answer.outputs])
    if len(pieces) > 1:
        harden_columns(answer.outputs, pieces, query.cost.rows, output)
    blocks: list[Iterator[bytes | memoryview]] = []
    for tensor, raw in zip(answer.outputs, pieces, strict=True):
        tensor.name = name(tensor.name)
        kind = datatype(tensor.datatype)
        count = tensors.elements(tensor.shape, kind)
        length = _row_length(tensor.shape, query.cost.rows)
        if raw is None:
            _harden_json(tensor, kind, count, length, output)
        elif kind.family is TEXTS:
            blocks.append(iter([_harden_strings(tensor, strings(raw, count), length, output)]))
        else:
            blocks.append(_hardened(kind, tensors.checked(raw, kind, count), length, output))
    if not blocks:
        return Hardened(tensors.JSON, _encode(answer))
    head = tensors.aligned(_encode(answer))
    return Hardened(tensors.binary(len(head)), _joined(head, blocks))


def _joined(head: bytes, blocks: list[Iterator[bytes | memoryview]]) -> bytes:
    """Return everything in one piece, without ever holding it twice."""
    body = io.BytesIO()
    body.write(head)
    for block in blocks:
        body.writelines(block)
    return body.getvalue()


def _size(tensor: ReplyTensor) -> int | None:
    size = None if isinstance(tensor.parameters, msgspec.UnsetType) else tensor.parameters.binary_data_size
    if (size is None) is isinstance(tensor.data, msgspec.UnsetType):
        raise Unreadable("a tensor has either data or a binary_data_size")
    tensor.parameters = msgspec.UNSET if size is None else ReplyParameters(size)
    return size


def _row_length(shape: list[int], rows: int) -> int:
    """Return how many scores belong to one row: the last side, or 1 where a vector holds a score per row."""
    if len(shape) > 1:
        return shape[-1]
    return 1 if shape[0] == rows else shape[0]


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _harden_json(tensor: ReplyTensor, kind: Datatype, count: int, length: int, output: Output) -> None:
    assert not isinstance(tensor.data, msgspec.UnsetType)  # noqa: S101 - `_size` saw to it
    data = tensors.flat(tensor.data, kind, count)
    if kind.family is TEXTS:
        tensor.data = _harden_texts(tensor, data, length, output)
    else:
        tensor.data = harden_flat(data, kind.family, length, output)


def harden_flat(data: list[Any], family: Family, length: int, output: Output) -> list[Any]:
    """Return numbers, row by row of `length`. A single integer is a label; several may be scaled scores."""
    if family is TRUTHS or (family is INTEGERS and length == 1):
        return data
    shown: list[Any]
    if length == len(data) <= FEW:
        shown = harden_row(data, output)
    elif len(data) <= FEW:
        shown = [score for at in range(0, len(data), length) for score in harden_row(data[at : at + length], output)]
    else:
        shown = harden_rows(np.array(data, dtype=np.float64).reshape(-1, length), output).ravel().tolist()
    return list(map(int, shown)) if family is INTEGERS else shown


def _harden_texts(tensor: ReplyTensor, data: Sequence[str], length: int, output: Output) -> list[str]:
    """Return strings, row by row; where classes were cut off, the shape says so."""
    rows = [harden_text(data[at : at + length], output) for at in range(0, len(data), length)]
    kept = {len(row) for row in rows}
    if kept != {length}:
        if len(kept) != 1:
            raise Unreadable("rows of different kinds")
        tensor.shape = [*tensor.shape[:-1], *kept]
    return [text for row in rows for text in row]


# ── bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _harden_strings(tensor: ReplyTensor, data: Sequence[bytes], length: int, output: Output) -> bytes:
    shown = from_strings(_harden_texts(tensor, [text.decode() for text in data], length, output))
    tensor.parameters = ReplyParameters(len(shown))
    return shown


def _hardened(kind: Datatype, raw: memoryview, length: int, output: Output) -> Iterator[bytes | memoryview]:
    """Yield the hardened data, block by block."""
    found = numbers(kind, raw).reshape(-1, length)
    step = max(1, BLOCK // length)
    label = kind.family is TRUTHS or (kind.family is INTEGERS and length == 1)
    for at in range(0, len(found), step):
        block = found[at : at + step]
        if label:
            yield raw[at * length * block.itemsize : (at + len(block)) * length * block.itemsize]
            continue
        rows = block.astype(np.float64)
        shown = harden_rows(rows, output)
        yield from_scores(kind, shown, None if length == 1 or output.open else rows).tobytes()


# ── flat replies of `/generate` ─────────────────────────────────────────────────────────────────────────────────

NAMED = ("model_name", "model_version", "id")
_FAMILIES: Mapping[frozenset[type], Family] = {
    frozenset({bool}): TRUTHS,
    frozenset({int}): INTEGERS,
    frozenset({float}): FLOATS,
    frozenset({int, float}): FLOATS,
    frozenset({str}): TEXTS,
}


def flat_value(value: object, output: Output, text: TextHardener, depth: int = tensors.MAX_RANK) -> Any:
    """Return what may leave of one value: a scalar, or lists whose innermost are rows. `text`: of strings."""
    if not isinstance(value, list):
        return flat_value([value], output, text, depth)[0]
    kinds = frozenset(map(type, value))
    if kinds == {list} and depth > 1:
        return [flat_value(row, output, text, depth - 1) for row in value]
    family = _FAMILIES.get(kinds)
    if family is None or len(value) > tensors.MAX_ELEMENTS:
        raise Unreadable("a value that is not of numbers or strings")
    if family is TEXTS:
        return text(value, output)
    return harden_flat(value, family, len(value), output)


def head(target: Target, query: Query) -> Mapping[str, str]:
    """Return what we say of model and request instead of what the upstream says."""
    known = zip(NAMED, (target.model, target.version, query.id), strict=True)
    return {key: value for key, value in known if value is not None}


def media_type(headers: Headers) -> bytes:
    """Return the one content type of a reply, without its parameters."""
    kinds = {value.split(b";")[0].strip().lower() for key, value in headers if key == b"content-type"}
    return kinds.pop() if len(kinds) == 1 else b""
