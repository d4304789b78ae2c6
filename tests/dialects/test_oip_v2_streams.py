"""`/generate` and the two streams: flat answers, answers as events, and what must cut a stream."""

import json

import pytest

from proxy.dialects.oip_v2 import OipV2
from proxy.errors import Malformed, UpstreamFault
from proxy.exchange import Action, Cost, Output, Parameter, Query, Reply, Target
from proxy.reasons import Reason

OIP = OipV2()
DEFAULTS = {name: known.default for name, known in OIP.parameters.items() if known.default is not None}
JSON = ((b"content-type", b"application/json"),)
EVENTS = ((b"content-type", b"text/event-stream; charset=utf-8"),)
COARSE = Output("coarse", decimals=2)
GENERATE = Target(Action.INFER, "digits", None, "generate")
GENERATE_STREAM = Target(Action.STREAM, "digits", None, "generate")
INFER_STREAM = Target(Action.STREAM, "digits")
QUERY = Query(Cost(rows=1), b"", (), id="mine")
FLAT = {"model_name": "sk-7", "model_version": "7", "id": "theirs", "p": [0.9815572, 0.0184427], "label": 3, "ok": True}
SHOWN = {"model_name": "digits", "id": "mine", "p": [0.98, 0.02], "label": 3, "ok": True}


LISTS = {**DEFAULTS, "tensors": Parameter(most=4)}


def read(content, allowed=LISTS):
    return OIP.read(GENERATE, JSON, json.dumps(content).encode(), allowed)


def test_flat_requests_are_read_like_tensors():
    query = read({"x": [1, 2.5], "id": "a"})
    assert (query.features.tolist(), query.cost, query.id) == ([[1, 2.5]], Cost(rows=1), "a")
    assert read({"x": [[1, 2], [3, 4]]}).cost == Cost(rows=2)
    assert read({"x": ["a"]}).features is None


@pytest.mark.parametrize("allowed", [DEFAULTS, LISTS])
def test_a_list_that_may_hold_more_rows_than_one_is_refused(allowed):
    """Triton takes a flat list of n rows for a batch of n: whoever pays for one must not get many."""
    with pytest.raises(Malformed) as caught:
        read({"x": [1, 2, 3, 4, 5]}, allowed)
    assert caught.value.reason is Reason.FORBIDDEN_PARAMETER


def test_text_costs_tokens():
    assert read({"text_input": "what is the answer"}).cost == Cost(rows=1, tokens=5)


def test_mlserver_takes_the_body_of_infer_here():
    tensor = {"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1, 2]}
    assert read({"inputs": [tensor]}).cost == Cost(rows=2)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"x": []},
        {"x": [1, "a"]},
        {"x": [[1, 2], [3]]},
        {"x": [None]},
        {"x": [[1], 2]},
        {"x": None},
        {"x": {"a": 1}},
        {"text_input": 7},
        {"id": 7, "x": [1]},
        {"text_input": "a", "max_tokens": 9},
        {"text_input": "a", "parameters": {"temperature": 0.5}},
        {"text_input": "a", "classification": 3},
        {"text_input": "a", "shared_memory_region": "b"},
        {"text_input": "a", "parameters": {"a": {"b": 1}}},
        {"text_input": "a", "parameters": [{}]},
        {"inputs": [{"name": "x"}]},
    ],
)
def test_what_is_not_a_flat_request_is_refused(content):
    with pytest.raises(Malformed):
        read(content)


def test_a_rule_may_cap_a_generation():
    query = read({"text_input": "a", "max_tokens": 900}, {"max_tokens": Parameter(most=64)})
    assert json.loads(query.body) == {"text_input": "a", "max_tokens": 64}


def test_a_flat_answer_is_hardened_value_by_value():
    shown = OIP.harden(GENERATE, QUERY, Reply(200, JSON, json.dumps(FLAT).encode()), COARSE)
    assert json.loads(shown.body) == SHOWN
    assert shown.cost is None


@pytest.mark.parametrize(
    "content",
    [
        {"p": {"scores": [0.98155]}},
        {"p": [0.98155, None]},
        {"p": "0.98155"},
        {"p": ["0.98155 of 1"]},
        {"p0.98155": 1},
        {"p": []},
        {"outputs": [{"name": "p"}]},
        [0.98155],
    ],
)
def test_a_flat_answer_that_cannot_be_read_is_refused(content):
    with pytest.raises(UpstreamFault):
        OIP.harden(GENERATE, QUERY, Reply(200, JSON, json.dumps(content).encode()), COARSE)


def test_an_error_inside_an_answer_is_an_error():
    with pytest.raises(UpstreamFault) as caught:
        OIP.harden(GENERATE, QUERY, Reply(200, JSON, b'{"error": "at /models/7.py"}'), COARSE)
    assert caught.value.reason is Reason.UPSTREAM_ERROR


def stream(target, *pieces, query=QUERY, headers=EVENTS):
    hardener = OIP.stream(target, query, Reply(200, headers, b""), COARSE)
    shown = b"".join(map(hardener.feed, pieces)) + hardener.end()
    return hardener, [json.loads(event.removeprefix(b"data: ")) for event in shown.split(b"\n\n") if event]


def test_flat_events():
    data = b"data: " + json.dumps(FLAT).encode() + b"\n\n"
    hardener, shown = stream(GENERATE_STREAM, data, data[:20], data[20:])
    assert shown == [SHOWN, SHOWN]
    assert hardener.headers == ((b"content-type", b"text/event-stream"),)
    assert hardener.cost is None


def test_tensor_events():
    tensor = {"name": "p", "shape": [1, 2], "datatype": "FP64", "data": [0.9815572, 0.0184427]}
    answer = {"model_name": "digits", "parameters": {"headers": {"host": "gpu-7"}}, "outputs": [tensor]}
    _, shown = stream(INFER_STREAM, b"data: " + json.dumps(answer).encode() + b"\r\n\r\n")
    assert shown == [{"model_name": "digits", "id": "mine", "outputs": [tensor | {"data": [0.98, 0.02]}]}]


def test_text_that_flowed_is_paid_for():
    hardener, _ = stream(
        GENERATE_STREAM, b'data: {"text_output": "one two"}\n\n', query=Query(Cost(rows=1, tokens=3), b"", ())
    )
    assert hardener.cost.tokens > 3


@pytest.mark.parametrize(
    "piece",
    [b'data: {"p": "0.98155"}\n\n', b"data: [DONE]\n\n", b'data: {"error": "x"}\n\n', b"0.98155\n\n", b"data: {\n\n"],
)
def test_what_cannot_be_read_cuts_the_stream(piece):
    with pytest.raises(UpstreamFault):
        stream(GENERATE_STREAM, piece)


@pytest.mark.parametrize(
    "headers", [JSON, (), (*EVENTS, (b"content-encoding", b"gzip")), (*EVENTS, (b"content-type", b"text/plain"))]
)
def test_only_a_plain_event_stream_begins(headers):
    with pytest.raises(UpstreamFault):
        stream(GENERATE_STREAM, headers=headers)


PROSE = "pi is about 3.14, and 0.98155 is less"


def prose(answer, output=COARSE, **more):
    query = read({"text_input": "a"}, {**DEFAULTS, "text_output": Parameter()} | more)
    shown = OIP.harden(GENERATE, query, Reply(200, JSON, json.dumps(answer).encode()), output)
    return json.loads(shown.body)


@pytest.mark.parametrize("output", [COARSE, Output("best", top_k=1), Output("label", label_only=True)])
def test_text_is_text_where_a_rule_says_so(output):
    assert prose({"text_output": PROSE}, output)["text_output"] == PROSE
    events = OIP.stream(GENERATE_STREAM, Query(Cost(), b"", (), prose=True), Reply(200, EVENTS, b""), output)
    assert PROSE.encode() in events.feed(json.dumps({"text_output": PROSE}).join(["data: ", "\n\n"]).encode())
    with pytest.raises(UpstreamFault):
        OIP.harden(GENERATE, QUERY, Reply(200, JSON, json.dumps({"text_output": PROSE}).encode()), output)


def test_numbers_and_classifications_beside_a_text_are_hardened_all_the_same():
    assert prose({"p": [0.98155, 0.01845], "c": ["0.98155:3:three", "0.01845:1:one"]}) == {
        "model_name": "digits", "p": [0.98, 0.02], "c": ["0.98:3:three", "0.02:1:one"],
    }  # fmt: skip
    for answer in ({"c": ["0.98155:3", PROSE]}, {"p0.98155": "a"}, {"p": {"text": PROSE}}):
        with pytest.raises(UpstreamFault):
            prose(answer)


def test_what_an_answer_may_say_is_nothing_that_a_request_says():
    with pytest.raises(Malformed):
        read({"text_input": "a", "text_output": "b"}, {**DEFAULTS, "text_output": Parameter()})
