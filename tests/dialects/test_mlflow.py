"""MLflow's scoring server: its four JSON forms and CSV, and the one form of its answers."""

import json

import pytest

from proxy.dialects.mlflow import MLflow
from proxy.errors import Malformed, MethodNotAllowed, UnsupportedMediaType, UpstreamFault
from proxy.exchange import Action, Output, Parameter, Reply, Target
from proxy.reasons import Reason

MLFLOW = MLflow()
JSON = ((b"content-type", b"application/json"),)
CSV = ((b"content-type", b"text/csv; charset=utf-8"),)
INFER = Target(Action.INFER, "digits", sole=True)
COARSE = Output("coarse", decimals=2)


def read(body, headers=JSON):
    return MLFLOW.read(INFER, headers, body if isinstance(body, bytes) else json.dumps(body).encode(), {})


def test_the_table_names_two_actions_and_closes_the_rest():
    assert MLFLOW.classify("POST", "/invocations", "") == Target(Action.INFER, None, sole=True)
    assert MLFLOW.classify("GET", "/ping", "").action is Action.HEALTH
    assert MLFLOW.classify("GET", "/health", "").action is Action.HEALTH
    assert [MLFLOW.classify("GET", path, "") for path in ("/version", "/docs", "/openapi.json", "/")] == [None] * 4
    with pytest.raises(MethodNotAllowed):
        MLFLOW.classify("GET", "/invocations", "")


FORMS = [
    {"inputs": [[1, 2], [3, 4]]},
    {"instances": [[1, 2], [3, 4]]},
    {"inputs": {"a": [1, 3], "b": [2, 4]}},
    {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}},
    {"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]},
]


@pytest.mark.parametrize("body", FORMS, ids=lambda body: next(iter(body)))
def test_every_form_has_rows_and_features(body):
    query = read(body)
    assert query.cost.rows == 2
    assert query.features.tolist() == [[1, 2], [3, 4]]
    assert json.loads(query.body) == body


def test_csv_is_read_and_written_again():
    query = read(b'a,"b ""x"""\r\n1,2\r\n3,4', CSV)
    assert query.body == b'a,"b ""x"""\n1,2\n3,4\n'
    assert query.headers == ((b"content-type", b"text/csv"),)
    assert (query.cost.rows, query.features.tolist()) == (2, [[1, 2], [3, 4]])
    assert read(b"a\nx\n", CSV).features is None


@pytest.mark.parametrize(
    "body", [b"", b"a,b\n", b"a,b\n1\n", b"a,a\n1,2\n", b'a\n"1', b"a\n\xff\n", b"a,b\n1,2\n\n", b"a\n\0\n"]
)
def test_csv_with_two_readings_is_refused(body):
    with pytest.raises(Malformed):
        read(body, CSV)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        {},
        {"inputs": []},
        {"inputs": [1], "instances": [1]},
        {"inputs": [1], "params": {"predict_method": "predict_log_proba"}},
        {"messages": []},
        {"dataframe_split": {"data": []}},
        {"inputs": {"a": [1], "b": 2}},
        b'{"inputs":[{"a":1,"a":2}]}',
    ],
    ids=str,
)
def test_bad_requests_are_refused(body):
    with pytest.raises(Malformed):
        read(body)


def test_other_content_types_are_refused():
    for kind in (b"application/vnd.apache.parquet", b"application/octet-stream"):
        with pytest.raises(UnsupportedMediaType):
            read(b"x", ((b"content-type", kind),))
    with pytest.raises(UnsupportedMediaType):
        read({"inputs": [1]}, ())  # MLflow itself answers 500


def test_answers_are_hardened_row_by_row():
    def shown(predictions, output=COARSE):
        reply = Reply(200, JSON, json.dumps({"predictions": predictions, "trace": "/srv"}).encode())
        return json.loads(MLFLOW.harden(INFER, read({"inputs": [[1], [2]]}), reply, output).body)["predictions"]

    assert shown([[0.123456, 0.876544]] * 2) == [[0.12, 0.88]] * 2
    assert shown([3, 7]) == [3, 7]
    assert shown([{"a": 0.123456, "b": 0.876544}] * 2, Output("o", top_k=1)) == [{"b": 0.876544}] * 2
    assert shown({"p": [0.123456, 0.5]}) == {"p": [0.12, 0.5]}
    for wrong in ([[0.1]], 0.123456, None):
        with pytest.raises(UpstreamFault):
            shown(wrong)
    with pytest.raises(UpstreamFault):
        MLFLOW.harden(INFER, read({"inputs": [[1]]}), Reply(200, JSON, b"[0.123456]"), COARSE)


@pytest.mark.parametrize(
    "params", [{"predict_method": "predict_log_proba"}, {"n": 1, "t": 0.5, "raw": True}, {"stop": ["a", "b"]}, {}]
)
def test_params_are_read_where_a_rule_allows_them(params):
    body = json.dumps({"inputs": [[1]], "params": params}).encode()
    assert json.loads(MLFLOW.read(INFER, JSON, body, {"params": Parameter()}).body) == json.loads(body)
    with pytest.raises(Malformed) as caught:
        MLFLOW.read(INFER, JSON, body, {})
    assert caught.value.reason is Reason.FORBIDDEN_PARAMETER


@pytest.mark.parametrize(
    "params",
    [None, [], {"a": None}, {"a": {"b": 1}}, {"a": [[1]]}, {"": 1}, {str(at): 1 for at in range(65)}],
    ids=repr,
)
def test_params_that_are_none_are_refused_whatever_a_rule_says(params):
    with pytest.raises(Malformed):
        MLFLOW.read(INFER, JSON, json.dumps({"inputs": [[1]], "params": params}).encode(), {"params": Parameter()})
    with pytest.raises(Malformed):
        MLFLOW.read(INFER, JSON, b'{"params":{"a":1}}', {"params": Parameter()})
