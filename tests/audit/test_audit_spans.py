"""Spans: accepted by a real OTLP/HTTP receiver and by a reader of the JSON form, and never in a request's way."""

import asyncio
import base64
import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collecting import Collector, collecting
from google.protobuf.json_format import ParseDict
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.trace import Status as SdkStatus
from opentelemetry.trace import StatusCode as SdkStatusCode
from stories import PSEUDONYMS, call, exchange, principal

from proxy import __version__
from proxy.adapters import spans as spans_module
from proxy.adapters.otlp import SCHEMA, SCOPE, as_json, as_protobuf, link_of, resource
from proxy.adapters.spans import MAX_QUEUED, Spans
from proxy.audit import trace
from proxy.audit.inert import MAX_NAME
from proxy.audit.trace import Kind, Shape, Span, spans_of
from proxy.errors import ConfigError
from proxy.exchange import Action, Exchange, Reply, Target
from proxy.reasons import Reason
from proxy.record import Position

OWNER = resource("test")
DECISION, COMPLETION = Position("s", 4, "a" * 64), Position("s", 5, "b" * 64)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as server:
        yield server


def attributes(span: SpanMessage) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def parsed(spans: tuple[Span, ...]) -> list[SpanMessage]:
    return list(ExportTraceServiceRequest.FromString(as_protobuf(OWNER, spans)).resource_spans[0].scope_spans[0].spans)


def from_json(line: str | bytes) -> list[SpanMessage]:
    request = json.loads(line)
    for span in request["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for owner in (span, *span.get("links", ())):  # hexadecimal ids, where protobuf's own JSON reader wants base64
            for key in ("traceId", "spanId", "parentSpanId"):
                if key in owner:
                    owner[key] = base64.b64encode(bytes.fromhex(owner[key])).decode()
    message = ParseDict(request, ExportTraceServiceRequest())  # an unknown field would raise
    return list(message.resource_spans[0].scope_spans[0].spans)


async def exported(collector: Collector, *stories: Exchange) -> list[SpanMessage]:
    spans = Spans(endpoint=collector.endpoint, file=None, pseudonyms=PSEUDONYMS)
    for story in stories:
        spans.finished(story, DECISION, COMPLETION)
    await spans.close()
    return collector.spans


async def test_three_spans_with_the_records_ids_and_pointers(collector: Collector) -> None:
    story = exchange(forwarded=1_790_000_000.005, judge_seconds=0.001)
    server, client, detector = await exported(collector, story)
    assert collector.requests[0]["content-type"] == "application/x-protobuf"
    assert [span.kind for span in (server, client, detector)] == [2, 3, 1]
    assert {span.trace_id.hex() for span in (server, client, detector)} == {story.trace_id}
    assert server.span_id.hex() == story.span_id
    assert {client.parent_span_id.hex(), detector.parent_span_id.hex()} == {story.span_id}
    assert len({span.span_id for span in (server, client, detector)}) == 3
    assert server.name == "POST oip-v2/infer"
    told = attributes(server)
    assert (told["hip.decision"], told["hip.reason"], told["http.response.status_code"]) == ("allow", "allowed", 200)
    assert (told["hip.journal.stream"], told["hip.journal.decision.seq"], told["hip.journal.completion.seq"]) == (
        "s",
        4,
        5,
    )
    assert told["user.hash"] == PSEUDONYMS.subject("corp", "alice")
    assert attributes(client)["server.address"] == "127.0.0.1"
    assert server.start_time_unix_nano <= client.start_time_unix_nano < client.end_time_unix_nano
    assert detector.end_time_unix_nano <= client.start_time_unix_nano


async def test_a_refusal_is_not_an_error_and_a_fault_is(collector: Collector) -> None:
    denied = exchange(grant=None, score=None, upstream_seconds=None, reply=None, reason=Reason.NO_RULE, status=403)
    failed = exchange(score=None, reply=None, reason=Reason.UPSTREAM_TIMEOUT, status=504)
    first, second, third = await exported(collector, denied, failed)
    assert (first.status.code, attributes(first)["hip.decision"]) == (0, "deny")
    assert (second.status.code, attributes(second)["error.type"]) == (2, "upstream_timeout")
    assert attributes(second)["hip.decision"] == "allow"
    assert (third.kind, third.status.code) == (3, 2)


@pytest.mark.parametrize("flags", [b"00", b"01"])
async def test_a_caller_can_neither_switch_off_nor_join_our_trace(collector: Collector, flags: bytes) -> None:
    parent = b"00-" + b"4" * 32 + b"-" + b"5" * 16 + b"-" + flags
    story = exchange(call=call(headers=((b"traceparent", parent),)))
    server = (await exported(collector, story))[0]
    assert server.trace_id.hex() == story.trace_id
    assert not server.parent_span_id
    assert (server.links[0].trace_id.hex(), server.links[0].span_id.hex()) == ("4" * 32, "5" * 16)


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [b"00-" + b"0" * 32 + b"-" + b"5" * 16 + b"-01"],
        [b"ff-" + b"4" * 32 + b"-" + b"5" * 16 + b"-01"],
        [b"00-" + b"4" * 32 + b"-" + b"0" * 16 + b"-01"],
        [b"00-" + b"4" * 31 + b"-" + b"5" * 16 + b"-01"],
        [b"00-" + b"4" * 32 + b"-" + b"5" * 16 + b"-01"] * 2,
        [b"\xff" * 100_000],
    ],
)
def test_a_bad_or_doubled_traceparent_is_no_link(parents: list[bytes]) -> None:
    story = exchange(call=call(headers=tuple((b"traceparent", parent) for parent in parents)))
    assert link_of(spans_of(story, None, None, PSEUDONYMS)[0]) is None


async def test_the_environment_cannot_switch_spans_off(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=evil",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    assert len(await exported(collector, exchange())) == 3


HOSTILE = ["\ud800", "\x00\x1b[2J\n", "x" * 10**6, "\u202e"]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_strings_and_numbers_lose_no_span(collector: Collector, text: str) -> None:
    story = exchange(
        principal=principal(subject=text, issuer=text), call=call(method=text), target=Target("infer", text)
    )
    story.charge = replace(story.charge, revision=1 << 80) if story.charge else None
    story.finished = float("1e300")
    server = (await exported(collector, story))[0]
    told = attributes(server)
    assert told["hip.budget.revision"] == (1 << 63) - 1
    assert (server.name, told["http.request.method"]) == ("HTTP oip-v2/infer", "_OTHER")
    assert all(len(value) <= MAX_NAME and value.isprintable() for value in told.values() if isinstance(value, str))


def test_what_a_caller_chose_is_not_kept() -> None:
    """A body may name a model of megabytes: the span says how it begins, and no cache holds it."""
    kept = trace._asked_for.cache_info().currsize
    for number in range(8):
        story = exchange(target=Target(Action.INFER, f"{number}-" + "m" * 4096), grant=None)
        (server, *_) = spans_of(story, DECISION, None, PSEUDONYMS)
        model = dict(server.attributes)["hip.model"]
        assert model == f"{number}-" + "m" * (MAX_NAME - 3) + "…"
    assert trace._asked_for.cache_info().currsize <= kept + 1


async def test_the_file_has_one_valid_request_a_line(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    spans = Spans(endpoint=None, file=path, pseudonyms=PSEUDONYMS)
    story = exchange()
    spans.finished(story, DECISION, COMPLETION)
    await spans.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (line,) = path.read_text().splitlines()
    both = spans_of(story, DECISION, COMPLETION, PSEUDONYMS)
    assert {span.trace_id.hex() for span in parsed(both)} == {story.trace_id}
    assert from_json(line) == parsed(both)
    assert spans.counts().written == 3


def test_both_forms_carry_a_link_and_an_error() -> None:
    story = exchange(status=502, reply=Reply(500, (), b""), reason=Reason.UPSTREAM_ERROR)
    story.call = call(headers=((b"traceparent", b"00-" + b"4" * 32 + b"-" + b"5" * 16 + b"-01"),))
    spans = spans_of(story, None, None, PSEUDONYMS)
    server = json.loads(as_json(OWNER, spans))["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert server["links"] == [{"traceId": "4" * 32, "spanId": "5" * 16, "flags": 0x300}]
    assert server["status"] == {"code": 2}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_collector_that_says_later_is_asked_again(collector: Collector, status: int) -> None:
    collector.statuses = [status]
    spans = Spans(endpoint=collector.endpoint, file=None, pseudonyms=PSEUDONYMS)
    spans.finished(exchange(), DECISION, COMPLETION)
    while not spans.counts().sent:
        await asyncio.sleep(0.01)
    await spans.close()
    assert (len(collector.requests), spans.counts().sent, spans.counts().unsent) == (2, 3, 0)


async def test_what_a_collector_does_not_take_is_counted(collector: Collector) -> None:
    collector.statuses = [400]
    spans = Spans(endpoint=collector.endpoint, file=None, pseudonyms=PSEUDONYMS)
    spans.finished(exchange(), DECISION, COMPLETION)
    await spans.close()
    assert (spans.counts().sent, spans.counts().unsent) == (0, 3)
    assert "400" in spans.counts().error


async def test_a_partial_success_counts_both_parts(collector: Collector) -> None:
    collector.rejected = 2
    spans = Spans(endpoint=collector.endpoint, file=None, pseudonyms=PSEUDONYMS)
    spans.finished(exchange(), DECISION, COMPLETION)
    await spans.close()
    assert (spans.counts().sent, spans.counts().unsent) == (1, 2)


async def test_a_collector_that_is_not_there_costs_the_request_nothing() -> None:
    spans = Spans(endpoint="http://127.0.0.1:9/v1/traces", file=None, pseudonyms=PSEUDONYMS)
    spans.finished(exchange(), DECISION, COMPLETION)
    await spans.close()
    assert spans.counts().unsent == 3


async def test_a_full_queue_refuses_the_newest_and_counts(collector: Collector) -> None:
    collector.hold.clear()
    spans = Spans(endpoint=collector.endpoint, file=None, pseudonyms=PSEUDONYMS)
    story = exchange()
    total = MAX_QUEUED + 2 * spans_module.BATCH
    for _ in range(total):
        spans.finished(story, DECISION, COMPLETION)
    counts = spans.counts()
    assert counts.refused >= total - MAX_QUEUED - spans_module.BATCH
    collector.hold.set()
    await spans.close()
    counts = spans.counts()
    assert counts.sent == 3 * (total - counts.refused) == len(collector.spans)
    assert counts.waiting == 0


async def test_a_bug_in_describing_never_reaches_the_request(collector: Collector) -> None:
    spans = Spans(endpoint=collector.endpoint, file=None, pseudonyms=PSEUDONYMS)
    story = exchange()
    story.started = "no number"  # type: ignore[assignment]
    spans.finished(story, DECISION, COMPLETION)
    await spans.close()
    assert spans.counts().failed == 1


async def test_a_batch_that_cannot_be_encoded_does_not_end_the_thread(collector: Collector) -> None:
    spans = Spans(endpoint=collector.endpoint, file=None, pseudonyms=PSEUDONYMS)
    spans.finished(exchange(span_id="no hexadecimal", score=None), DECISION, COMPLETION)
    while not spans.counts().failed:
        await asyncio.sleep(0.01)
    spans.finished(exchange(), DECISION, COMPLETION)
    await spans.close()
    assert spans.counts().sent == 3


async def test_a_file_that_grows_too_long_leaves_one_older_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans_module, "MAX_FILE_BYTES", 1)
    spans = Spans(endpoint=None, file=tmp_path / "s.jsonl", pseudonyms=PSEUDONYMS)
    for _ in range(3):
        written = spans.counts().written
        spans.finished(exchange(), DECISION, COMPLETION)
        while spans.counts().written == written:
            await asyncio.sleep(0.01)
    await spans.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.jsonl", "s.jsonl.1"]


@pytest.mark.parametrize("endpoint", ["", "collector:4318", "ftp://127.0.0.1/", "http://", "http://[::1"])
def test_an_endpoint_that_is_none_stops_the_start(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="telemetry"):
        Spans(endpoint=endpoint, file=None, pseudonyms=PSEUDONYMS)


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Spans(endpoint=None, file=tmp_path / "missing" / "s.jsonl", pseudonyms=PSEUDONYMS)


async def test_without_a_place_nothing_is_made() -> None:
    spans = Spans(endpoint=None, file=None, pseudonyms=PSEUDONYMS)
    spans.finished(exchange(), DECISION, COMPLETION)
    assert spans.counts().exchanges == 0
    await spans.close()


def test_nothing_is_written_to_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    asyncio.run(test_a_collector_that_is_not_there_costs_the_request_nothing())
    assert capfd.readouterr() == ("", "")


# ── conformance: what the SDK and its official encoder make of the same spans ───────────────────────────────────────


def readable(span: Span) -> ReadableSpan:
    """Return our span as the SDK's own."""
    own = SpanContext(int(span.trace_id, 16), int(span.span_id, 16), is_remote=False)
    parent = None if span.parent_id is None else SpanContext(own.trace_id, int(span.parent_id, 16), is_remote=False)
    caller = link_of(span)
    return ReadableSpan(
        name=span.shape.name,
        context=own,
        parent=parent,
        resource=OWNER,
        attributes=dict(span.attributes),
        links=[Link(caller)] if caller is not None else [],
        kind=SpanKind(int(span.shape.kind) - 1),  # the SDK counts from 0, OTLP from 1
        status=SdkStatus(SdkStatusCode.ERROR if span.shape.error else SdkStatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=InstrumentationScope(SCOPE, __version__, SCHEMA),
    )


@pytest.mark.parametrize(
    "story",
    [
        exchange(forwarded=1_790_000_000.005, judge_seconds=0.001),
        exchange(call=call(headers=((b"traceparent", b"00-" + b"4" * 32 + b"-" + b"5" * 16 + b"-01"),))),
        exchange(status=502, reply=Reply(500, (), b""), reason=Reason.UPSTREAM_ERROR),
        exchange(grant=None, score=None, upstream_seconds=None, reply=None, reason=Reason.NO_RULE, status=403),
    ],
    ids=["allowed", "linked", "failed", "refused"],
)
def test_our_message_is_the_one_that_the_sdk_makes(story: Exchange) -> None:
    spans = spans_of(story, DECISION, COMPLETION, PSEUDONYMS)
    ours = ExportTraceServiceRequest.FromString(as_protobuf(OWNER, spans))
    assert ours == encode_spans([readable(span) for span in spans])


SHAPE = Shape(
    'GET 100%/"a"',
    Kind.SERVER,
    error=False,
    shared=(("half", 0.5), ("flag", True), ("said", '%s\\"\u00e4%')),
    own=(("text", str), ("number", int), ("share", float)),
)
LONG = "\u20ac" * 256  # 768 bytes


@pytest.mark.parametrize("text", ["", '"', "\\", "%s%d", "\u00e4\U0001f600", "a" * 127, "a" * 128, LONG])
@pytest.mark.parametrize("number", [0, 127, 128, 1 << 14, (1 << 56) - 1, (1 << 63) - 1, -1, -(1 << 63)])
def test_whatever_the_values_are_both_forms_say_what_the_sdk_says(text: str, number: int) -> None:
    """What is filled in by hand: lengths of every size, and what JSON, or a template, would take for its own."""
    values = (text, number, 1e-7 if number else 5e300)
    span = Span("1" * 32, "2" * 16, "3" * 16, 0, (1 << 63) - 1, SHAPE, values)
    (made,) = parsed((span,))
    assert [made] == list(encode_spans([readable(span)]).resource_spans[0].scope_spans[0].spans)
    assert from_json(as_json(OWNER, [span])) == [made]


def test_the_environment_cannot_rename_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "evil")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=evil")
    assert resource("x").attributes["service.name"] == "hip"


async def test_a_collector_that_talks_without_end_loses_its_spans_and_holds_nobody() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        spans = Spans(endpoint=f"http://127.0.0.1:{port}/v1/traces", file=None, pseudonyms=PSEUDONYMS)
        spans.finished(exchange(), DECISION, COMPLETION)
        await spans.close()
    counts = spans.counts()
    assert (counts.sent, counts.unsent, counts.waiting) == (0, 3, 0)
    assert "ReadTimeout" in counts.error
