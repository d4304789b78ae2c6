"""The Open Inference Protocol v2: what is named, what is closed, what is read, what may leave."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.oip_v2 import OipV2
from proxy.errors import Malformed, MethodNotAllowed, RequestError, UnknownRoute, UnsupportedMediaType, UpstreamFault
from proxy.exchange import NO_PARAMETERS, Action, Cost, Output, Parameter, Query, Reply, Target
from proxy.reasons import Reason

OIP = OipV2()
INFER = Target(Action.INFER, "digits")
COARSE = Output("coarse", decimals=2)
DEFAULTS = {name: known.default for name, known in OIP.parameters.items() if known.default is not None}
JSON = ((b"content-type", b"application/json"),)
SECRET = "0.9815572050622741"

NAMED = [
    ("POST", "/v2/models/digits/infer", Target(Action.INFER, "digits")),
    ("POST", "/v2/models/digits/versions/3/infer", Target(Action.INFER, "digits", "3")),
    ("POST", "/v2/models/digits/infer_stream", Target(Action.STREAM, "digits")),
    ("POST", "/v2/models/digits/versions/3/generate", Target(Action.INFER, "digits", "3", "generate")),
    ("POST", "/v2/models/digits/generate_stream", Target(Action.STREAM, "digits", None, "generate")),
    ("GET", "/v2/models/digits", Target(Action.METADATA, "digits")),
    ("GET", "/v2/models/digits/versions/3", Target(Action.METADATA, "digits", "3")),
    ("GET", "/v2/models/digits/ready", Target(Action.HEALTH, "digits")),
    ("GET", "/v2/health/live", Target(Action.HEALTH, None)),
    ("GET", "/v2/health/ready", Target(Action.HEALTH, None)),
    ("GET", "/v2", Target(Action.METADATA, None)),
    ("GET", "/v2/models/digits/config", Target(Action.CONFIG, "digits")),
    ("GET", "/v2/models/digits/stats", Target(Action.STATISTICS, "digits")),
    ("GET", "/v2/models/stats", Target(Action.STATISTICS, None)),
    ("POST", "/v2/repository/index", Target(Action.REPOSITORY, None)),
    ("POST", "/v2/repository/models/digits/load", Target(Action.REPOSITORY, "digits")),
    ("GET", "/v2/docs", Target(Action.DOCS, None)),
    ("GET", "/v2/models/digits/docs", Target(Action.DOCS, "digits")),
]

CLOSED = [
    "/v2/",
    "/v2/models",
    "/v2/models/digits/generate/",
    "/v2/models/digits/stream",
    "/v2/systemsharedmemory/status",
    "/v2/cudasharedmemory/region/x/register",
    "/v2/trace/setting",
    "/v2/logging",
    "/v2/models/.hidden/infer",
    "/v2/models/a/b/infer",
    "/v2/models//infer",
    "/v2/models/digits/infer/",
]


@pytest.mark.parametrize(("method", "path", "target"), NAMED)
def test_every_named_path_is_an_action(method, path, target):
    assert OIP.classify(method, path, "") == target


@pytest.mark.parametrize("path", CLOSED)
def test_what_is_not_named_is_closed(path):
    with pytest.raises(UnknownRoute):
        OIP.classify("POST", path, "")


def test_paths_of_others_are_not_ours_and_methods_count():
    assert OIP.classify("POST", "/v1/models/digits:predict", "") is None
    assert OIP.classify("POST", "/v2x", "") is None
    with pytest.raises(MethodNotAllowed):
        OIP.classify("GET", "/v2/models/digits/infer", "")
    with pytest.raises(Malformed):
        OIP.classify("POST", "/v2/models/digits/infer", "a=1")


def request(**changes):
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, 3, 4]} | changes
    return json.dumps({"inputs": [tensor]}).encode()


def test_a_request_is_read_once_and_forwarded_as_it_was_read():
    query = read(request())
    assert query.cost == Cost(rows=2)
    assert query.features.tolist() == [[1, 2.5], [3, 4]]
    assert json.loads(query.body) == json.loads(request())


def test_columns_of_one_table_are_one_row_each():
    columns = [{"name": n, "shape": [3, 1], "datatype": "FP64", "data": [i, i, i]} for i, n in enumerate("abc")]
    query = read(json.dumps({"inputs": columns}).encode())
    assert query.features.tolist() == [[0, 1, 2]] * 3
    assert query.cost.rows == 3


def test_nested_data_counts_like_flat():
    assert read(request(data=[[1, 2.5], [3, 4]])).features.tolist() == [[1, 2.5], [3, 4]]


def test_the_form_of_the_answer_is_the_clients_to_choose_unless_the_rule_refuses():
    body = json.dumps(json.loads(request()) | {"parameters": {"binary_data_output": True}}).encode()
    assert json.loads(read(body).body)["parameters"] == {"binary_data_output": True}
    with pytest.raises(Malformed) as caught:
        read(body, allowed=NO_PARAMETERS)
    assert caught.value.reason is Reason.FORBIDDEN_PARAMETER


def asking(**parameters):
    output = {"name": "p", "parameters": parameters}
    return json.dumps(json.loads(request()) | {"outputs": [output]}).encode()


@pytest.mark.parametrize(
    ("rule", "asked", "forwarded"),
    [
        (Parameter(), 7, 7),
        (Parameter(most=3), 2, 2),
        (Parameter(most=3), 7, 3),
        (Parameter(most=3, cap=False), 7, None),
        (Parameter(most=3), "7", None),
        (None, 1, None),
    ],
)
def test_a_rule_allows_classification_up_to_a_number_of_classes(rule, asked, forwarded):
    allowed = DEFAULTS if rule is None else {**DEFAULTS, "classification": rule}
    if forwarded is None:
        with pytest.raises(Malformed) as caught:
            read(asking(classification=asked), allowed=allowed)
        assert caught.value.reason is Reason.FORBIDDEN_PARAMETER
        return
    shown = json.loads(read(asking(classification=asked), allowed=allowed).body)
    assert shown["outputs"] == [{"name": "p", "parameters": {"classification": forwarded}}]


def test_a_rule_may_refuse_that_the_client_chooses_outputs():
    allowed = {name: rule for name, rule in DEFAULTS.items() if name != "outputs"}
    with pytest.raises(Malformed):
        read(asking(), allowed=allowed)


@pytest.mark.parametrize("name", ["shared_memory_region", "shared_memory_byte_size"])
def test_no_rule_opens_shared_memory(name):
    with pytest.raises(Malformed):
        read(asking(**{name: 1}), allowed={name: Parameter()})


BAD_BODIES = [
    ("empty", b"", Reason.MALFORMED_BODY),
    ("not json", b"{", Reason.MALFORMED_BODY),
    ("trailing bytes", request() + b"x", Reason.MALFORMED_BODY),
    ("not an object", b"[]", Reason.MALFORMED_BODY),
    ("no inputs", b'{"inputs":[]}', Reason.MALFORMED_BODY),
    ("unknown key", b'{"inputs":[],"evil":1}', Reason.MALFORMED_BODY),
    ("duplicate key", b'{"id":"a","id":"b",' + request()[1:], Reason.MALFORMED_BODY),
    ("duplicate key behind an escape", b'{"id":"\\u0022\\u0022","id":"b",' + request()[1:], Reason.MALFORMED_BODY),
    ("bare NaN", request().replace(b"2.5", b"NaN"), Reason.MALFORMED_BODY),
    ("1e400", request().replace(b"2.5", b"1e400"), Reason.MALFORMED_BODY),
    ("a huge integer", request().replace(b"2.5", b"9" * 400), Reason.MALFORMED_BODY),
    ("depth 100,000", b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.MALFORMED_BODY),
    ("nesting in data", request(data=[[[[[[[[[[1]]]]]]]]]]), Reason.MALFORMED_BODY),
    ("ragged data", request(data=[[1, 2], 3, 4]), Reason.MALFORMED_BODY),
    ("short data", request(data=[1, 2, 3]), Reason.MALFORMED_BODY),
    ("negative side", request(shape=[-1, 2]), Reason.MALFORMED_BODY),
    ("a zero side", request(shape=[0, 2], data=[]), Reason.MALFORMED_BODY),
    ("no shape", request(shape=[], data=[1]), Reason.MALFORMED_BODY),
    ("a product beyond memory", request(shape=[2**31, 2**31]), Reason.MALFORMED_BODY),
    ("rank 9", request(shape=[1] * 9, data=[1]), Reason.MALFORMED_BODY),
    ("unknown datatype", request(datatype="FP8"), Reason.MALFORMED_BODY),
    ("a fraction in integers", request(datatype="INT32"), Reason.MALFORMED_BODY),
    ("booleans as numbers", request(data=[True, 1, 1, 1]), Reason.MALFORMED_BODY),
    ("strings as numbers", request(data=["1", 1, 1, 1]), Reason.MALFORMED_BODY),
    ("null", request(data=[None, 1, 1, 1]), Reason.MALFORMED_BODY),
    ("a tensor twice", json.dumps({"inputs": json.loads(request())["inputs"] * 2}).encode(), Reason.MALFORMED_BODY),
    ("a long id", json.dumps({"id": "x" * 300} | json.loads(request())).encode(), Reason.MALFORMED_BODY),
    ("classification", request(parameters={"classification": 3}), Reason.FORBIDDEN_PARAMETER),
    ("an unknown parameter", request(parameters={"priority": 1}), Reason.FORBIDDEN_PARAMETER),
    ("shared memory", request(parameters={"shared_memory_region": "x"}), Reason.FORBIDDEN_PARAMETER),
]


@pytest.mark.parametrize(("body", "reason"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES])
def test_bad_bodies(body, reason):
    with pytest.raises(Malformed) as caught:
        read(body)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "headers",
    [
        ((b"content-type", b"text/csv"),),
        ((b"content-type", b"application/json"), (b"content-type", b"application/json")),
        (*JSON, (b"content-encoding", b"gzip")),
    ],
)
def test_other_media_types_are_refused(headers):
    with pytest.raises(UnsupportedMediaType):
        read(request(), headers)


def test_a_body_where_none_belongs_is_refused():
    with pytest.raises(Malformed):
        OIP.read(Target(Action.METADATA, "digits"), (), b"x", NO_PARAMETERS)


def read(body, headers=JSON, allowed=None):
    return OIP.read(INFER, headers, body, DEFAULTS if allowed is None else allowed)


def reply(tensor=None, *, headers=JSON, status=200, **fields):
    tensor = {"name": "p", "shape": [1, 3], "datatype": "FP64", "data": [float(SECRET), 0.0184, 0.0]} | (tensor or {})
    body = {"model_name": "sk-iris-v7", "model_version": "v7-secret", "id": "a", "outputs": [tensor]} | fields
    return Reply(status, headers, json.dumps(body).encode())


QUERY = Query(Cost(rows=1), b"", (), id="asked-1")


def harden(answer, output=COARSE, target=INFER, query=QUERY):
    shown = OIP.harden(target, query, answer, output)
    assert shown.headers == JSON
    return json.loads(shown.body)


def test_a_reply_is_rebuilt_from_what_was_understood():
    shown = harden(reply(parameters={"host": "gpu-7"}, surprise={"scores": [0.98155]}))
    assert shown == {
        "model_name": "digits",
        "id": "asked-1",
        "outputs": [{"name": "p", "shape": [1, 3], "datatype": "FP64", "data": [0.98, 0.02, 0.0]}],
    }


def test_each_row_has_its_own_winner():
    tensor = {"shape": [2, 2], "data": [0.496, 0.504, 0.9, 0.1]}
    assert harden(reply(tensor), query=Query(Cost(rows=2), b"", ()))["outputs"][0]["data"] == [0.5, 0.51, 0.9, 0.1]


def test_nested_replies_and_vectors():
    assert harden(reply({"data": [[0.9815572, 0.018, 0.0]]}))["outputs"][0]["data"] == [0.98, 0.02, 0.0]
    vector = {"shape": [3], "data": [0.111, 0.222, 0.333]}
    assert harden(reply(vector), Output("l", label_only=True))["outputs"][0]["data"] == [0, 0, 1]
    per_row = harden(reply(vector), Output("l", label_only=True), query=Query(Cost(rows=3), b"", ()))
    assert per_row["outputs"][0]["data"] == [0, 0, 0], "three rows with one score each: rounded, no winner"


def test_integers_are_labels_unless_a_row_has_several():
    label = {"shape": [1, 1], "datatype": "INT64", "data": [7]}
    assert harden(reply(label), Output("l", label_only=True))["outputs"][0]["data"] == [7]
    scaled = {"shape": [1, 3], "datatype": "INT32", "data": [98, 1, 1]}
    assert harden(reply(scaled), Output("l", label_only=True))["outputs"][0]["data"] == [1, 0, 0]


UNREADABLE = [
    ("text", Reply(200, ((b"content-type", b"text/plain"),), b"Traceback " + SECRET.encode())),
    ("html said to be json", Reply(200, JSON, b"<html>" + SECRET.encode())),
    ("truncated", Reply(200, JSON, reply().body[:-9])),
    ("no content type", Reply(200, (), reply().body)),
    (
        "two content types",
        Reply(200, ((b"content-type", b"application/json"), (b"content-type", b"text/plain")), reply().body),
    ),
    ("no outputs", Reply(200, JSON, b'{"predictions": [[0.98155]]}')),
    ("data of another length", reply({"data": [0.98155]})),
    ("strings in numbers", reply({"data": ["0.98155", 0.0, 0.0]})),
    ("null in numbers", reply({"data": [None, 0.0, 0.0]})),
    ("floats in integers", reply({"datatype": "INT32"})),
    ("unknown datatype", reply({"datatype": "FP8"})),
    ("negative shape", reply({"shape": [-1, 3]})),
    ("a number inside a name", reply({"name": "p0.98155"})),
    ("binary data that is not there", reply({"data": None, "parameters": {"binary_data_size": 24}})),
    ("a number inside a string", reply({"datatype": "BYTES", "shape": [1, 1], "data": ["p=0.98155"]})),
    ("NaN", Reply(200, JSON, reply().body.replace(SECRET.encode(), b"NaN"))),
    ("deep", Reply(200, JSON, b'{"outputs":' + b"[" * 50_000)),
]


@pytest.mark.parametrize("answer", [case[1] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_what_cannot_be_read_completely_is_refused(answer):
    with pytest.raises(UpstreamFault) as caught:
        OIP.harden(INFER, QUERY, answer, COARSE)
    assert caught.value.reason is Reason.UPSTREAM_UNREADABLE
    assert "0.98" not in caught.value.detail


def test_metadata_names_no_software():
    body = {
        "name": "sk-iris",
        "platform": "mlserver_sklearn",
        "versions": ["v7"],
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64], "parameters": {"path": "/models"}}],
        "outputs": [],
        "parameters": {"uri": "/mnt/models/digits.joblib"},
    }
    shown = harden(Reply(200, JSON, json.dumps(body).encode()), target=Target(Action.METADATA, "digits"))
    assert shown == {
        "name": "digits",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [],
        "versions": [],
        "platform": "",
    }
    server = Reply(200, JSON, b'{"name":"mlserver","version":"1.7.1","extensions":[]}')
    assert harden(server, target=Target(Action.METADATA, None)) == {
        "name": "inference",
        "version": "2",
        "extensions": [],
    }


def test_an_action_without_a_way_to_harden_is_refused():
    with pytest.raises(UpstreamFault):
        OIP.harden(Target(Action.CONFIG, "digits"), QUERY, Reply(200, JSON, b"{}"), COARSE)


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda v: json.dumps(v).encode()
    )
)
def test_any_bytes_are_read_or_refused(body):
    """Invariant: whatever the bytes, reading and hardening end in a value or in a public error."""
    for attempt in (
        lambda: read(body),
        lambda: OIP.harden(INFER, QUERY, Reply(200, JSON, body), COARSE),
    ):
        with contextlib.suppress(RequestError):
            attempt()
