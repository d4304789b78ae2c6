"""MLflow with `hip serve` before it: four forms of a request, one form of an answer, and nothing of its own words."""

import json
from collections.abc import Iterator

import pytest

from tests.oracle.scanner import Profile, findings
from tests.servers.asking import ask
from tests.servers.begun import hip_init
from tests.servers.questions import QUESTIONS
from tests.servers.roads import walk
from tests.servers.running import RunningServer
from tests.servers.through import DECIMALS, Through, ask_through, hip_before, leaks

ASKED = QUESTIONS["mlflow"]
FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
TUNERS = f"""\
version: v1
outputs:
  two: {{decimals: {DECIMALS}, top_k: 2}}
parameters:
  tuning: {{params: allow}}
rules:
  - id: tuners
    allow: {{roles: [tuner], actions: [infer], models: [digits]}}
    budget: plenty
    output: two
    parameters: tuning
"""


@pytest.fixture(scope="session")
def through(mlflow: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    directory = tmp_path_factory.mktemp("hip-mlflow")
    (directory / "policy").mkdir()
    (directory / "policy" / "tuners.yaml").write_text(TUNERS)
    with hip_before(mlflow, "mlflow", directory) as running:
        yield running


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gets_rounded_scores_and_the_same_winner(through, form):
    raw = ask(through.server.url, ASKED[form]).json()["predictions"]
    with through.client() as http:
        shown = ask_through(http, ASKED[form]).json()["predictions"]
    assert len(shown) == len(raw) == 1
    assert shown[0].index(max(shown[0])) == raw[0].index(max(raw[0]))
    assert all(round(score, DECIMALS) == score for score in shown[0])
    assert any(round(score, DECIMALS) != score for score in raw[0])


@pytest.mark.parametrize("name", sorted(ASKED))
def test_no_answer_leaks(through, name):
    """Every question that MLflow was asked, good and wrong, with no path, name, version or digit too many."""
    with through.client() as http:
        answer = ask_through(http, ASKED[name])
    assert leaks(answer) == []
    rows = 2 if name == "two_rows" else 1
    headers = {header.lower(): value for header, value in answer.headers}
    assert findings(headers, answer.body, Profile(decimals=DECIMALS, rows=rows)) == []
    if answer.status >= 400:
        assert answer.media_type == "application/problem+json"


def test_the_scanner_sees_what_the_server_leaks(through):
    """The scanner itself can fail: without the proxy, it finds tracebacks, software and digits."""
    for name in ("inputs", "not_a_number", "wrong_feature_count"):
        assert leaks(ask(through.server.url, ASKED[name])), name


def test_params_reach_the_model_where_a_rule_allows_them(through):
    body = json.loads(ASKED["inputs"].body) | {"params": {"temperature": 0.5}}
    for role, status in (("analyst", 400), ("tuner", 200)):
        with through.client(through.token(role)) as http:
            answer = http.post("/invocations", json=body)
        assert answer.status_code == status
    (scores,) = answer.json()["predictions"]
    assert 1 <= sum(score > 0 for score in scores) <= 2


def test_parquet_stays_outside(through):
    with through.client() as http:
        headers = {"content-type": "application/vnd.apache.parquet"}
        assert http.post("/invocations", content=b"PAR1", headers=headers).status_code == 415


def test_health_is_open_and_the_rest_is_closed(through):
    with through.client() as http:
        assert http.get("/ping").status_code == http.get("/health").status_code == 200
        for path in ("/version", "/docs", "/openapi.json", "/metrics", "/"):
            assert http.get(path).status_code == 404
        refused = http.get("/invocations")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_its_line_in_the_documentation_is_true(through):
    walk(through, "MLflow", "analyst")


def test_the_trail_names_the_model_that_the_path_does_not(through):
    with through.client() as http:
        assert ask_through(http, ASKED["two_rows"]).status == 200
    records = [json.loads(line) for line in through.hip.journal().splitlines()]
    (decision,) = [record for record in records if record["type"] == "decision"][-1:]
    assert (decision["model"], decision["dialect"], decision["spent"]["rows"]) == ("digits", "mlflow", 2)


def test_what_init_writes_serves(mlflow, tmp_path):
    with hip_init(mlflow, tmp_path / "hip") as begun:
        assert (begun.told["dialect"], begun.told["models"]) == ("mlflow", {"model": "model"})
        assert begun.statuses() == ("200", "401")
        answer = begun.ask(ASKED["two_rows"])
        assert answer.status_code == 200
        scores = [score for row in answer.json()["predictions"] for score in row]
        assert all(round(score, DECIMALS) == score for score in scores)
        assert begun.ask(ASKED["two_rows"], token="nonsense").status_code == 401
