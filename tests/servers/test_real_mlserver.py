"""MLServer as it comes, before the proxy stands there: scores for who asks, tracebacks, an open repository."""

import pytest

from tests.servers.asking import answered, ask, differences
from tests.servers.questions import Question
from tests.servers.running import RunningServer


def test_mlserver_answers_as_recorded(mlserver: RunningServer) -> None:
    assert differences(mlserver) == []


def test_mlserver_gives_every_score_to_who_asks(mlserver: RunningServer) -> None:
    """The label unless the client asks; then all ten, with sixteen digits."""
    (label,) = answered(mlserver, "infer").json()["outputs"]
    assert (label["name"], label["data"]) == ("predict", [3])
    (scores,) = answered(mlserver, "predict_proba").json()["outputs"]
    assert scores["shape"] == [1, 10]
    assert max(len(repr(score)) for score in scores["data"]) > 15
    assert sum(scores["data"]) == pytest.approx(1)


@pytest.mark.parametrize("title", ["wrong_feature_count", "wrong_feature_count_html", "data_shorter_than_shape"])
def test_mlserver_answers_with_tracebacks(mlserver: RunningServer, title: str) -> None:
    """`debug` is on by default: file, line and library in a 500."""
    answer = answered(mlserver, title)
    assert answer.status == 500
    assert "Traceback" in answer.text
    assert "site-packages" in answer.text


def test_mlserver_echoes_the_input(mlserver: RunningServer) -> None:
    answer = answered(mlserver, "unknown_datatype")
    assert answer.status == 422
    assert "FP99" in answer.text


def test_mlserver_names_itself_in_headers(mlserver: RunningServer) -> None:
    assert {"server", "ce-source", "ce-modelid", "ce-requestid"} <= answered(mlserver, "infer").header_names


@pytest.mark.parametrize("path", ["/v2/docs", "/v2/models/digits/docs"])
def test_mlserver_documents_itself(mlserver: RunningServer, path: str) -> None:
    assert ask(mlserver.url, Question("GET", path)).status == 200


def test_mlserver_repository_is_open(mlserver: RunningServer) -> None:
    (entry,) = answered(mlserver, "repository_index").json()
    assert entry["name"] == "digits"
