"""OTLP messages, binary and as JSON lines, straight from our spans: the SDK's messages at half of its cost.

Decides the bytes that a collector reads; both forms carry the same spans, and a test holds the binary form equal to
what the SDK and its official encoder make of them. What is made once, or only where a caller asks for it, comes from
the SDK itself: the resource, and the reading of `traceparent`. Why not all of it: ADR 0006. The JSON form follows the
OTLP specification, "JSON Protobuf Encoding".
"""

from collections.abc import Iterable
from functools import lru_cache

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs are published with it
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.semconv.attributes import service_attributes, telemetry_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.version import __version__ as sdk_version

from proxy import __version__
from proxy.audit.trace import SHARED, Attributes, Kind, Span, Value

SCOPE = "hip"
SCHEMA = Schemas.V1_38_0.value  # the semantic conventions that our attribute names are taken from

_LOCAL = int(SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE = _LOCAL | int(SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_read_traceparent = TraceContextTextMapPropagator().extract


def resource(instance: str) -> SdkResource:
    """Return who exports. Made directly: `Resource.create` would let `OTEL_*` variables rename us."""
    return SdkResource(
        {
            service_attributes.SERVICE_NAME: "hip",
            service_attributes.SERVICE_VERSION: __version__,
            service_attributes.SERVICE_INSTANCE_ID: instance,
            telemetry_attributes.TELEMETRY_SDK_LANGUAGE: "python",
            telemetry_attributes.TELEMETRY_SDK_NAME: "opentelemetry",
            telemetry_attributes.TELEMETRY_SDK_VERSION: sdk_version,
        },
        SCHEMA,
    )


def link_of(span: Span) -> SpanContext | None:
    """Return the caller's span that a span is linked to; a header that is not W3C Trace Context links to nothing."""
    if span.caller is None:
        return None
    context = get_current_span(_read_traceparent({"traceparent": span.caller})).get_span_context()
    return context if context.is_valid else None


def _facts(resource: SdkResource) -> Attributes:
    return tuple((name, value) for name, value in resource.attributes.items() if isinstance(value, str))


# ── OTLP as protobuf ────────────────────────────────────────────────────────────────────────────────────────────────


def as_protobuf(resource: SdkResource, spans: Iterable[Span]) -> bytes:
    """Return one ExportTraceServiceRequest, binary."""
    scope = InstrumentationScope(name=SCOPE, version=__version__)
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=_pairs(_facts(resource))),
                scope_spans=[ScopeSpans(scope=scope, spans=[_message(span) for span in spans], schema_url=SCHEMA)],
                schema_url=resource.schema_url,
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
        attributes=(*_shared_pairs(span.shared), *_pairs(span.own)),
        links=_links(span),
        status=Status(code=Status.STATUS_CODE_ERROR if span.error else Status.STATUS_CODE_UNSET),
        flags=_LOCAL,
    )


def _links(span: Span) -> list[SpanMessage.Link]:
    caller = link_of(span)
    if caller is None:
        return []
    ids = caller.trace_id.to_bytes(16, "big"), caller.span_id.to_bytes(8, "big")
    return [SpanMessage.Link(trace_id=ids[0], span_id=ids[1], flags=_REMOTE)]


def _pairs(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any_value(value)) for name, value in attributes]


# A name always has values of one type, so that equal sets (1 == True == 1.0) are the same set.
_shared_pairs = lru_cache(SHARED)(_pairs)


def _any_value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):  # before int: a bool is one
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)


# ── OTLP as JSON (OTLP specification, "JSON Protobuf Encoding": hexadecimal ids, 64-bit integers as strings) ────────

_encode = msgspec.json.Encoder().encode


def as_json(resource: SdkResource, spans: Iterable[Span]) -> bytes:
    """Return one ExportTraceServiceRequest as a JSON line."""
    scope = {"name": SCOPE, "version": __version__}
    owner = {"attributes": _json_pairs(_facts(resource))}
    resource_spans = {
        "resource": owner,
        "scopeSpans": [{"scope": scope, "spans": [_object(span) for span in spans], "schemaUrl": SCHEMA}],
        "schemaUrl": resource.schema_url,
    }
    return _encode({"resourceSpans": [resource_spans]})


def _object(span: Span) -> dict[str, object]:
    members: dict[str, object] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": int(span.kind),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": msgspec.Raw(_json_attributes(span)),
        "status": {"code": int(Status.STATUS_CODE_ERROR)} if span.error else {},
        "flags": _LOCAL,
    }
    if span.parent_id is not None:
        members["parentSpanId"] = span.parent_id
    caller = link_of(span)
    if caller is not None:
        ids = {"traceId": f"{caller.trace_id:032x}", "spanId": f"{caller.span_id:016x}"}
        members["links"] = [ids | {"flags": _REMOTE}]
    return members


def _json_attributes(span: Span) -> bytes:
    shared, own = _shared_json(span.shared), _encode(_json_pairs(span.own))
    return b",".join((shared[:-1], own[1:])) if span.shared and span.own else shared if span.shared else own


@lru_cache(SHARED)
def _shared_json(attributes: Attributes) -> bytes:
    return _encode(_json_pairs(attributes))


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


def works(resource: SdkResource) -> bool:
    """Encode a span and read it back: a broken protobuf runtime should stop the start, not the spans."""
    attributes: Attributes = (("text", "\ufffd"), ("flag", True), ("number", (1 << 63) - 1), ("share", 0.5))
    span = Span("1" * 32, "2" * 16, None, "self-test", Kind.INTERNAL, 1, 2, (), attributes, error=False)
    read = ExportTraceServiceRequest.FromString(as_protobuf(resource, [span]))
    found = read.resource_spans[0].scope_spans[0].spans[0]
    return found.trace_id.hex() == span.trace_id and len(found.attributes) == len(attributes)
