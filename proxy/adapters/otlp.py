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
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status
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
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add(
        resource=Resource(attributes=_pairs(_facts(resource))), schema_url=resource.schema_url
    )
    scope = group.scope_spans.add(scope=InstrumentationScope(name=SCOPE, version=__version__), schema_url=SCHEMA)
    for span in spans:
        _fill(scope.spans.add(), span)
    return bytes(message.SerializeToString())


def _fill(message: SpanMessage, span: Span) -> None:
    message.MergeFromString(_shared_pairs(span.shared))
    message.trace_id = bytes.fromhex(span.trace_id)
    message.span_id = bytes.fromhex(span.span_id)
    message.parent_span_id = bytes.fromhex(span.parent_id or "")
    message.name = span.name
    message.kind = int(span.kind)  # type: ignore[assignment]
    message.start_time_unix_nano = span.start_ns
    message.end_time_unix_nano = span.end_ns
    message.attributes.extend(_pairs(span.own))
    message.links.extend(_links(span))
    message.status.code = Status.STATUS_CODE_ERROR if span.error else Status.STATUS_CODE_UNSET
    message.flags = _LOCAL


def _links(span: Span) -> list[SpanMessage.Link]:
    caller = link_of(span)
    if caller is None:
        return []
    ids = caller.trace_id.to_bytes(16, "big"), caller.span_id.to_bytes(8, "big")
    return [SpanMessage.Link(trace_id=ids[0], span_id=ids[1], flags=_REMOTE)]


def _pairs(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=name, value=_any_value(value)) for name, value in attributes]


@lru_cache(SHARED)  # a name always has values of one type, so that equal sets (1 == True == 1.0) are the same set
def _shared_pairs(attributes: Attributes) -> bytes:
    """Return a span that has these attributes and nothing else, to be merged into one."""
    return bytes(SpanMessage(attributes=_pairs(attributes)).SerializeToString())


def _any_value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):  # before int: a bool is one
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)


# ── OTLP as JSON (OTLP specification, "JSON Protobuf Encoding": hexadecimal ids, 64-bit integers as strings) ────────

_encode = msgspec.json.Encoder().encode

# Filled in as text, which costs half of what objects cost: every name is ours and every id hexadecimal, and whatever
# else is a string goes through the encoder.
_STATUS = ("{}", f'{{"code":{int(Status.STATUS_CODE_ERROR)}}}')


def as_json(resource: SdkResource, spans: Iterable[Span]) -> bytes:
    """Return one ExportTraceServiceRequest as a JSON line."""
    scope = f'{{"name":"{SCOPE}","version":"{__version__}"}}'
    made = ",".join([_object(span) for span in spans])
    return (
        f'{{"resourceSpans":[{{"resource":{{"attributes":[{_json_pairs(_facts(resource))}]}},'
        f'"scopeSpans":[{{"scope":{scope},"spans":[{made}],"schemaUrl":"{SCHEMA}"}}],'
        f'"schemaUrl":"{resource.schema_url}"}}]}}'
    ).encode()


def _object(span: Span) -> str:
    shared, own = _shared_json(span.shared), _json_pairs(span.own)
    return (
        f'{{"traceId":"{span.trace_id}","spanId":"{span.span_id}","name":{_string(span.name)},"kind":{int(span.kind)},'
        f'"startTimeUnixNano":"{span.start_ns}","endTimeUnixNano":"{span.end_ns}",'
        f'"attributes":[{shared}{"," if shared and own else ""}{own}],'
        f'"status":{_STATUS[span.error]},"flags":{_LOCAL}{_relatives(span)}}}'
    )


def _relatives(span: Span) -> str:
    parent = "" if span.parent_id is None else f',"parentSpanId":"{span.parent_id}"'
    caller = None if span.caller is None else link_of(span)
    if caller is None:
        return parent
    ids = f'"traceId":"{caller.trace_id:032x}","spanId":"{caller.span_id:016x}"'
    return f'{parent},"links":[{{{ids},"flags":{_REMOTE}}}]'


def _string(value: Value) -> str:
    return _encode(value).decode()


def _json_pairs(attributes: Attributes) -> str:
    return ",".join([_json_pair(name, value) for name, value in attributes])


_shared_json = lru_cache(SHARED)(_json_pairs)


def _json_pair(name: str, value: Value) -> str:
    if isinstance(value, str):
        return f'{{"key":"{name}","value":{{"stringValue":{_encode(value).decode()}}}}}'
    if isinstance(value, bool):
        return f'{{"key":"{name}","value":{{"boolValue":{_string(value)}}}}}'
    if isinstance(value, int):
        return f'{{"key":"{name}","value":{{"intValue":"{value}"}}}}'
    return f'{{"key":"{name}","value":{{"doubleValue":{_string(value)}}}}}'


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
