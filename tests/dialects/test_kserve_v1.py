"""KServe v1 and TensorFlow Serving: what is named, what is closed, what is read, what may leave."""

import json

import pytest

from proxy.dialects.kserve_v1 import KserveV1
from proxy.errors import Malformed, MethodNotAllowed, UnsupportedMediaType, UpstreamFault
from proxy.exchange import Action, Output, Parameter, Reply, Target
from proxy.reasons import Reason

V1 = KserveV1()
JSON = ((b"content-type", b"application/json"),)
PREDICT = Target(Action.INFER, "digits", form="predict")
CLASSIFY = Target(Action.INFER, "digits", form="examples")
STATUS = Target(Action.METADATA, "digits")
BEST = Output("best", decimals=2, top_k=1)
RAW = [0.018442780456807827, 0.9815572050622741, 1.4480918258509202e-8]


def read(body, target=PREDICT, **allowed):
    return V1.read(target, JSON, body if isinstance(body, bytes) else json.dumps(body).encode(), allowed)


def shown(reply, rows=1, target=PREDICT, headers=JSON):
    query = read({"instances": [[1.0]] * rows}) if target.action is Action.INFER else None
    return json.loads(V1.harden(target, query, Reply(200, headers, json.dumps(reply).encode()), BEST).body)


def test_the_table_names_every_action():
    for verb, form in (("predict", "predict"), ("classify", "examples"), ("regress", "examples")):
        assert V1.classify("POST", f"/v1/models/digits:{verb}", "") == Target(Action.INFER, "digits", form=form)
        at = f"/v1/models/digits/versions/3:{verb}"
        assert V1.classify("POST", at, "") == Target(Action.INFER, "digits", "3", form)
    assert V1.classify("GET", "/v1/models/digits", "") == STATUS
    assert V1.classify("GET", "/v1/models", "") == Target(Action.METADATA, None)
    with pytest.raises(MethodNotAllowed):
        V1.classify("GET", "/v1/models/digits:predict", "")
    with pytest.raises(Malformed):
        V1.classify("POST", "/v1/models/digits:predict", "a=1")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/digits/metadata",
        "/v1/models/digits/labels/stable:predict",
        "/v1/models/digits:explain",
        "/v1/models/a/b:predict",
        "/v1/models/..:predict",
        "/v1/models/digits:predict/",
        "/monitoring/prometheus/metrics",
        "/docs",
        "/openapi.json",
        "/metrics",
    ],
)
def test_what_is_not_named_is_closed(path):
    assert V1.classify("GET", path, "") is None
    assert V1.classify("POST", path, "") is None


def test_rows_and_columns_are_counted_and_shown_to_a_detector():
    rows = read({"instances": [[1, 2], [3, 4]]})
    assert (rows.cost.rows, rows.features.tolist()) == (2, [[1, 2], [3, 4]])
    columns = read({"inputs": {"a": [1, 2, 3], "b": [4, 5, 6]}})
    assert (columns.cost.rows, columns.features.tolist()) == (3, [[1, 4], [2, 5], [3, 6]])
    named = read({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]})
    assert named.features.tolist() == [[1, 2], [3, 4]]
    assert read({"instances": [{"b64": "aGVsbG8="}]}).features.read() == [b"hello"]
    assert read({"examples": [{"x": 1}, {"x": 2}]}, CLASSIFY).cost.rows == 2


BAD = [
    ("empty", b"", Reason.MALFORMED_BODY),
    ("no rows", {"instances": []}, Reason.MALFORMED_BODY),
    ("neither", {}, Reason.MALFORMED_BODY),
    ("both", {"instances": [1], "inputs": [1]}, Reason.MALFORMED_BODY),
    ("ragged columns", {"inputs": {"a": [1], "b": [1, 2]}}, Reason.MALFORMED_BODY),
    ("unknown key", {"instances": [1], "evil": 1}, Reason.MALFORMED_BODY),
    ("a key twice", b'{"instances":[{"a":1,"a":2}]}', Reason.MALFORMED_BODY),
    ("NaN", b'{"instances":[NaN]}', Reason.MALFORMED_BODY),
    ("1e400", b'{"instances":[1e400]}', Reason.MALFORMED_BODY),
    ("depth", b'{"instances":' + b"[" * 100_000, Reason.MALFORMED_BODY),
    ("another signature", {"instances": [1], "signature_name": "logits"}, Reason.FORBIDDEN_PARAMETER),
]


@pytest.mark.parametrize(("name", "body", "reason"), BAD, ids=[case[0] for case in BAD])
def test_bad_requests_are_refused(name, body, reason):
    with pytest.raises(Malformed) as caught:
        read(body)
    assert caught.value.reason is reason


def test_a_rule_may_allow_a_signature():
    assert b"logits" in read({"instances": [1], "signature_name": "logits"}, signature_name=Parameter()).body


def test_csv_is_not_json():
    with pytest.raises(UnsupportedMediaType):
        V1.read(PREDICT, ((b"content-type", b"text/csv"),), b"1,2", {})


def test_every_answer_is_hardened():
    assert shown({"predictions": [RAW], "debug": 1}) == {"predictions": [[0.0, 0.98, 0.0]]}
    assert shown({"outputs": {"p": [RAW], "logits": [[9.87654]]}}) == {
        "outputs": {"p": [[0.0, 0.98, 0.0]], "logits": [[9.88]]}
    }
    pairs = {"results": [[["b", RAW[0]], ["a", RAW[1]]]]}
    assert shown(pairs, target=CLASSIFY) == {"results": [[["a", 0.98]]]}
    assert shown({"results": [0.123456]}, target=CLASSIFY) == {"results": [0.12]}


@pytest.mark.parametrize("reply", [{"predictions": [RAW, RAW]}, {"predictions": RAW[0]}, {"p": 1}, [], "x"])
def test_an_answer_of_another_form_does_not_leave(reply):
    with pytest.raises(UpstreamFault):
        shown(reply)


def test_a_status_says_name_and_readiness_only():
    tensorflow = {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": {"error_message": "/x"}}]}
    assert shown(tensorflow, target=STATUS) == {"name": "digits", "ready": True}
    assert shown({"name": "secret", "ready": "False"}, target=STATUS) == {"name": "digits", "ready": False}
    listed = Target(Action.METADATA, None, models=("digits",))
    assert shown({"models": ["digits", "secret"]}, target=listed) == {"models": ["digits"]}
