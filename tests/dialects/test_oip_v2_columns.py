"""Classes that stand in outputs of their own: one row under a profile that keeps some back, in JSON and in bytes."""

import json
import struct

import pytest

from proxy.dialects.oip_v2 import OipV2
from proxy.errors import UpstreamFault
from proxy.exchange import Action, Cost, Output, Query, Reply, Target
from tests.oracle.scanner import Profile, findings

OIP = OipV2()
INFER = Target(Action.INFER, "iris")
GENERATE = Target(Action.INFER, "iris", None, "generate")
JSON = ((b"content-type", b"application/json"),)
BEST = Output("best", decimals=2, top_k=1)
LABEL = Output("label", label_only=True)
ROUND = Output("round", decimals=2)
SCORES = {"setosa": [0.0712345, 0.9], "versicolor": [0.9123456, 0.06], "virginica": [0.0164199, 0.04]}


def asked(rows):
    return Query(Cost(rows=rows), b"", ())


def reply(columns, binary=(), datatype="FP32", shape=None):
    """A tensor for each class; those named in `binary` stand behind the JSON."""
    outputs, rest = [], b""
    for name, data in columns.items():
        one = {"name": name, "datatype": datatype, "shape": shape or [len(data), 1]}
        if name in binary:
            raw = struct.pack(f"<{len(data)}f", *data)
            one["parameters"], rest = {"binary_data_size": len(raw)}, rest + raw
        else:
            one["data"] = data
        outputs.append(one)
    head = json.dumps({"model_name": "iris", "outputs": outputs}).encode()
    if not rest:
        return Reply(200, JSON, head)
    headers = ((b"content-type", b"application/octet-stream"), (b"inference-header-content-length", b"%d" % len(head)))
    return Reply(200, headers, head + rest)


def columns(answer):
    """What a client reads in an answer."""
    headers = dict(answer.headers)
    end = int(headers.get(b"inference-header-content-length", len(answer.body)))
    rest, found = answer.body[end:], {}
    for one in json.loads(answer.body[:end])["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size", 0)
        raw, rest = rest[:size], rest[size:]
        data = one["data"] if "data" in one else struct.unpack(f"<{size // 4}f", raw)
        found[one["name"]] = [round(number, 6) for number in data]
    return found


@pytest.mark.parametrize("binary", [(), tuple(SCORES), ("versicolor",)], ids=["json", "binary", "both"])
@pytest.mark.parametrize("shape", [[2], [2, 1], [2, 1, 1]], ids=str)
def test_several_outputs_of_one_score_are_a_row(binary, shape):
    shown = OIP.harden(INFER, asked(2), reply(SCORES, binary, shape=shape), BEST)
    assert columns(shown) == {"setosa": [0, 0.9], "versicolor": [0.91, 0], "virginica": [0, 0]}
    shown = OIP.harden(INFER, asked(2), reply(SCORES, binary, shape=shape), LABEL)
    assert columns(shown) == {"setosa": [0, 1], "versicolor": [1, 0], "virginica": [0, 0]}
    shown = OIP.harden(INFER, asked(2), reply(SCORES, binary, shape=shape), ROUND)
    assert columns(shown) == {"setosa": [0.07, 0.9], "versicolor": [0.91, 0.06], "virginica": [0.02, 0.04]}


def test_the_label_is_told_even_where_no_score_is_above_a_half():
    shown = OIP.harden(INFER, asked(1), reply({"a": [0.3], "b": [0.4], "c": [0.3]}), LABEL)
    assert columns(shown) == {"a": [0], "b": [1], "c": [0]}


def test_many_rows_are_hardened_in_blocks():
    rows = 40_000
    many = {"a": [0.75, 0.25] * (rows // 2), "b": [0.25, 0.75] * (rows // 2)}
    shown = columns(OIP.harden(INFER, asked(rows), reply(many, ("a", "b")), LABEL))
    assert shown == {"a": [1, 0] * (rows // 2), "b": [0, 1] * (rows // 2)}


@pytest.mark.parametrize(
    "beside",
    [{"box": [17.5, 3.0]}, {"logit": [-0.5, 0.5]}, {"one": [0.5]}],
    ids=["beyond one", "below zero", "another number of rows"],
)
@pytest.mark.parametrize("output", [BEST, LABEL], ids=["top_k", "label_only"])
def test_where_nobody_can_say_what_belongs_together_it_is_refused(beside, output):
    with pytest.raises(UpstreamFault, match=r"infer: .*top_k or label_only must know which belong together"):
        OIP.harden(INFER, asked(2), reply(SCORES | beside), output)


def classified(name, words, binary):
    """A BYTES tensor, and the bytes behind the JSON."""
    one = {"name": name, "datatype": "BYTES", "shape": [len(words), 1]}
    raw = b"".join(len(word).to_bytes(4, "little") + word.encode() for word in words)
    return (one | {"parameters": {"binary_data_size": len(raw)}}, raw) if binary else (one | {"data": words}, b"")


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("output", [BEST, LABEL], ids=["top_k", "label_only"])
def test_classifications_in_several_outputs_are_refused(output, binary):
    """Asked for as classifications, the outputs of one score each are strings, and no columns of numbers."""
    parts = [classified("a", ["0.9:0", "0.2:0"], binary), classified("b", ["0.1:0:x", "0.8:0:x"], binary)]

    def answered(outputs, rest=b""):
        head = json.dumps({"model_name": "x", "outputs": outputs}).encode()
        kind = b"application/octet-stream" if rest else b"application/json"
        length = ((b"inference-header-content-length", b"%d" % len(head)),) if rest else ()
        return Reply(200, ((b"content-type", kind), *length), head + rest)

    both = answered([one for one, _ in parts], b"".join(raw for _, raw in parts))
    score = {"name": "c", "datatype": "FP32", "shape": [2, 1], "data": [0.05, 0.05]}
    label = {"name": "d", "datatype": "BYTES", "shape": [2, 1], "data": ["cat", "dog"]}
    for refused in (both, answered([parts[0][0], score], parts[0][1])):
        with pytest.raises(UpstreamFault, match="several outputs of one classification"):
            OIP.harden(INFER, asked(2), refused, output)
        assert OIP.harden(INFER, asked(2), refused, ROUND).body
    assert OIP.harden(INFER, asked(2), answered([parts[0][0], label], parts[0][1]), output).body
    assert OIP.harden(INFER, asked(2), answered([score, label]), output).body


def test_rounding_needs_to_know_nothing():
    shown = columns(OIP.harden(INFER, asked(2), reply(SCORES | {"box": [17.512, -3.123]}), ROUND))
    assert shown["box"] == [17.51, -3.12]


def test_a_label_beside_a_score_is_no_score():
    content = json.loads(reply({"score": [0.91234]}).body)
    content["outputs"].append({"name": "label", "datatype": "INT64", "shape": [1, 1], "data": [7]})
    shown = OIP.harden(INFER, asked(1), Reply(200, JSON, json.dumps(content).encode()), BEST)
    assert columns(shown) == {"score": [0.91], "label": [7]}


FLAT = [
    ({"a": 0.91234, "b": 0.07, "c": 0.02}, {"a": 0.91, "b": 0, "c": 0}),
    ({"a": [0.91234], "b": [0.07]}, {"a": [0.91], "b": [0]}),
    ({"a": 0.91234, "b": 0.07, "label": 7}, {"a": 0.91, "b": 0, "label": 7}),
    ({"a": 0.91234, "text_output": "a cat"}, {"a": 0.91, "text_output": "a cat"}),
    ({"a": [0.3, 0.7], "b": [0.6, 0.4]}, {"a": [0, 0.7], "b": [0.6, 0]}),
]


@pytest.mark.parametrize(("content", "shown"), FLAT, ids=["numbers", "lists", "a label", "a text", "two rows"])
def test_numbers_of_a_flat_answer_are_a_row(content, shown):
    body = json.dumps({"model_name": "x", **content}).encode()
    answer = OIP.harden(GENERATE, asked(1), Reply(200, JSON, body), BEST)
    assert json.loads(answer.body) == {"model_name": "iris", **shown}


def test_a_flat_answer_with_numbers_of_several_kinds_is_refused():
    body = json.dumps({"score": 0.91234, "seconds": 3.25}).encode()
    with pytest.raises(UpstreamFault, match="top_k or label_only must know"):
        OIP.harden(GENERATE, asked(1), Reply(200, JSON, body), BEST)


@pytest.mark.parametrize("binary", [(), tuple(SCORES), ("setosa",)], ids=["json", "binary", "both"])
def test_the_oracle_sees_them(binary):
    """It can fail: the server's own answer is more than the profile."""
    answer = reply(SCORES, binary)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    found = findings(headers, answer.body, Profile(top_k=1, rows=2))
    assert [one for one in found if "side by side" in one] == ["3 classes in outputs side by side"] * 2
