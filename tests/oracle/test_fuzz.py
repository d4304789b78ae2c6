"""Whatever an upstream answers: nothing leaks, or the answer is refused."""

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.dialects.coding import plain
from proxy.dialects.oip_v2 import OipV2
from proxy.errors import UpstreamFault
from proxy.exchange import Action, Cost, Output, Query, Reply, Target
from tests.oracle import replies
from tests.oracle.scanner import Profile, findings

OIP = OipV2()
OUTPUTS = st.builds(
    Output,
    st.just("o"),
    decimals=st.none() | st.integers(0, 6),
    top_k=st.none() | st.integers(1, 3),
    label_only=st.booleans(),
)
ROWS = st.integers(1, 3)
LIMIT = 1 << 20  # bytes
LONG = settings(max_examples=50_000, deadline=None, suppress_health_check=list(HealthCheck))
LONG_STREAMS = settings(LONG, max_examples=20_000)  # an example is a whole stream
MINUTES = 15 * 60  # seconds: on a machine that has other things to do


def told(headers, body, output, rows):
    shown = {name.decode(): value.decode() for name, value in headers}
    return findings(shown, body, Profile(output.decimals, output.top_k, output.label_only, rows))


def asked(rows):
    return Query(Cost(rows=rows), b"", ())


def reply(headers, body):
    return Reply(200, tuple((name.encode(), value.encode()) for name, value in headers.items()), body)


def answers(answer, output, rows, target):
    """The invariant for a whole reply."""
    with contextlib.suppress(UpstreamFault):
        shown = OIP.harden(target, asked(rows), plain(reply(*answer), LIMIT), output)
        assert told(shown.headers, shown.body, output, rows) == []
        end = int(dict(shown.headers).get(b"inference-header-content-length", len(shown.body)))
        json.loads(shown.body[:end])


def streams(body, cuts, output, rows):
    """The invariant for a stream, however its bytes arrive: what left before the cut counts too."""
    target = Target(Action.STREAM, "m", None, "generate")
    hardener = OIP.stream(target, asked(rows), reply({"content-type": "text/event-stream"}, b""), output)
    left = b""
    with contextlib.suppress(UpstreamFault):
        for at, to in zip([0, *sorted(cuts)], [*sorted(cuts), len(body)], strict=True):
            left += hardener.feed(body[at:to])
        left += hardener.end()
    assert told(hardener.headers, left, output, rows) == []


INFER = given(replies.infer(), OUTPUTS, ROWS)
FLAT = given(replies.FLAT, OUTPUTS, ROWS)
STREAM = given(replies.EVENTS, st.lists(st.integers(0, 400), max_size=5), OUTPUTS, ROWS)


@INFER
def test_inference_replies(answer, output, rows):
    answers(answer, output, rows, Target(Action.INFER, "m"))


@FLAT
def test_flat_replies(content, output, rows):
    body = json.dumps(content).encode()
    answers(({"content-type": "application/json"}, body), output, rows, Target(Action.INFER, "m", None, "generate"))


@STREAM
def test_streams(body, cuts, output, rows):
    streams(body, [min(cut, len(body)) for cut in cuts], output, rows)


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
@LONG
@INFER
def test_inference_replies_for_long(answer, output, rows):
    answers(answer, output, rows, Target(Action.INFER, "m"))


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
@LONG_STREAMS
@STREAM
def test_streams_for_long(body, cuts, output, rows):
    streams(body, [min(cut, len(body)) for cut in cuts], output, rows)
