"""MLServer in its default debug mode, with `hip serve` before it, driven by the stock client through TLS."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from proxy.demo.digits import load_digits, scaled
from tests.servers.asking import ask
from tests.servers.begun import hip_init
from tests.servers.questions import QUESTIONS, Question
from tests.servers.roads import PROFILES, open_roads, seen, walk
from tests.servers.running import RunningServer
from tests.servers.through import Through, ask_through, hip_before, leaks

ASKED = QUESTIONS["mlserver"]
DIGITS = load_digits()


@pytest.fixture(scope="session")
def through(mlserver: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    with hip_before(mlserver, "oip-v2", open_roads(tmp_path_factory.mktemp("hip-mlserver"))) as running:
        yield running


@pytest.fixture
def client(through: Through) -> Iterator[triton.InferenceServerClient]:
    stock = triton.InferenceServerClient(
        f"localhost:{through.hip.port}", ssl=True, ssl_context_factory=through.hip.trust
    )
    yield stock
    stock.close()


def tensor(rows: np.ndarray) -> triton.InferInput:
    wanted = triton.InferInput("x", list(rows.shape), "FP32")
    wanted.set_data_from_numpy(rows, binary_data=False)
    return wanted


def test_the_stock_client_gets_rounded_scores_and_the_same_winners(through, client):
    rows = scaled(DIGITS.heldout[:32])
    headers = {"Authorization": f"Bearer {through.token()}"}
    outputs = [triton.InferRequestedOutput("predict_proba", binary_data=False)]
    shown = client.infer("digits", [tensor(rows)], outputs=outputs, headers=headers).as_numpy("predict_proba")
    direct = triton.InferenceServerClient(through.server.url.removeprefix("http://"))
    raw = direct.infer("digits", [tensor(rows)], outputs=outputs).as_numpy("predict_proba")
    direct.close()
    assert (shown.argmax(axis=1) == raw.argmax(axis=1)).all()
    assert (np.round(shown, 2) == shown).all()
    assert np.abs(shown - raw).max() < 0.02
    assert not (np.round(raw, 2) == raw).all()


def test_the_stock_client_reads_metadata_and_health(through, client):
    headers = {"Authorization": f"Bearer {through.token()}"}
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready("digits", headers=headers)
    assert client.get_model_metadata("digits", headers=headers)["name"] == "digits"


@pytest.mark.parametrize(
    ("token", "status"),
    [
        ({"amr": ["pwd"]}, "401"),
        ({"iss": "https://elsewhere.example"}, "401"),
        ({"realm_access": {"roles": []}}, "403"),
    ],
)
def test_the_stock_client_is_refused_in_its_own_words(through, client, token, status):
    headers = {"Authorization": f"Bearer {through.token(**token)}"}
    with pytest.raises(InferenceServerException) as caught:
        client.infer("digits", [tensor(scaled(DIGITS.heldout[:1]))], headers=headers)
    assert status in str(caught.value)


def test_management_is_closed(through, client):
    headers = {"Authorization": f"Bearer {through.token()}"}
    for ask_for in (client.get_model_repository_index, lambda **more: client.unload_model("digits", **more)):
        with pytest.raises(InferenceServerException):
            ask_for(headers=headers)
    assert client.is_model_ready("digits", headers=headers), "the model is still there"


def test_its_line_in_the_documentation_is_true(through):
    walk(through, "MLServer", "classifier")


def test_an_operator_whom_a_rule_names_reloads_a_model(through, client):
    headers = {"Authorization": f"Bearer {through.token('operator')}"}
    assert client.get_model_repository_index(headers=headers) == [{"name": "digits", "version": "v1", "state": "READY"}]
    client.load_model("digits", headers=headers)
    assert client.is_model_ready("digits", headers={"Authorization": f"Bearer {through.token()}"})


@pytest.mark.parametrize("path", ["infer_stream", "generate_stream"])
@pytest.mark.parametrize("role", ["classifier", "labeller"])
def test_streams_are_hardened_event_by_event(through, path, role):
    """MLServer takes the body of `/infer` on both, and answers with tensors in events."""
    flat = Question("POST", f"/v2/models/digits/{path}", ASKED["predict_proba"].body, ASKED["predict_proba"].headers)
    with through.client(through.token(role)) as http:
        answer = ask_through(http, flat)
    assert (answer.status, answer.media_type) == (200, "text/event-stream")
    (output,) = json.loads(answer.text.removeprefix("data: "))["outputs"]
    assert output["shape"] == [1, 10]
    assert seen(ask(through.server.url, flat), role)
    assert seen(answer, role) == []


@pytest.mark.parametrize("role", sorted(PROFILES))
@pytest.mark.parametrize("name", sorted(ASKED))
def test_no_answer_leaks(through, name, role):
    """Every question that MLServer was asked, good and wrong, with no path, name, version or digit too many."""
    with through.client(through.token(role)) as http:
        answer = ask_through(http, ASKED[name])
    assert leaks(answer) == []
    assert seen(answer, role) == []
    if answer.status >= 400:
        assert answer.media_type == "application/problem+json"
        assert json.loads(answer.body)["status"] == answer.status


def test_the_scanner_sees_what_the_server_leaks(through):
    """The scanner itself can fail: without the proxy, it finds tracebacks, software and digits."""
    for name in ("wrong_feature_count", "predict_proba", "server_metadata", "infer"):
        assert leaks(ask(through.server.url, ASKED[name])), name


def test_every_answer_has_its_records(through):
    with through.client() as http:
        refused = http.post("/v2/repository/index")
        failed = http.post("/v2/models/digits/infer", content=ASKED["wrong_feature_count"].body)
    records = [json.loads(line) for line in through.hip.journal().splitlines()]
    incident = refused.json()["instance"].removeprefix("urn:hip:incident:")
    (record,) = [entry for entry in records if entry.get("event") == incident]
    assert (record["type"], record["effect"], record["reason"]) == ("decision", "deny", "no_rule")
    incident = failed.json()["instance"].removeprefix("urn:hip:incident:")
    decision, completion = [entry for entry in records if entry.get("event") == incident]
    assert (decision["effect"], completion["upstream_status"]) == ("allow", 500)
    assert "ValueError" in completion["upstream_error"]["errors"]
    assert "alice" not in through.hip.journal()


def test_what_init_writes_serves(mlserver, tmp_path):
    with hip_init(mlserver, tmp_path / "hip") as begun:
        assert (begun.told["dialect"], begun.told["models"]) == ("oip-v2", {"digits": "digits"})
        assert begun.told["software"].startswith("mlserver 1.")
        assert begun.statuses() == ("200", "401")
        infer = QUESTIONS["mlserver"]["infer"]
        assert begun.ask(infer).json()["outputs"][0]["data"] == [3]
        assert begun.ask(infer, token="nonsense").status_code == 401
