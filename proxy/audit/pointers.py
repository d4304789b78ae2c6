"""What exported spans say of the journal: each server span names its records by stream, place and hash.

Reads OTLP JSON lines (OTLP specification, "JSON Protobuf Encoding"), ours or those that a collector wrote again.
Decides nothing: a span is unsigned, and whoever can write the trace store can invent one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from proxy.record import UNRECORDED

SERVER = 2  # SPAN_KIND_SERVER


class _Value(msgspec.Struct):
    string: str | None = msgspec.field(default=None, name="stringValue")
    integer: str | int | None = msgspec.field(default=None, name="intValue")


class _Attribute(msgspec.Struct):
    key: str
    value: _Value = msgspec.field(default_factory=_Value)


class _Span(msgspec.Struct):
    trace: str = msgspec.field(default="", name="traceId")
    kind: int | str = 0
    start: str | int = msgspec.field(default=0, name="startTimeUnixNano")
    end: str | int = msgspec.field(default=0, name="endTimeUnixNano")
    attributes: tuple[_Attribute, ...] = ()


class _Scope(msgspec.Struct):
    spans: tuple[_Span, ...] = ()


class _Resource(msgspec.Struct):
    scopes: tuple[_Scope, ...] = msgspec.field(default=(), name="scopeSpans")


class _Request(msgspec.Struct):
    resources: tuple[_Resource, ...] = msgspec.field(default=(), name="resourceSpans")


_decode = msgspec.json.Decoder(_Request).decode


@dataclass(frozen=True, slots=True)
class Pointer:
    """One request, as its server span tells of it. `stream` is empty where no record could be written."""

    trace: str
    incident: str
    start_ns: int
    end_ns: int
    decision: str
    reason: str
    stream: str = ""
    decision_seq: int = -1
    decision_hash: str = ""
    completion_seq: int = -1
    completion_hash: str = ""
    unrecorded: bool = False  # it was let pass without a record: `failure: open`


class PointerError(ValueError):
    """A line that is no OTLP JSON."""


def pointers(line: bytes) -> Iterator[Pointer]:
    """Yield what the server spans of one export request point to; raise PointerError."""
    try:
        request = _decode(line)
        for resource in request.resources:
            for scope in resource.scopes:
                for span in scope.spans:
                    if span.kind in {SERVER, "SPAN_KIND_SERVER"}:
                        yield _pointer(span)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        message = f"no OTLP JSON: {type(error).__name__}"
        raise PointerError(message) from error


def _pointer(span: _Span) -> Pointer:
    told = {one.key: one.value for one in span.attributes}

    def text(name: str) -> str:
        return (told[name].string or "") if name in told else ""

    def number(name: str) -> int:
        found = told[name].integer if name in told else None
        return -1 if found is None else int(found)

    stream = text("hip.journal.stream")
    unrecorded = stream == UNRECORDED.stream
    return Pointer(
        trace=span.trace,
        incident=text("hip.incident"),
        start_ns=int(span.start),
        end_ns=int(span.end),
        decision=text("hip.decision"),
        reason=text("hip.reason"),
        stream="" if unrecorded else stream,
        decision_seq=number("hip.journal.decision.seq"),
        decision_hash=text("hip.journal.decision.hash"),
        completion_seq=number("hip.journal.completion.seq"),
        completion_hash=text("hip.journal.completion.hash"),
        unrecorded=unrecorded,
    )
