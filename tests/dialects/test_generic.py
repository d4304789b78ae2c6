"""A described server: the pointers open exactly what they name."""

import json

import pytest

from proxy.dialects import DIALECTS, spoken
from proxy.dialects.generic import Generic
from proxy.errors import Malformed, MethodNotAllowed, UpstreamFault
from proxy.exchange import Action, Cost, Form, Output, Query, Reply, Target
from proxy.reasons import Reason

FORM = Form(
    infer="/classify",
    rows=("data", "rows"),
    features=("x",),
    scores=(("results", "*", "scores"),),
    labels=(("results", "*", "label"),),
    health="/live",
)
GENERIC = Generic(FORM)
JSON = ((b"content-type", b"application/json"),)
INFER = Target(Action.INFER, "odd", sole=True)
BEST = Output("best", decimals=2, top_k=1)


def read(*rows, **beside):
    return GENERIC.read(INFER, JSON, json.dumps({"data": {"rows": rows}, **beside}).encode(), {})


def shown(reply, rows=1, form=FORM):
    query = read(*[{"x": [1, 2]}] * rows)
    return json.loads(Generic(form).harden(INFER, query, Reply(200, JSON, json.dumps(reply).encode()), BEST).body)


def test_two_paths_are_named_and_nothing_else():
    assert GENERIC.classify("POST", "/classify", "") == Target(Action.INFER, None, sole=True)
    assert GENERIC.classify("GET", "/live", "").action is Action.HEALTH
    assert GENERIC.classify("POST", "/other", "") is None
    assert DIALECTS["generic"].classify("POST", "/classify", "") is None
    with pytest.raises(MethodNotAllowed) as refused:
        GENERIC.classify("GET", "/classify", "")
    assert refused.value.allowed == ("POST",)
    with pytest.raises(MethodNotAllowed) as refused:
        GENERIC.classify("POST", "/live", "")
    assert refused.value.allowed == ("GET",)
    with pytest.raises(Malformed):
        GENERIC.classify("POST", "/classify", "debug=1")
    assert [dialect.name for dialect in spoken(())] == []


def test_rows_and_features_are_where_the_pointers_say():
    query = read({"x": [1, 2], "id": 7}, {"x": [3, 4], "id": 8})
    assert (query.cost.rows, query.features.tolist()) == (2, [[1, 2], [3, 4]])
    whole = Generic(Form("/p", (), (), (("y",),), ())).read(INFER, JSON, b"[[1,2],[3,4]]", {})
    assert (whole.cost.rows, whole.features.tolist()) == (2, [[1, 2], [3, 4]])


def test_what_stands_beside_the_rows_is_refused():
    with pytest.raises(Malformed) as caught:
        read({"x": [1]}, return_logits=True)
    assert caught.value.reason is Reason.FORBIDDEN_PARAMETER
    for body in (b"{}", b"[]", b'{"data":{"rows":[]}}', b'{"data":{"rows":[{"y":1}]}}', b'{"data":{"rows":3}}'):
        with pytest.raises(Malformed):
            GENERIC.read(INFER, JSON, body, {})


def test_only_what_is_named_leaves_and_hardened():
    raw = {"results": [{"scores": [0.123456, 0.876544], "label": "b", "logits": [9.9]}], "host": "gpu-3"}
    assert shown(raw) == {"results": [{"scores": [0.0, 0.88], "label": "b"}]}
    whole = Form("/classify", ("data", "rows"), None, (("scores",),), ())
    assert shown({"scores": [0.123456, 0.876544]}, form=whole) == {"scores": [0.0, 0.88]}
    assert shown({"scores": [0.123456, 0.876544]}, rows=2, form=whole) == {"scores": [0.12, 0.88]}


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"results": []},
        {"results": [{"scores": [0.1]}] * 2},
        {"results": [{"logits": [0.1]}]},
        {"results": [{"scores": [0.1], "label": 0.123456}]},
        {"results": [{"scores": [0.1], "label": "0.123456"}]},
        {"results": [{"scores": [0.1], "label": {"a": 0.123456}}]},
        {"results": {"*": {"scores": [0.1]}}, "x": 1},
    ],
    ids=str,
)
def test_an_answer_of_another_form_does_not_leave(reply):
    with pytest.raises(UpstreamFault):
        shown(reply)


APART = [  # pointers, rows, the reply, and what leaves of it where one class may; None: nothing
    ("an object", ("a", "b"), 1, {"a": 0.91, "b": 0.07, "c": 1}, {"a": 0.91}),
    ("columns", ("a", "b"), 2, {"a": [0.91, 0.2], "b": [0.07, 0.8]}, {"a": [0.91, 0.0], "b": [0.0, 0.8]}),
    (
        "rows",
        ("r/*/a", "r/*/b"),
        2,
        {"r": [{"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}]},
        {"r": [{"a": 0.9}, {"b": 0.8}]},
    ),
    ("two objects", ("x/a", "y/b"), 1, {"x": {"a": 0.91}, "y": {"b": 0.07}}, None),
    ("an object and a number", ("a", "y/b"), 1, {"a": 0.91, "y": {"b": 0.07}}, None),
    ("columns in two objects", ("x/a", "y/b"), 2, {"x": {"a": [0.9, 0.2]}, "y": {"b": [0.1, 0.8]}}, None),
    ("two rows of scores", ("a", "b"), 1, {"a": [0.9, 0.1], "b": [0.3, 0.7]}, {"a": [0.9, 0.0], "b": [0.0, 0.7]}),
    ("a score and a label", ("x/a",), 1, {"x": {"a": 0.91}, "label": 3}, {"x": {"a": 0.91}, "label": 3}),
]


@pytest.mark.parametrize(("name", "pointers", "rows", "reply", "leaves"), APART, ids=[case[0] for case in APART])
def test_scores_under_several_pointers_are_one_row(name, pointers, rows, reply, leaves):
    form = Form("/classify", ("data", "rows"), None, tuple(tuple(one.split("/")) for one in pointers), (("label",),))
    if leaves is None:
        with pytest.raises(UpstreamFault, match="top_k or label_only must know"):
            shown(reply, rows, form)
    else:
        assert shown(reply, rows, form) == leaves
    query = Query(Cost(rows=rows), b"", ())
    said = Reply(200, JSON, json.dumps(reply).encode())
    coarse = json.loads(Generic(form).harden(INFER, query, said, Output("coarse", decimals=2)).body)
    assert coarse == {key: entry for key, entry in reply.items() if key != "c"}
