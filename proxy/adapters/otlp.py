"""OTLP messages, binary and as JSON lines, straight from our spans: the SDK's messages at half of its cost.

Decides the bytes that a collector reads; both forms carry the same spans, and a test holds the binary form equal to
what the SDK and its official encoder make of them. What is made once, or only where a caller asks for it, comes from
the SDK itself: the resource, and the reading of `traceparent`. Why not all of it: ADR 0006. The JSON form follows the
OTLP specification, "JSON Protobuf Encoding".
"""

import struct
from collections.abc import Callable, Iterable, Sequence
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
from proxy.audit.trace import SHARED, Attributes, Kind, Own, Shape, Span, Value

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

# A message is its fields, one behind the other, so what spans have in common is a piece that is made once, by the
# official classes; what changes is put in between by hand, at a tenth of what filling a message costs.
_head = struct.Struct("<H16sH8sBQBQ").pack  # behind a key each: trace_id, span_id, the two times as fixed64
_TRACE_ID, _SPAN_ID, _START, _END = 0x10_0A, 0x08_12, 0x39, 0x41  # the keys, those of ids with their length
_PARENT = b"\x22\x08"  # parent_span_id: field 4, 8 bytes
_SPANS = b"\x12"  # field 2 of ScopeSpans, as scope_spans is of ResourceSpans
_RESOURCE_SPANS = b"\x0a"  # field 1 of ExportTraceServiceRequest
MAX_VARINT = 10  # bytes: what every negative number has


def as_protobuf(resource: SdkResource, spans: Iterable[Span]) -> bytes:
    """Return one ExportTraceServiceRequest, binary."""
    return protobuf_request(resource, [protobuf_span(span) for span in spans])


def protobuf_request(resource: SdkResource, spans: Sequence[bytes]) -> bytes:
    """Return one ExportTraceServiceRequest of spans that `protobuf_span` made."""
    scope, group = _protobuf_frame(resource)
    size = len(scope) + sum(map(len, spans))
    whole = (_RESOURCE_SPANS, _varint(len(group) + 1 + len(_varint(size)) + size), group, _SPANS, _varint(size), scope)
    return b"".join((*whole, *spans))


@lru_cache(1)
def _protobuf_frame(resource: SdkResource) -> tuple[bytes, bytes]:
    """Return what a ScopeSpans and a ResourceSpans have beside the spans."""
    scope = ScopeSpans(scope=InstrumentationScope(name=SCOPE, version=__version__), schema_url=SCHEMA)
    group = ResourceSpans(resource=Resource(attributes=_pairs(_facts(resource))), schema_url=resource.schema_url)
    return scope.SerializeToString(), group.SerializeToString()


def protobuf_span(span: Span) -> bytes:
    """Return a span as a field of ScopeSpans."""
    trace_id, span_id = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
    parts = [
        _head(_TRACE_ID, trace_id, _SPAN_ID, span_id, _START, span.start_ns, _END, span.end_ns),
        _form(span.shape),
    ]
    if span.parent_id is not None:
        parts += (_PARENT, bytes.fromhex(span.parent_id))
    for (name, kind), value in zip(span.shape.own, span.values, strict=True):
        content = _WIRE[kind](value)
        parts += (_before(name, kind, len(content)), content)  # type: ignore[arg-type]  # a type has a hash
    if span.caller is not None:
        parts.append(_link(span))
    return _field(_SPANS, b"".join(parts))


@lru_cache(SHARED)
def _form(shape: Shape) -> bytes:
    """Return the fields that all spans of a shape have in common."""
    message = SpanMessage(name=shape.name, attributes=_pairs(shape.shared), flags=_LOCAL)
    message.kind = int(shape.kind)  # type: ignore[assignment]
    message.status.code = Status.STATUS_CODE_ERROR if shape.error else Status.STATUS_CODE_UNSET
    return bytes(message.SerializeToString())


@lru_cache(SHARED)
def _before(name: str, kind: type[Own], size: int) -> bytes:
    """Return what an attribute begins with whose value ends it, in so many bytes."""
    example: Own = "x" * size if kind is str else 1.0
    if kind is int:
        example = -1 if size == MAX_VARINT else 1 << 7 * (size - 1)
    return bytes(SpanMessage(attributes=_pairs(((name, example),))).SerializeToString())[: -size or None]


def _link(span: Span) -> bytes:
    caller = link_of(span)
    if caller is None:
        return b""
    ids = caller.trace_id.to_bytes(16, "big"), caller.span_id.to_bytes(8, "big")
    link = SpanMessage.Link(trace_id=ids[0], span_id=ids[1], flags=_REMOTE)
    return bytes(SpanMessage(links=[link]).SerializeToString())


def _field(key: bytes, content: bytes) -> bytes:
    return key + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    if 0 <= number < 1 << 7:
        return _BYTES[number]
    if 0 <= number < 1 << 14:
        return bytes((number & 0x7F | 0x80, number >> 7))
    number &= (1 << 64) - 1
    made = bytearray()
    while number >= 1 << 7:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


_WIRE: dict[type[Own], Callable[..., bytes]] = {str: str.encode, int: _varint, float: struct.Struct("<d").pack}
_BYTES = tuple(bytes((number,)) for number in range(1 << 7))


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
_STATUS = ("{}", f'{{"code":{int(Status.STATUS_CODE_ERROR)}}}')
_VALUES: dict[type[Own], str] = {
    str: '{"stringValue":"%s"}',
    int: '{"intValue":"%d"}',
    float: '{"doubleValue":%r}',
}


def as_json(resource: SdkResource, spans: Iterable[Span]) -> bytes:
    """Return one ExportTraceServiceRequest as a JSON line."""
    return json_request(resource, [json_span(span) for span in spans])


def json_request(resource: SdkResource, spans: Iterable[bytes]) -> bytes:
    """Return one ExportTraceServiceRequest of spans that `json_span` made, as a JSON line."""
    before, after = _json_frame(resource)
    return b"".join((before, b",".join(spans), after))


@lru_cache(1)
def _json_frame(resource: SdkResource) -> tuple[bytes, bytes]:
    before = (
        f'{{"resourceSpans":[{{"resource":{{"attributes":[{_json_pairs(_facts(resource))}]}},'
        f'"scopeSpans":[{{"scope":{{"name":"{SCOPE}","version":"{__version__}"}},"spans":['
    )
    after = f'],"schemaUrl":"{SCHEMA}"}}],"schemaUrl":"{resource.schema_url}"}}]}}'
    return before.encode(), after.encode()


def json_span(span: Span) -> bytes:
    """Return a span as a JSON object."""
    values = span.values
    if b"\\" in _encode(values):  # else there is nothing to escape in any of them
        values = tuple([_within(value) if isinstance(value, str) else value for value in values])
    filled = _json_form(span.shape) % (span.trace_id, span.span_id, span.start_ns, span.end_ns, *values)
    return f"{filled}{_relatives(span)}}}".encode()


@lru_cache(SHARED)
def _json_form(shape: Shape) -> str:
    """Return what all spans of a shape have in common, with a place for each value of their own."""
    own = [f'{{"key":"{name}","value":{_VALUES[kind]}}}' for name, kind in shape.own]
    shared = _json_pairs(shape.shared).replace("%", "%%")
    name = _encode(shape.name).decode().replace("%", "%%")
    return (
        f'{{"traceId":"%s","spanId":"%s","name":{name},"kind":{int(shape.kind)},'
        '"startTimeUnixNano":"%d","endTimeUnixNano":"%d",'
        f'"attributes":[{",".join([shared, *own] if shared else own)}],'
        f'"status":{_STATUS[shape.error]},"flags":{_LOCAL}'
    )


def _relatives(span: Span) -> str:
    parent = "" if span.parent_id is None else f',"parentSpanId":"{span.parent_id}"'
    caller = None if span.caller is None else link_of(span)
    if caller is None:
        return parent
    ids = f'"traceId":"{caller.trace_id:032x}","spanId":"{caller.span_id:016x}"'
    return f'{parent},"links":[{{{ids},"flags":{_REMOTE}}}]'


def _json_pairs(attributes: Attributes) -> str:
    return ",".join([_json_pair(name, value) for name, value in attributes])


def _json_pair(name: str, value: Value) -> str:
    if isinstance(value, str):
        value = _within(value)
    elif isinstance(value, bool):
        return f'{{"key":"{name}","value":{{"boolValue":{_encode(value).decode()}}}}}'
    return f'{{"key":"{name}","value":{_VALUES[type(value)] % value}}}'


def _within(text: str) -> str:
    """Return what stands between the quotation marks."""
    return _encode(text).decode()[1:-1]


# ── what comes back ─────────────────────────────────────────────────────────────────────────────────────────────────


def rejected(content: bytes) -> int:
    """Return how many spans a partial success did not take (OTLP specification, "Partial Success")."""
    try:
        return int(ExportTraceServiceResponse.FromString(content).partial_success.rejected_spans)
    except DecodeError:
        return 0


def works(resource: SdkResource) -> bool:
    """Encode a span and read it back: a broken protobuf runtime should stop the start, not the spans."""
    shared: Attributes = (("text", "\ufffd"), ("flag", True))
    shape = Shape("self-test", Kind.INTERNAL, error=False, shared=shared, own=(("number", int), ("share", float)))
    span = Span("1" * 32, "2" * 16, None, 1, 2, shape, ((1 << 63) - 1, 0.5))
    read = ExportTraceServiceRequest.FromString(as_protobuf(resource, [span]))
    found = read.resource_spans[0].scope_spans[0].spans[0]
    return found.trace_id.hex() == span.trace_id and len(found.attributes) == len(span.attributes)
