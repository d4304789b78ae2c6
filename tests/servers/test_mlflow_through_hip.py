"""MLflow with `hip serve` before it: four forms of a request, one form of an answer, and nothing of its own words."""

import json
from collections.abc import Iterator

import pytest

from tests.oracle.scanner import Profile, findings
from tests.servers.asking import ask
from tests.servers.questions import QUESTIONS
from tests.servers.running import RunningServer
from tests.servers.through import DECIMALS, Through, ask_through, hip_before, leaks

ASKED = QUESTIONS["mlflow"]
FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")


@pytest.fixture(scope="session")
def through(mlflow: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    with hip_before(mlflow, "mlflow", tmp_path_factory.mktemp("hip-mlflow")) as running:
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


def test_health_is_open_and_the_rest_is_closed(through):
    with through.client() as http:
        assert http.get("/ping").status_code == http.get("/health").status_code == 200
        for path in ("/version", "/docs", "/openapi.json", "/metrics", "/"):
            assert http.get(path).status_code == 404


def test_the_trail_names_the_model_that_the_path_does_not(through):
    with through.client() as http:
        assert ask_through(http, ASKED["two_rows"]).status == 200
    records = [json.loads(line) for line in through.hip.journal().splitlines()]
    (decision,) = [record for record in records if record["type"] == "decision"][-1:]
    assert (decision["model"], decision["dialect"], decision["spent"]["rows"]) == ("digits", "mlflow", 2)
