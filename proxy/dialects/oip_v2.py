"""`oip-v2`, the Open Inference Protocol over HTTP: MLServer, Triton, KServe v2, JSON tensors.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md

What this module does not do yet is refused, not passed: binary tensors, `/generate`, streams.
"""

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from proxy.dialects import strict_json
from proxy.errors import Malformed, MethodNotAllowed, UnknownRoute, UnsupportedMediaType, UpstreamFault
from proxy.exchange import Action, Cost, Features, Headers, Output, Query, Reply, Target
from proxy.hardening.scores import harden_row
from proxy.hardening.text import harden_text
from proxy.reasons import Reason

MAX_TENSORS = 64  # inputs or outputs in one message
MAX_RANK = 8  # dimensions of a tensor
MAX_ELEMENTS = 1 << 24  # numbers in one tensor
MAX_NAME = 256  # characters of a tensor's name or a request id

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_MODEL = rf"/v2/models/(?P<model>{_SEGMENT})(?:/versions/(?P<version>{_SEGMENT}))?"

# method, path, action: the whole surface of the protocol and of the servers that speak it.
ACTIONS: tuple[tuple[str, str, Action], ...] = (
    ("POST", rf"{_MODEL}/infer", Action.INFER),
    ("GET", rf"{_MODEL}/ready", Action.HEALTH),
    ("GET", _MODEL, Action.METADATA),
    ("GET", r"/v2/health/(?:live|ready)", Action.HEALTH),
    ("GET", r"/v2", Action.METADATA),
    ("GET", rf"{_MODEL}/config", Action.CONFIG),
    ("GET", rf"{_MODEL}/stats", Action.STATISTICS),
    ("GET", r"/v2/models/stats", Action.STATISTICS),
    ("POST", r"/v2/repository/index", Action.REPOSITORY),
    ("POST", rf"/v2/repository/models/(?P<model>{_SEGMENT})/(?:load|unload)", Action.REPOSITORY),
    ("GET", r"/v2/(?:docs(?:/.*)?|models/(?P<model>" + _SEGMENT + r")/docs(?:/.*)?)", Action.DOCS),
)
_TABLE = tuple((method, re.compile(path), action) for method, path, action in ACTIONS)

_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_KINDS: Mapping[str, frozenset[type]] = MappingProxyType(  # what JSON data of a datatype may be made of
    dict.fromkeys(_FLOATS, frozenset({int, float}))
    | dict.fromkeys(_INTEGERS, frozenset({int}))
    | {"BOOL": frozenset({bool}), "BYTES": frozenset({str})}
)

_JSON_HEADERS: Headers = ((b"content-type", b"application/json"),)


class RequestTensor(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An input tensor; `data` may be flat or nested."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class RequestedOutput(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An output that the client asks for by name."""

    name: str
    parameters: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class InferRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of an inference request."""

    inputs: list[RequestTensor]
    id: str | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    outputs: list[RequestedOutput] | msgspec.UnsetType = msgspec.UNSET


class ReplyTensor(msgspec.Struct):
    """An output tensor. What is not named here does not leave."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferReply(msgspec.Struct, omit_defaults=True):
    """The body of an inference reply. What is not named here does not leave."""

    model_name: str
    outputs: list[ReplyTensor]
    model_version: str | None = None
    id: str | None = None


class TensorMetadata(msgspec.Struct):
    """A tensor in a model's metadata."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model's metadata. `platform` names the software: it is required by the protocol and left empty."""

    name: str
    inputs: list[TensorMetadata] = []
    outputs: list[TensorMetadata] = []
    versions: list[str] | None = None
    platform: str = ""


_request_decoder = msgspec.json.Decoder(InferRequest)
_reply_decoder = msgspec.json.Decoder(InferReply)
_metadata_decoder = msgspec.json.Decoder(ModelMetadata)
_encode = msgspec.json.Encoder().encode

# Request parameters and what becomes of them; what is not named is refused. `binary_data…` asks for a form of the
# answer, not for more of it: it is dropped, and stock clients read the JSON answer as well.
_DROPPED = frozenset({"binary_data", "binary_data_output"})
_ALLOWED = frozenset({"content_type"})


class OipV2:
    """The Open Inference Protocol v2."""

    name = "oip-v2"

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Look the path up in `ACTIONS`."""
        if path != "/v2" and not path.startswith("/v2/"):
            return None
        known = False
        for verb, pattern, action in _TABLE:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if verb != method:
                known = True
                continue
            if query:
                raise Malformed(Reason.MALFORMED_MESSAGE, "oip-v2 has no query parameters")
            names = match.groupdict()
            return Target(action, names.get("model"), names.get("version"))
        if known:
            raise MethodNotAllowed
        raise UnknownRoute

    def read(self, target: Target, headers: Headers, body: bytes) -> Query:
        """Read an inference request; every other action has an empty body."""
        if target.action is not Action.INFER:
            if body and body.strip() != b"{}":
                raise Malformed(Reason.MALFORMED_BODY, f"{target.action} takes no body")
            return Query(Cost(), b"", ())
        _require_json(headers)
        request = strict_json.decode(_request_decoder, body)
        strict_json.refuse_duplicates(body, _encode(request))
        _check(request)
        arrays = [_features(tensor) for tensor in request.inputs]
        return Query(
            cost=Cost(rows=max(max(1, tensor.shape[0]) for tensor in request.inputs)),
            body=_encode(request),
            headers=_JSON_HEADERS,
            features=_joined(arrays),
        )

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> tuple[Headers, bytes]:
        """Rebuild the reply from what we understood of it."""
        try:
            return _JSON_HEADERS, _HARDEN[target.action](target, query, reply, output)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError, OverflowError) as exc:
            raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, f"{target.action}: {type(exc).__name__}") from exc


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────


def _require_json(headers: Headers) -> None:
    """One JSON content type, no coding. A missing content type is JSON, as the servers have it."""
    kinds = [value for name, value in headers if name == b"content-type"]
    if len(kinds) > 1 or (kinds and kinds[0].split(b";")[0].strip().lower() != b"application/json"):
        raise UnsupportedMediaType(detail="content type")
    if any(name in {b"content-encoding", b"inference-header-content-length"} for name, _ in headers):
        raise UnsupportedMediaType(detail="content coding or binary tensors")


def _check(request: InferRequest) -> None:
    outputs = [] if isinstance(request.outputs, msgspec.UnsetType) else request.outputs
    if not 0 < len(request.inputs) <= MAX_TENSORS or len(outputs) > MAX_TENSORS:
        raise Malformed(detail="number of tensors")
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) != len(names) or len({output.name for output in outputs}) != len(outputs):
        raise Malformed(detail="a tensor stands twice")
    identity = "" if isinstance(request.id, msgspec.UnsetType) else request.id
    if any(len(name) > MAX_NAME for name in (*names, identity)):
        raise Malformed(detail="a name is too long")
    parts: tuple[InferRequest | RequestTensor | RequestedOutput, ...] = (request, *request.inputs, *outputs)
    for part in parts:
        part.parameters = _allowed_parameters(part.parameters)


def _allowed_parameters(given: dict[str, Any] | msgspec.UnsetType) -> dict[str, Any] | msgspec.UnsetType:
    if isinstance(given, msgspec.UnsetType):
        return given
    kept = {name: value for name, value in given.items() if name not in _DROPPED}
    for name, value in kept.items():
        if name not in _ALLOWED or not isinstance(value, str):
            raise Malformed(Reason.FORBIDDEN_PARAMETER, "a parameter that is not allowed")
    return kept or msgspec.UNSET


def _features(tensor: RequestTensor) -> Features | None:
    """Return the tensor as (rows, numbers); None for a tensor of strings. A tensor without rows has one."""
    size = _size(tensor.shape)
    if tensor.datatype not in _KINDS:
        raise Malformed(detail="unknown datatype")
    flat = _flat(tensor.data, MAX_RANK)
    if len(flat) != size:
        raise Malformed(detail="shape and data do not agree")
    if not set(map(type, flat)) <= _KINDS[tensor.datatype]:
        raise Malformed(detail=f"{tensor.datatype} data of another kind")
    if tensor.datatype == "BYTES":
        return None
    try:
        with np.errstate(over="ignore"):  # beyond float32: infinite here, and refused by the detector's gate
            numbers = np.array(flat, dtype=np.float64).astype(np.float32)
    except OverflowError as exc:
        raise Malformed(detail="a number beyond float64") from exc
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    return numbers.reshape(rows, -1)


def _joined(arrays: list[Features | None]) -> Features | None:
    """Join columns that arrive as several tensors of as many rows; anything else has no single row to judge."""
    given = [array for array in arrays if array is not None]
    if len(given) != len(arrays) or len({len(array) for array in given}) != 1:
        return None
    return given[0] if len(given) == 1 else np.hstack(given)


def _size(shape: list[int]) -> int:
    if not 0 < len(shape) <= MAX_RANK or any(side < 1 for side in shape):
        raise Malformed(detail="shape")
    size = math.prod(shape)
    if size > MAX_ELEMENTS:
        raise Malformed(detail="shape too large")
    return size


def _flat(data: list[Any], depth: int) -> list[Any]:
    """Flatten row by row; refuse more nesting than a shape may have."""
    kinds = set(map(type, data))
    if list not in kinds:
        return data
    if depth <= 1 or len(kinds) > 1:
        raise Malformed(detail="nesting")
    return [leaf for item in data for leaf in _flat(item, depth - 1)]


# ── replies ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _harden_infer(target: Target, query: Query, reply: Reply, output: Output) -> bytes:
    if (reply.value(b"content-type") or b"").split(b";")[0].strip().lower() != b"application/json":
        msg = "content type"
        raise ValueError(msg)
    answer = _reply_decoder.decode(reply.body)
    if len(answer.outputs) > MAX_TENSORS:
        msg = "number of outputs"
        raise ValueError(msg)
    answer.model_name = target.model or ""
    answer.model_version = target.version  # the server's own version string is nobody's business
    answer.id = answer.id[:MAX_NAME] if answer.id else None
    for tensor in answer.outputs:
        tensor.name = tensor.name[:MAX_NAME]
        _harden_tensor(tensor, query.cost.rows, output)
    return _encode(answer)


def _harden_tensor(tensor: ReplyTensor, rows: int, output: Output) -> None:
    try:
        size = _size(tensor.shape)
        flat = _flat(tensor.data, MAX_RANK)
    except Malformed as exc:  # the same checks, another culprit
        raise ValueError(exc.detail) from exc
    if size != len(flat) or not set(map(type, flat)) <= _KINDS.get(tensor.datatype, frozenset()):
        msg = "shape, datatype and data do not agree"
        raise ValueError(msg)
    if tensor.datatype != "BOOL":
        tensor.data = _HARDEN_KIND[tensor.datatype](flat, _row_length(tensor.shape, rows), output)


def _row_length(shape: list[int], rows: int) -> int:
    """Return how many scores belong to one row: the last side, or 1 where a vector holds a score per row."""
    if len(shape) > 1:
        return shape[-1]
    return 1 if shape[0] == rows else shape[0]


def _harden_numbers(flat: list[Any], length: int, output: Output) -> list[Any]:
    if length == len(flat):
        return harden_row(flat, output)
    return [score for at in range(0, len(flat), length) for score in harden_row(flat[at : at + length], output)]


def _harden_integers(flat: list[Any], length: int, output: Output) -> list[Any]:
    """Labels pass; rows of several integers may be scaled scores and are hardened as such."""
    if length == 1:
        return flat
    return [int(score) for score in _harden_numbers(flat, length, output)]


def _harden_strings(flat: list[Any], length: int, output: Output) -> list[Any]:
    return [text for at in range(0, len(flat), length) for text in harden_text(flat[at : at + length], output)]


_HARDEN_KIND: Mapping[str, Callable[[list[Any], int, Output], list[Any]]] = MappingProxyType(
    dict.fromkeys(_FLOATS, _harden_numbers) | dict.fromkeys(_INTEGERS, _harden_integers) | {"BYTES": _harden_strings}
)


def _harden_metadata(target: Target, query: Query, reply: Reply, output: Output) -> bytes:  # noqa: ARG001 - one signature
    if target.model is None:
        return _encode({"name": "inference", "version": "2", "extensions": []})
    found = _metadata_decoder.decode(reply.body)
    if max(len(found.inputs), len(found.outputs)) > MAX_TENSORS:
        msg = "number of tensors"
        raise ValueError(msg)
    return _encode(ModelMetadata(target.model, _short(found.inputs), _short(found.outputs), versions=[]))


def _short(tensors: list[TensorMetadata]) -> list[TensorMetadata]:
    return [TensorMetadata(t.name[:MAX_NAME], t.datatype[:MAX_NAME], t.shape[:MAX_RANK]) for t in tensors]


def _harden_health(target: Target, query: Query, reply: Reply, output: Output) -> bytes:  # noqa: ARG001 - one signature
    return b"{}"


def _refuse(target: Target, query: Query, reply: Reply, output: Output) -> bytes:  # noqa: ARG001 - one signature
    msg = "no way to harden this answer"
    raise ValueError(msg)


_HARDEN: Mapping[Action, Callable[[Target, Query, Reply, Output], bytes]] = MappingProxyType(
    dict.fromkeys(Action, _refuse)
    | {Action.INFER: _harden_infer, Action.METADATA: _harden_metadata, Action.HEALTH: _harden_health}
)
