"""The dialects whose replies declare no shape, and `openai`: no answer leaks, or it is refused.

Each request is read by the dialect, as the gateway does it; so the rows are those that the request has.
"""

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.dialects import DIALECTS
from proxy.dialects.coding import plain
from proxy.dialects.generic import Generic
from proxy.errors import UpstreamFault
from proxy.exchange import Action, Form, Output, Parameter, Reply, Target
from tests.oracle import loose_replies
from tests.oracle.scanner import Profile, findings

LIMIT = 1 << 20  # bytes
LONG = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
LONG_STREAMS = settings(LONG, max_examples=3_000)  # an example is several chunks, cut where it may be
MINUTES = 15 * 60  # seconds: on a machine that has other things to do

OUTPUTS = st.builds(
    Output,
    st.just("o"),
    decimals=st.none() | st.integers(0, 6),
    top_k=st.none() | st.integers(1, 3),
    label_only=st.booleans(),
)
WHOLE = Form("/p", ("rows",), None, (("out",),), (("names",),))
INSIDE = Form("/p", ("rows",), None, (("out", "*", "scores"),), (("out", "*", "label"),))

LOOSE = {  # name -> dialect, target, what a request for so many rows says, where the results stand
    "kserve-v1 predict": (
        DIALECTS["kserve-v1"], Target(Action.INFER, "m", form="predict"),
        lambda rows: {"instances": [[1.0, 2.0]] * rows}, ("predictions",),
    ),
    "kserve-v1 predict by columns": (
        DIALECTS["kserve-v1"], Target(Action.INFER, "m", form="predict"),
        lambda rows: {"inputs": {"x": [1.0] * rows}}, ("outputs",),
    ),
    "kserve-v1 classify": (
        DIALECTS["kserve-v1"], Target(Action.INFER, "m", form="examples"),
        lambda rows: {"examples": [{"x": 1.0}] * rows}, ("results",),
    ),
    "torchserve": (DIALECTS["torchserve"], Target(Action.INFER, "m"), lambda rows: [[1.0]] * rows, ()),
    "mlflow": (
        DIALECTS["mlflow"], Target(Action.INFER, "m", sole=True), lambda rows: {"inputs": [[1.0]] * rows},
        ("predictions",),
    ),
    "generic": (Generic(WHOLE), Target(Action.INFER, "m", sole=True), lambda rows: {"rows": [1] * rows}, ("out",)),
    "generic inside": (
        Generic(INSIDE), Target(Action.INFER, "m", sole=True), lambda rows: {"rows": [1] * rows}, ("out",)
    ),
}  # fmt: skip
OPENAI = {
    "chat": {
        "model": "m",
        "messages": [{"role": "user", "content": "7?"}],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
    },
    "completions": {"model": "m", "prompt": "7?", "n": 2, "logprobs": 3},
    "embeddings": {"model": "m", "input": ["7?", "8?"]},
}
ALLOWED = {name: Parameter() for name in ("n", "logprobs", "top_logprobs")}
JSON = ((b"content-type", b"application/json"),)


def told(headers, body, output, rows):
    shown = {name.decode(): value.decode() for name, value in headers}
    return findings(shown, body, Profile(output.decimals, output.top_k, output.label_only, rows))


def reply(headers, body):
    return Reply(200, tuple((name.encode(), value.encode()) for name, value in headers.items()), body)


def answers(dialect, target, query, answer, output):
    """The invariant for a whole reply."""
    with contextlib.suppress(UpstreamFault):
        shown = dialect.harden(target, query, plain(reply(*answer), LIMIT), output)
        assert told(shown.headers, shown.body, output, query.cost.rows) == []
        json.loads(shown.body)


def loosely(name, data, rows, output):
    dialect, target, said, keys = LOOSE[name]
    query = dialect.read(target, JSON, json.dumps(said(rows)).encode(), {})
    assert query.cost.rows == rows
    if name == "generic inside":
        inner = loose_replies.each(1)
        content = {"out": [{"scores": data.draw(inner), "label": data.draw(loose_replies.LABELS)} for _ in range(rows)]}
        answer = ({"content-type": "application/json"}, json.dumps(content).encode())
    else:
        answer = data.draw(loose_replies.reply(rows, *keys))
    answers(dialect, target, query, answer, output)


def asked(form, action=Action.INFER):
    target = Target(action, "m", form=form)
    body = OPENAI[form] | ({"stream": True} if action is Action.STREAM else {})
    return target, DIALECTS["openai"].read(target, JSON, json.dumps(body).encode(), ALLOWED)


def openly(form, content, output):
    answer = ({"content-type": "application/json"}, json.dumps(content).encode())
    answers(DIALECTS["openai"], *asked(form), answer, output)


def streams(form, body, cuts, output):
    """The invariant for a stream, however its bytes arrive: what left before the cut counts too."""
    target, query = asked(form, Action.STREAM)
    hardener = DIALECTS["openai"].stream(target, query, reply({"content-type": "text/event-stream"}, b""), output)
    left = b""
    with contextlib.suppress(UpstreamFault):
        for at, to in zip([0, *sorted(cuts)], [*sorted(cuts), len(body)], strict=True):
            left += hardener.feed(body[at:to])
        left += hardener.end()
    assert told(hardener.headers, left, output, query.cost.rows) == []


ROWS = st.integers(1, 3)
REPLIES = given(st.data(), ROWS, OUTPUTS)
CUTS = st.lists(st.integers(0, 400), max_size=5)


@pytest.mark.parametrize("name", LOOSE)
@REPLIES
def test_loose_replies(name, data, rows, output):
    loosely(name, data, rows, output)


@pytest.mark.parametrize("form", OPENAI)
@given(st.data(), OUTPUTS)
def test_openai_replies(form, data, output):
    openly(form, data.draw(loose_replies.OPENAI[form]), output)


@pytest.mark.parametrize("form", loose_replies.CHUNKS)
@given(st.data(), CUTS, OUTPUTS)
def test_openai_streams(form, data, cuts, output):
    body = data.draw(loose_replies.events(loose_replies.CHUNKS[form]))
    streams(form, body, [min(cut, len(body)) for cut in cuts], output)


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
@pytest.mark.parametrize("name", LOOSE)
@LONG
@REPLIES
def test_loose_replies_for_long(name, data, rows, output):
    loosely(name, data, rows, output)


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
@pytest.mark.parametrize("form", OPENAI)
@LONG
@given(st.data(), OUTPUTS)
def test_openai_replies_for_long(form, data, output):
    openly(form, data.draw(loose_replies.OPENAI[form]), output)


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
@pytest.mark.parametrize("form", loose_replies.CHUNKS)
@LONG_STREAMS
@given(st.data(), CUTS, OUTPUTS)
def test_openai_streams_for_long(form, data, cuts, output):
    body = data.draw(loose_replies.events(loose_replies.CHUNKS[form]))
    streams(form, body, [min(cut, len(body)) for cut in cuts], output)
