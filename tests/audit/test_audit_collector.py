"""Our spans and a collector that is not ours: what it understands, and what is counted when it dies."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from collecting import Collector, Rotel, collecting
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from stories import PSEUDONYMS, call, exchange, place
from typer.testing import CliRunner

from proxy.adapters.otlp import as_protobuf, resource
from proxy.adapters.spans import SpanCounts, Spans
from proxy.audit.describe import completion, decision
from proxy.audit.trace import spans_of
from proxy.cli.audit import audit_app
from proxy.exchange import Exchange, Reply
from proxy.reasons import Reason
from proxy.record import Position
from tests.servers.running import ENVIRONMENT, PYTHON, free_ports, require_environment

DECISION, COMPLETION = Position("s", 4, "a" * 64), Position("s", 5, "b" * 64)
WITHIN = 20.0  # seconds


@pytest.fixture
def behind() -> Iterator[Collector]:
    with collecting() as server:
        yield server


@pytest.fixture
def rotel(behind: Collector, tmp_path: Path) -> Iterator[Rotel]:
    require_environment(PYTHON, ci=os.environ.get("CI") == "true")
    found = sorted(ENVIRONMENT.glob("lib/python*/site-packages/rotel/rotel-agent"))
    if not found:
        reason = f"no rotel in {ENVIRONMENT.name}: `make {ENVIRONMENT.name}/.ready` installs requirements/servers.txt"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    collector = Rotel(found[0], tmp_path, free_ports(2), behind)
    collector.start()
    yield collector
    collector.stop()


def stories() -> list[Exchange]:
    parent = b"00-" + b"4" * 32 + b"-" + b"5" * 16 + b"-01"
    return [
        exchange(forwarded=1_790_000_000.005, judge_seconds=0.001),
        exchange(call=call(headers=((b"traceparent", parent),))),
        exchange(status=502, reply=Reply(500, (), b""), reason=Reason.UPSTREAM_ERROR),
        exchange(grant=None, score=None, upstream_seconds=None, reply=None, reason=Reason.NO_RULE, status=403),
    ]


def keyed(spans: list[SpanMessage]) -> dict[str, list[SpanMessage]]:
    found: dict[str, list[SpanMessage]] = {}
    for span in spans:
        found.setdefault(span.trace_id.hex() + span.span_id.hex(), []).append(span)
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_foreign_collector_understands_every_span(rotel: Rotel, behind: Collector) -> None:
    """Read and written again by another implementation, every span is still the one that we made."""
    spans = Spans(endpoint=rotel.endpoint, file=None, pseudonyms=PSEUDONYMS)
    made: list[SpanMessage] = []
    for story in stories():
        described = spans_of(story, DECISION, COMPLETION, PSEUDONYMS)
        request = ExportTraceServiceRequest.FromString(as_protobuf(resource("x"), described))
        made += request.resource_spans[0].scope_spans[0].spans
        spans.finished(story, DECISION, COMPLETION)
    await until(lambda: len(behind.spans) == len(made))
    await spans.close()
    assert (spans.counts().sent, spans.counts().unsent) == (len(made), 0)
    servers = [span for span in behind.spans if span.kind == SpanMessage.SPAN_KIND_SERVER]
    expected = [span for span in made if span.kind == SpanMessage.SPAN_KIND_SERVER]
    assert keyed(servers) == keyed(expected)
    for span in (*made, *behind.spans):  # the others have ids that are drawn anew each time they are described
        span.span_id = b""
    assert sorted(map(str, behind.spans)) == sorted(map(str, made))


async def test_a_foreign_collector_takes_an_export(rotel: Rotel, behind: Collector, tmp_path: Path) -> None:
    """`hip audit export --format otlp` writes requests as a collector takes them, line by line, over HTTP as JSON."""
    where = place(tmp_path)
    journal = await where.open()
    for story in stories():
        await journal.append(decision(story, PSEUDONYMS))
        if story.grant is not None:
            await journal.append(completion(story, PSEUDONYMS))
    await journal.close()
    output = tmp_path / "spans.jsonl"
    export = ["export", str(where.directory), "--format", "otlp", "-o", str(output)]
    assert CliRunner().invoke(audit_app, [*export, "--public-key", str(where.auditor)]).exit_code == 0
    made: list[dict[str, Any]] = []
    for line in output.read_bytes().splitlines():
        headers = {"content-type": "application/json"}
        answer = httpx.post(rotel.endpoint, content=line, headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
        made += json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    await until(lambda: len(behind.spans) == len(made))
    assert len(made) > len(stories())
    arrived = {(span.trace_id.hex(), span.span_id.hex(), span.name, len(span.attributes)) for span in behind.spans}
    assert arrived == {(span["traceId"], span["spanId"], span["name"], len(span["attributes"])) for span in made}


async def test_a_collector_that_dies_costs_spans_and_every_one_is_counted(rotel: Rotel, behind: Collector) -> None:
    spans = Spans(endpoint=rotel.endpoint, file=None, pseudonyms=PSEUDONYMS)
    made = 0

    def serve(requests: int) -> None:
        nonlocal made
        for number in range(made, made + requests):
            story = exchange(
                trace_id=f"{number + 1:032x}", span_id=f"{number + 1:016x}", score=None, judge_seconds=None
            )
            spans.finished(story, DECISION, COMPLETION)
        made += requests

    def lost(counts: SpanCounts) -> int:
        return counts.unsent + counts.failed + counts.unwritten

    serve(300)
    await until(lambda: spans.counts().sent == 600)
    rotel.stop(signal.SIGKILL)
    serve(300)
    await until(lambda: lost(spans.counts()) > 0)
    rotel.start()
    serve(300)
    await spans.close()
    counts = spans.counts()
    assert (counts.exchanges, counts.refused, counts.waiting) == (made, 0, 0)
    assert counts.sent + lost(counts) == 2 * made
    assert counts.sent >= 1_200
    assert "collector" in counts.error
    await until(lambda: any(int(span.trace_id.hex(), 16) > 600 for span in behind.spans))
    arrived = {span.trace_id for span in behind.spans}  # at least once, and none that was not made
    assert arrived <= {(number + 1).to_bytes(16, "big") for number in range(made)}
