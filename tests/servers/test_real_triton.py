"""Triton as it comes, before the proxy stands there: scores in four forms, and its management on the same port."""

import json

import pytest

from tests.servers.asking import answered, differences
from tests.servers.running import RunningServer


def test_triton_answers_as_recorded(triton: RunningServer) -> None:
    assert differences(triton) == []


def test_triton_gives_scores_and_logits(triton: RunningServer) -> None:
    """A second output holds the logits: hardening the first alone hardens nothing."""
    outputs = {output["name"]: output for output in answered(triton, "infer").json()["outputs"]}
    assert outputs.keys() == {"probabilities", "logits"}
    assert sum(outputs["probabilities"]["data"]) == pytest.approx(1)


def test_triton_hides_scores_in_strings(triton: RunningServer) -> None:
    """The classification extension: a BYTES tensor of score:index:label."""
    (output,) = answered(triton, "classification").json()["outputs"]
    assert output["datatype"] == "BYTES"
    score, index, label = output["data"][0].split(":")
    assert (0.9 < float(score) < 1, index, label) == (True, "3", "three")


def test_triton_answers_in_binary(triton: RunningServer) -> None:
    """JSON of the length that a header tells, then 40 raw bytes: ten scores that no JSON reader sees."""
    answer = answered(triton, "binary_output")
    end = int(dict(answer.headers)["Inference-Header-Content-Length"])
    (output,) = json.loads(answer.body[:end])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answer.body) - end == 40


def test_triton_answers_with_a_traceback(triton: RunningServer) -> None:
    """A bare NaN in JSON reaches the model; what the model raises comes back with its file and line."""
    answer = answered(triton, "not_a_number")
    assert answer.status == 500
    assert "model.py" in answer.text


@pytest.mark.parametrize(
    "title",
    ["config", "statistics", "trace_setting", "logging", "system_shared_memory", "repository_index", "generate"],
)
def test_triton_management_is_open(triton: RunningServer, title: str) -> None:
    assert answered(triton, title).status == 200
