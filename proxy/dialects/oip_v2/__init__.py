"""`oip-v2`, the Open Inference Protocol over HTTP: MLServer, Triton, KServe v2.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md with the
extensions that its servers have: binary tensors, classification, generate, and streams of both.

What this dialect cannot read completely is refused, not passed. Not guaranteed: that a label or a text is not itself
an encoding of scores; a string with a fraction in it is refused under every profile that keeps something back.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import msgspec

from proxy.dialects.oip_v2 import actions, generate, management, replies, requests, tensors
from proxy.dialects.oip_v2.datatypes import Unreadable
from proxy.dialects.oip_v2.stream import EventHardener
from proxy.errors import Malformed, UpstreamFault
from proxy.exchange import (
    Action,
    Cost,
    Hardened,
    Headers,
    Naming,
    Output,
    Parameters,
    Query,
    Reply,
    Target,
)
from proxy.reasons import Reason

_ASKED = frozenset({Action.INFER, Action.STREAM})  # the actions whose requests have a body


class OipV2:
    """The Open Inference Protocol v2."""

    name = "oip-v2"
    naming = Naming.PATH
    readiness = "/v2/health/ready"
    parameters = requests.KNOWN
    manages = frozenset(management.READ)

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Name the action and the model of a path."""
        return actions.classify(method, path, query)

    def read(self, target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:
        """Read an inference request; every other action has an empty body."""
        if target.action in _ASKED:
            read = generate.read if target.form == actions.GENERATE else requests.read
            return read(headers, body, allowed)
        if body and body.strip() != b"{}":
            raise Malformed(Reason.MALFORMED_BODY, f"{target.action} takes no body")
        if target.action is Action.REPOSITORY:  # MLServer wants an object there, be it empty
            return Query(Cost(), b"{}", tensors.JSON)
        return Query(Cost(), b"", ())

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
        """Rebuild the reply from what we understood of it."""
        try:
            return _HARDEN[target.action](target, query, reply, output)
        except _UNREADABLE as exc:
            raise _unreadable(target, exc) from exc

    def stream(self, target: Target, query: Query, begun: Reply, output: Output) -> EventHardener:
        """Rebuild each event like a reply of its own."""
        if replies.media_type(begun.headers) != b"text/event-stream" or _coded(begun):
            raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "not a plain event stream")
        return EventHardener(partial(_event, target, query, output), partial(_worth, query))


_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError, OverflowError)


def _unreadable(target: Target, exc: Exception) -> UpstreamFault:
    """Return the refusal of what is not as the protocol describes it, in our own words."""
    words = str(exc) if isinstance(exc, Unreadable) else type(exc).__name__
    return UpstreamFault(Reason.UPSTREAM_UNREADABLE, f"{target.action}: {words}")


def _coded(reply: Reply) -> bool:
    return any(name == b"content-encoding" and value != b"identity" for name, value in reply.headers)


def _event(target: Target, query: Query, output: Output, data: bytes) -> bytes:
    try:
        if target.form == actions.GENERATE:
            return generate.rebuilt(target, query, data, output)
        return replies.rebuilt(target, query, data, memoryview(b""), output).body
    except _UNREADABLE as exc:
        raise _unreadable(target, exc) from exc


def _worth(query: Query, flowed: int) -> Cost | None:
    """Return the cost of a text and of what came back for it; tensors cost what was asked."""
    cost = query.cost
    return Cost(cost.requests, cost.rows, cost.tokens + generate.tokens(flowed)) if cost.tokens else None


# ── what each action's reply becomes ────────────────────────────────────────────────────────────────────────────


def _inference(target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
    if target.form != actions.GENERATE:
        return replies.harden(target, query, reply, output)
    if replies.media_type(reply.headers) != b"application/json":
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "content type")
    body = generate.rebuilt(target, query, reply.body, output)
    return Hardened(tensors.JSON, body, _worth(query, len(body)))


class _TensorMetadata(msgspec.Struct):
    """A tensor in a model's metadata."""

    name: str
    datatype: str
    shape: list[int]


class _ModelMetadata(msgspec.Struct):
    """A model's metadata. `platform` names the software: it is required by the protocol and left empty."""

    name: str
    inputs: list[_TensorMetadata] = []
    outputs: list[_TensorMetadata] = []
    versions: list[str] = []
    platform: str = ""


_metadata_decoder = msgspec.json.Decoder(_ModelMetadata)
_encode = msgspec.json.Encoder().encode
_SERVER = Hardened(tensors.JSON, b'{"name":"inference","version":"2","extensions":[]}')
_ALIVE = Hardened(tensors.JSON, b"{}")


def _metadata(target: Target, query: Query, reply: Reply, output: Output) -> Hardened:  # noqa: ARG001 - one signature
    if target.model is None:
        return _SERVER
    found = _metadata_decoder.decode(reply.body)
    if max(len(found.inputs), len(found.outputs)) > tensors.MAX_TENSORS:
        msg = "number of tensors"
        raise ValueError(msg)
    shown = _ModelMetadata(target.model, list(map(_checked, found.inputs)), list(map(_checked, found.outputs)))
    return Hardened(tensors.JSON, _encode(shown))


def _checked(one: _TensorMetadata) -> _TensorMetadata:
    return _TensorMetadata(replies.name(one.name), replies.name(one.datatype), one.shape[: tensors.MAX_RANK])


def _health(target: Target, query: Query, reply: Reply, output: Output) -> Hardened:  # noqa: ARG001 - one signature
    return _ALIVE


def _management(target: Target, query: Query, reply: Reply, output: Output) -> Hardened:  # noqa: ARG001 - one signature
    return management.harden(target, reply)


def _refuse(target: Target, query: Query, reply: Reply, output: Output) -> Hardened:  # noqa: ARG001 - one signature
    msg = "no way to harden this answer"
    raise ValueError(msg)


_HARDEN: Mapping[Action, Callable[[Target, Query, Reply, Output], Hardened]] = MappingProxyType(
    dict.fromkeys(Action, _refuse)
    | {Action.INFER: _inference, Action.METADATA: _metadata, Action.HEALTH: _health}
    | dict.fromkeys(management.READ, _management)
)
