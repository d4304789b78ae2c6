"""Triton with `hip serve` before it, driven by the stock client: every road to its scores, and every road closed."""

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
from tests.servers.through import DECIMALS, Through, ask_through, hip_before, leaks

ASKED = QUESTIONS["triton"]
ROWS = scaled(load_digits().heldout[:16])


@pytest.fixture(scope="session")
def through(triton: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    with hip_before(triton, "oip-v2", open_roads(tmp_path_factory.mktemp("hip-triton"))) as running:
        yield running


@pytest.fixture
def client(through: Through) -> Iterator[triton.InferenceServerClient]:
    stock = triton.InferenceServerClient(
        f"localhost:{through.hip.port}", ssl=True, ssl_context_factory=through.hip.trust
    )
    yield stock
    stock.close()


@pytest.fixture
def direct(through: Through) -> Iterator[triton.InferenceServerClient]:
    stock = triton.InferenceServerClient(through.server.url.removeprefix("http://"))
    yield stock
    stock.close()


def asking(rows: np.ndarray, *, binary: bool) -> list[triton.InferInput]:
    wanted = triton.InferInput("x", list(rows.shape), "FP32")
    wanted.set_data_from_numpy(rows, binary_data=binary)
    return [wanted]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None], ids=["json", "binary", "as it comes"])
def test_the_stock_client_gets_rounded_scores_and_the_same_winners(through, client, direct, binary_in, binary_out):
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("probabilities", "logits")]
    inputs = asking(ROWS, binary=binary_in)
    shown = client.infer("digits", inputs, outputs=outputs, headers={"Authorization": f"Bearer {through.token()}"})
    raw = direct.infer("digits", inputs, outputs=outputs)
    for name in ("probabilities", "logits"):
        ours, theirs = shown.as_numpy(name), raw.as_numpy(name)
        assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()
        assert np.abs(ours - theirs).max() < 0.02
        assert (np.round(ours.astype(np.float64), DECIMALS).astype(np.float32) == ours).all()
        assert not (np.round(theirs.astype(np.float64), DECIMALS).astype(np.float32) == theirs).all()
    form = shown.get_output("probabilities")
    assert ("binary_data_size" in form.get("parameters", {})) is (binary_out is not False)


def test_the_stock_client_reads_metadata_and_health(through, client):
    headers = {"Authorization": f"Bearer {through.token()}"}
    assert client.is_server_live(headers=headers)
    assert client.is_model_ready("digits", headers=headers)
    metadata = client.get_model_metadata("digits", headers=headers)
    assert [one["name"] for one in metadata["outputs"]] == ["probabilities", "logits"]


def test_the_classification_extension_is_closed_unless_a_rule_opens_it(through, client):
    outputs = [triton.InferRequestedOutput("probabilities", class_count=3)]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(
            "digits",
            asking(ROWS[:1], binary=True),
            outputs=outputs,
            headers={"Authorization": f"Bearer {through.token()}"},
        )
    assert "400" in str(caught.value)


def test_a_rule_that_opens_it_caps_and_hardens_it(through, client):
    """Nine classes asked for, five forwarded, two told: two strings a row, in a tensor of that shape."""
    outputs = [triton.InferRequestedOutput("probabilities", class_count=9)]
    headers = {"Authorization": f"Bearer {through.token('classifier')}"}
    shown = client.infer("digits", asking(ROWS, binary=True), outputs=outputs, headers=headers)
    classes = shown.as_numpy("probabilities")
    assert classes.shape == (len(ROWS), 2)
    best, second = (float(text.partition(b":")[0]) for text in classes[0])
    assert best > second


def test_streams_are_hardened_event_by_event(through):
    flat = Question("POST", "/v2/models/digits/generate_stream", ASKED["generate"].body, ASKED["generate"].headers)
    assert seen(ask(through.server.url, flat))
    for role in ("classifier", "labeller"):
        with through.client(through.token(role)) as http:
            answer = ask_through(http, flat)
        assert (answer.status, answer.media_type) == (200, "text/event-stream")
        event = json.loads(answer.text.removeprefix("data: "))
        assert event.keys() == {"model_name", "probabilities", "logits"}
        assert seen(answer, role) == []
    with through.client() as http:
        assert ask_through(http, flat).status == 403, "the analysts' rule does not allow streams"


def test_a_flat_list_of_two_rows_is_a_batch_and_refused(through):
    """Triton answers a batch of two; hip could charge it as one row only, so the rule says how long a row is."""
    two = Question("POST", "/v2/models/digits/generate", json.dumps({"x": [0.5] * 128}).encode())
    assert len(ask(through.server.url, two).json()["probabilities"]) == 20
    with through.client(through.token("classifier")) as http:
        assert ask_through(http, two).status == 400
        assert ask_through(http, ASKED["generate"]).status == 200


@pytest.mark.parametrize("role", sorted(PROFILES))
@pytest.mark.parametrize("name", sorted(ASKED))
def test_no_answer_leaks(through, name, role):
    """Every question that Triton was asked, good and wrong: the oracle finds nothing, nor does the scanner."""
    with through.client(through.token(role)) as http:
        answer = ask_through(http, ASKED[name])
    assert seen(answer, role) == []
    if "inference-header-content-length" not in {key.lower() for key, _ in answer.headers}:
        assert leaks(answer) == []
    if answer.status >= 400:
        assert answer.media_type == "application/problem+json"
        assert json.loads(answer.body)["status"] == answer.status


@pytest.mark.parametrize("name", ["infer", "binary_output", "classification", "binary_output_of_all", "generate"])
def test_the_oracle_sees_what_the_server_tells(through, name):
    assert seen(ask(through.server.url, ASKED[name]))


MANAGEMENT = [
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/evil/load"),
    ("POST", "/v2/repository/models/digits/unload"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/x/register"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/cudasharedmemory/region/x/register"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/models/digits/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/models/digits/config"),
    ("GET", "/v2/models/digits/stats"),
    ("GET", "/v2/models/stats"),
    ("GET", "/metrics"),
    ("GET", "/v2/docs"),
    ("GET", "/v2/models/digits/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
]


@pytest.mark.parametrize(("method", "path"), MANAGEMENT)
def test_management_is_refused_before_the_upstream(through, method, path):
    """One record and no more: a request that was forwarded has a pair of them."""
    with through.client() as http:
        answer = ask_through(http, Question(method, path, b"{}" if method == "POST" else b""))
    assert answer.status in {403, 404, 405}
    incident = json.loads(answer.body)["instance"].removeprefix("urn:hip:incident:")
    records = [json.loads(line) for line in through.hip.journal().splitlines() if incident in line]
    assert [(record["type"], record["effect"]) for record in records] == [("decision", "deny")]


def test_its_line_in_the_documentation_is_true(through):
    walk(through, "Triton", "classifier")


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("repository_index", {"name", "version", "state"}),
        ("statistics", {"model_stats"}),
        ("all_statistics", {"model_stats"}),
        ("config", {"name", "max_batch_size", "input", "output"}),
    ],
)
def test_what_a_rule_opens_is_answered_in_its_own_words(through, title, keys):
    with through.client(through.token("operator")) as http:
        answer = ask_through(http, QUESTIONS["triton"][title])
        assert http.post("/v2/repository/models/digits/load", json={"parameters": {"config": "{}"}}).status_code == 400
        assert http.get("/v2/docs").status_code == 403
    found = json.loads(answer.body)
    assert (answer.status, set(found[0] if isinstance(found, list) else found)) == (200, keys)


def test_what_init_writes_serves(triton, tmp_path):
    """Triton says what its inputs are, so that the first request is one of ours, in the model's own shape."""
    with hip_init(triton, tmp_path / "hip") as begun:
        assert (begun.told["dialect"], begun.told["models"]) == ("oip-v2", {"digits": "digits"})
        assert begun.told["inputs"] == {"digits": ["x: FP32 [-1, 64]"]}
        assert begun.next(3).endswith("/v2/models/digits/infer")
        assert begun.statuses() == ("200", "401")
        infer = QUESTIONS["triton"]["infer"]
        answer = begun.ask(infer).json()
        assert all(round(score, 2) == round(score, 6) for output in answer["outputs"] for score in output["data"])
        assert begun.ask(infer, token="nonsense").status_code == 401
        assert begun.ask(QUESTIONS["triton"]["repository_index"]).status_code == 403
