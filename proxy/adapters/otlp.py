"""OTLP messages, binary and as JSON lines, straight from our spans, at about half of what the SDK costs.

Decides the bytes that a collector reads; both forms carry the same spans. The binary form is made with the official
message classes, the JSON form follows the OTLP specification, "JSON Protobuf Encoding".
"""

from collections.abc import Iterable

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs are published with it
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from proxy import __version__
from proxy.audit.trace import Attributes, Kind, Span, Value

SCOPE = "hip"


# ── OTLP as protobuf ────────────────────────────────────────────────────────────────────────────────────────────────


def as_protobuf(resource: Attributes, spans: Iterable[Span]) -> bytes:
    """Return one ExportTraceServiceRequest, binary."""
    scope = InstrumentationScope(name=SCOPE, version=__version__)
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=_pairs(resource)),
                scope_spans=[ScopeSpans(scope=scope, spans=[_message(span) for span in spans])],
            )
        ]
    )
    return bytes(message.SerializeToString())


def _message(span: Span) -> SpanMessage:
    return SpanMessage(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id or ""),
        name=span.name,
        kind=int(span.kind),  # type: ignore[arg-type]
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_pairs(span.attributes),
        links=[]
        if span.link is None
        else [SpanMessage.Link(trace_id=bytes.fromhex(span.link[0]), span_id=bytes.fromhex(span.link[1]))],
        status=Status(code=Status.STATUS_CODE_ERROR if span.error else Status.STATUS_CODE_UNSET),
    )


def _pairs(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any_value(value)) for name, value in attributes]


def _any_value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):  # before int: a bool is one
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)


# ── OTLP as JSON (OTLP specification, "JSON Protobuf Encoding": hexadecimal ids, 64-bit integers as strings) ────────

_encode = msgspec.json.Encoder().encode


def as_json(resource: Attributes, spans: Iterable[Span]) -> bytes:
    """Return one ExportTraceServiceRequest as a JSON line."""
    scope = {"name": SCOPE, "version": __version__}
    scope_spans = [{"scope": scope, "spans": [_object(span) for span in spans]}]
    return _encode({"resourceSpans": [{"resource": {"attributes": _json_pairs(resource)}, "scopeSpans": scope_spans}]})


def _object(span: Span) -> dict[str, object]:
    members: dict[str, object] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _json_pairs(span.attributes),
        "status": {"code": int(Status.STATUS_CODE_ERROR)} if span.error else {},
    }
    if span.parent_id is not None:
        members["parentSpanId"] = span.parent_id
    if span.link is not None:
        members["links"] = [{"traceId": span.link[0], "spanId": span.link[1]}]
    return members


def _json_pairs(attributes: Attributes) -> list[dict[str, object]]:
    return [{"key": name, "value": _json_value(value)} for name, value in attributes]


def _json_value(value: Value) -> dict[str, object]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}


# ── what comes back ─────────────────────────────────────────────────────────────────────────────────────────────────


def rejected(content: bytes) -> int:
    """Return how many spans a partial success did not take (OTLP specification, "Partial Success")."""
    try:
        return int(ExportTraceServiceResponse.FromString(content).partial_success.rejected_spans)
    except DecodeError:
        return 0


def works(resource: Attributes) -> bool:
    """Encode a span and read it back: a broken protobuf runtime should stop the start, not the spans."""
    attributes: Attributes = (("text", "\ufffd"), ("flag", True), ("number", (1 << 63) - 1), ("share", 0.5))
    span = Span("1" * 32, "2" * 16, None, "self-test", Kind.INTERNAL, 1, 2, attributes, error=False)
    read = ExportTraceServiceRequest.FromString(as_protobuf(resource, [span]))
    found = read.resource_spans[0].scope_spans[0].spans[0]
    return found.trace_id.hex() == span.trace_id and len(found.attributes) == len(attributes)
