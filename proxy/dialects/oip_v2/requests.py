"""Inference requests: read once, checked completely, and forwarded as they were read."""

from array import array
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from proxy.dialects import strict_json
from proxy.dialects.oip_v2 import tensors
from proxy.dialects.oip_v2.datatypes import FLOATS, TEXTS, Datatype, Unreadable, datatype, finite, numbers, strings
from proxy.dialects.oip_v2.texts import texts
from proxy.dialects.parameters import Value, permitted
from proxy.errors import Malformed, UnsupportedMediaType
from proxy.exchange import Cost, Features, Headers, KnownParameter, Parameter, Parameters, Query, Texts
from proxy.reasons import Reason

Given = dict[str, Value] | msgspec.UnsetType


class RequestTensor(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An input tensor; `data` may be flat, nested, or in the bytes behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET
    parameters: Given = msgspec.UNSET


class RequestedOutput(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An output that the client asks for by name."""

    name: str
    parameters: Given = msgspec.UNSET


class InferRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an inference request."""

    inputs: list[RequestTensor]
    id: str | msgspec.UnsetType = msgspec.UNSET
    parameters: Given = msgspec.UNSET
    outputs: list[RequestedOutput] | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(InferRequest)
_encode = msgspec.json.Encoder().encode

_COUNTED = ("classification", "max_tokens", "priority", "tensors", "timeout", "top_k")

TEXT = "text_output"  # of an answer to `/generate`: where a rule allows it, a string is text, with numbers in it

# What a rule may speak of. Every form of an answer is hardened, so that its choice is safe where the rule is silent.
KNOWN: Mapping[str, KnownParameter] = MappingProxyType(
    {"outputs": KnownParameter(Parameter()), "binary_data_output": KnownParameter(Parameter())}
    | {name: KnownParameter(counted=True) for name in _COUNTED}
    | dict.fromkeys(("bad_words", "seed", "stop_words", "stream", "temperature", "top_p", TEXT), KnownParameter())
)
_SAFE = "content_type"  # how the data of a tensor is read
_SIZE = "binary_data_size"  # its place behind the JSON
_SAME = {"binary_data": "binary_data_output"}  # of one output, of all of them
NEVER = ("shared_memory", TEXT)  # another client's memory, which no rule opens; and what no request says


def read(headers: Headers, body: bytes, allowed: Parameters) -> Query:
    """Return what a request asks, and what may be forwarded of it."""
    require_media_type(headers)
    try:
        return _read(headers, body, allowed)
    except Unreadable as exc:
        raise Malformed(Reason.MALFORMED_BODY, str(exc)) from exc


def _read(headers: Headers, body: bytes, allowed: Parameters) -> Query:
    json, rest = tensors.parted(headers, body)
    request = strict_json.decode(_decoder, json)
    forwarded, head = _encode(request), tensors.JSON
    strict_json.refuse_duplicates(json, forwarded)
    _check_names(request)
    kinds = [datatype(tensor.datatype) for tensor in request.inputs]
    sizes = [_size(tensor) for tensor in request.inputs]
    tensors.cut(rest, sizes)
    _allow(request, allowed)
    if b'"parameters"' in forwarded:  # of which some may have been capped, or left out
        forwarded = _encode(request)
    if len(rest):
        forwarded = tensors.aligned(forwarded)
        head = tensors.binary(len(forwarded))
    parts = zip(request.inputs, kinds, tensors.cut(rest, sizes), strict=True)
    features: Features | Texts | None = _joined([_features(*part) for part in parts])
    # after which every shape is known to be one
    if features is None and all(kind.family is TEXTS for kind in kinds):
        pieces = zip(request.inputs, tensors.cut(rest, sizes), strict=True)
        features = texts([(tensor.shape, tensor.data or None, raw) for tensor, raw in pieces], len(body))
    return Query(
        cost=Cost(rows=max(tensor.shape[0] for tensor in request.inputs)),
        body=forwarded,
        headers=head,
        features=features,
        id=None if isinstance(request.id, msgspec.UnsetType) else request.id,
        behind=rest,
    )


def require_media_type(headers: Headers) -> None:
    """Refuse what is neither JSON nor binary. Where no content type is given, the JSON's end says it."""
    names = [name for name, _ in headers]
    kinds = [value.split(b";")[0].strip().lower() for name, value in headers if name == b"content-type"]
    known = {b"application/json", b"application/octet-stream"} if tensors.JSON_END in names else {b"application/json"}
    if len(kinds) > 1 or not known.issuperset(kinds):
        raise UnsupportedMediaType(detail="content type")
    if b"content-encoding" in names:
        raise UnsupportedMediaType(detail="content coding")


def _check_names(request: InferRequest) -> None:
    outputs = [] if isinstance(request.outputs, msgspec.UnsetType) else request.outputs
    if not 0 < len(request.inputs) <= tensors.MAX_TENSORS or len(outputs) > tensors.MAX_TENSORS:
        raise Unreadable("number of tensors")
    names, asked = [tensor.name for tensor in request.inputs], [output.name for output in outputs]
    if len(set(names)) != len(names) or len(set(asked)) != len(asked):
        raise Unreadable("a tensor stands twice")
    identity = "" if isinstance(request.id, msgspec.UnsetType) else request.id
    if max(map(len, (*names, *asked, identity))) > tensors.MAX_NAME:
        raise Unreadable("a name is too long")


def _size(tensor: RequestTensor) -> int | None:
    """Return how many bytes a tensor has behind the JSON; None: its data stands in the JSON."""
    size = None if isinstance(tensor.parameters, msgspec.UnsetType) else tensor.parameters.get(_SIZE)
    if (size is None) is isinstance(tensor.data, msgspec.UnsetType):
        raise Unreadable("a tensor has either data or a binary_data_size")
    if size is not None and type(size) is not int:
        raise Unreadable("a binary_data_size that is not a number")
    return size


# ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────


def _allow(request: InferRequest, allowed: Parameters) -> None:
    request.parameters = _allowed(request.parameters, allowed)
    for tensor in request.inputs:
        tensor.parameters = _allowed(tensor.parameters, allowed, own=_SIZE)
    if isinstance(request.outputs, msgspec.UnsetType):
        return
    permitted("outputs", len(request.outputs), allowed)
    for output in request.outputs:
        output.parameters = _allowed(output.parameters, allowed)


def _allowed(given: Given, allowed: Parameters, own: str | None = None) -> Given:
    if isinstance(given, msgspec.UnsetType):
        return given
    kept: dict[str, Value] = {}
    for name, value in given.items():
        if len(name) > tensors.MAX_NAME or name.startswith(NEVER):
            raise Malformed(Reason.FORBIDDEN_PARAMETER, "a parameter that no rule allows")
        safe = name == own or (name == _SAFE and isinstance(value, str))
        kept[name] = value if safe else permitted(_SAME.get(name, name), value, allowed)
    return kept or msgspec.UNSET


# ── for the detector ────────────────────────────────────────────────────────────────────────────────────────────


def _features(tensor: RequestTensor, kind: Datatype, raw: memoryview | None) -> Features | None:
    """Return the tensor as (rows, numbers); None for a tensor of strings. A tensor without rows has one."""
    count = tensors.elements(tensor.shape, kind)
    data = None if isinstance(tensor.data, msgspec.UnsetType) else tensors.flat(tensor.data, kind, count)
    if kind.family is TEXTS:
        if raw is not None:
            strings(raw, count)
        return None
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    if data is not None:
        try:
            # Rounded as numpy does it, at half the cost.
            return np.frombuffer(array("f", data), np.float32).reshape(rows, -1)
        except OverflowError as exc:
            raise Unreadable("a number beyond float64") from exc
    assert raw is not None  # noqa: S101 - `_size` saw to it
    found = numbers(kind, tensors.checked(raw, kind, count))
    if kind.family is FLOATS and not finite(found):
        raise Unreadable("a number that is not finite")  # JSON has none either
    with np.errstate(over="ignore"):  # beyond FP32: infinite here as above, and refused by the detector's gate
        single = found.astype(np.float32, copy=False)  # where they lie, if they are FP32: perhaps not aligned
    return single.reshape(rows, -1)


def _joined(arrays: list[Features | None]) -> Features | None:
    """Join columns that arrive as several tensors of as many rows; anything else has no single row to judge."""
    given = [array for array in arrays if array is not None]
    if len(given) != len(arrays) or len({len(array) for array in given}) != 1:
        return None
    return given[0] if len(given) == 1 else np.hstack(given)
