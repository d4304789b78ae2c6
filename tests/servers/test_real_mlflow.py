"""MLflow as it comes, before the proxy stands there: four roads to the same scores, stack traces, its schema."""

import pytest

from tests.servers.asking import answered, differences
from tests.servers.running import RunningServer


def test_mlflow_answers_as_recorded(mlflow: RunningServer) -> None:
    assert differences(mlflow) == []


@pytest.mark.parametrize("title", ["inputs", "instances", "dataframe_split", "dataframe_records"])
def test_mlflow_has_four_roads_to_the_same_scores(mlflow: RunningServer, title: str) -> None:
    (scores,) = answered(mlflow, title).json()["predictions"]
    assert sum(scores) == pytest.approx(1)
    assert scores == answered(mlflow, "inputs").json()["predictions"][0]


def test_mlflow_answers_with_a_stack_trace(mlflow: RunningServer) -> None:
    answer = answered(mlflow, "not_a_number")
    assert answer.status == 400
    assert "site-packages" in answer.json()["stack_trace"]


def test_mlflow_tells_its_schema_and_echoes_the_input(mlflow: RunningServer) -> None:
    assert "Tensor('float64', (-1, 64))" in answered(mlflow, "wrong_feature_count").text
    assert r"b'{\"inputs\":'" in answered(mlflow, "malformed_json").text
