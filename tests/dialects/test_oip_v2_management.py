"""What an opened management action lets pass: as real servers answer it, and as they should not."""

import json

import pytest

from proxy.dialects.oip_v2 import OipV2
from proxy.errors import Malformed, UpstreamFault
from proxy.exchange import MANAGEMENT, Action, Output, Reply
from tests.servers.asking import recorded

OIP = OipV2()
OPEN = Output("open")
JSON = ((b"content-type", b"application/json"),)
TRITON, MLSERVER = recorded("triton"), recorded("mlserver")


def shown(path, body, method="GET", models=("digits",)):
    target = OIP.classify(method, path, "")
    if target.model is None:
        target = type(target)(target.action, None, models=models)
    query = OIP.read(target, JSON, b"", {})
    return json.loads(OIP.harden(target, query, Reply(200, JSON, body), OPEN).body)


@pytest.mark.parametrize("server", [TRITON, MLSERVER], ids=["triton", "mlserver"])
def test_an_index_has_the_models_of_the_rule_with_their_states(server):
    body = server["repository_index"].answer.body
    (entry,) = shown("/v2/repository/index", body, "POST")
    assert entry == {"name": "digits", "version": json.loads(body)[0]["version"], "state": "READY"}
    assert shown("/v2/repository/index", body, "POST", models=("iris",)) == []


def test_a_reason_stays_behind():
    body = b'[{"name":"digits","state":"UNAVAILABLE","reason":"Traceback: /srv/models/digits.py"}]'
    assert shown("/v2/repository/index", body, "POST") == [{"name": "digits", "state": "UNAVAILABLE"}]


@pytest.mark.parametrize("word", ["load", "unload"])
def test_loading_says_nothing_and_takes_no_files(word):
    path = f"/v2/repository/models/digits/{word}"
    assert shown(path, b"", "POST") == shown(path, b'{"log":"/srv"}', "POST") == {}
    with pytest.raises(Malformed):
        OIP.read(OIP.classify("POST", path, ""), JSON, b'{"parameters":{"file:1/model.py":"aW1wb3J0IG9z"}}', {})


@pytest.mark.parametrize("path", ["/v2/models/digits/stats", "/v2/models/stats"])
def test_statistics_are_counts_and_times(path):
    given = json.loads(TRITON["statistics"].answer.body)
    (entry,) = shown(path, TRITON["statistics"].answer.body)["model_stats"]
    assert entry == {key: given["model_stats"][0][key] for key in entry}
    assert set(given["model_stats"][0]) - set(entry) == {"response_stats", "memory_usage"}
    assert shown("/v2/models/stats", TRITON["statistics"].answer.body, models=()) == {"model_stats": []}


def test_a_configuration_is_the_models_tensors():
    given = json.loads(TRITON["config"].answer.body)
    found = shown("/v2/models/digits/config", TRITON["config"].answer.body)
    assert set(found) == {"name", "max_batch_size", "input", "output"}
    assert found["input"] == [{key: given["input"][0][key] for key in ("name", "data_type", "dims")}]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v2/repository/index", b'{"error":"x"}'),
        ("POST", "/v2/repository/index", b'[{"name":"digits","version":"0.98155"}]'),
        ("POST", "/v2/repository/index", b'[{"name":"digits","state":"0.98155"}]'),
        ("POST", "/v2/repository/index", b"[" + b'{"name":"digits"},' * 2000 + b'{"name":"digits"}]'),
        ("GET", "/v2/models/digits/stats", b'{"model_stats":[{"name":"digits","inference_count":0.98155}]}'),
        ("GET", "/v2/models/digits/stats", b"NaN"),
        ("GET", "/v2/models/digits/config", b'{"name":"digits","input":[{"name":"0.98155","data_type":"","dims":[]}]}'),
        ("GET", "/v2/docs", b"<html>"),
    ],
)
def test_what_cannot_be_read_does_not_leave(method, path, body):
    with pytest.raises(UpstreamFault):
        shown(path, body, method)


def test_the_dialect_says_what_it_reads():
    assert OIP.manages == {Action.REPOSITORY, Action.STATISTICS, Action.CONFIG} < MANAGEMENT
