"""Baselines and what counts as a change of them."""

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from proxy.detection.golden import (
    WHOLLY,
    Delta,
    Expected,
    Golden,
    Tolerance,
    compare,
    metadata_digest,
    outputs,
    read_golden,
)
from proxy.errors import ConfigError, RequestError

SCORES = (0.7123456, 0.2876544, 0.1000001, 0.8999999)
GOLDEN = Golden(1, "/v2/models/iris", "{}", "m", 0.01, (Expected("p", (2, 2), SCORES),))
EXACT = Tolerance(0.0, 1e-5, None)


def found(*scores: float, name: str = "p", shape: tuple[int, ...] = (2, 2)) -> tuple[Expected, ...]:
    return (Expected(name, shape, scores),)


def test_the_same_answer_is_no_change() -> None:
    delta = compare(GOLDEN, found(*SCORES), "m", 0.01)
    assert delta == Delta(0.0, 0.0, False, False, 1.0)
    assert delta.beyond(EXACT) == ()
    assert compare(GOLDEN, found(*(score + 1e-7 for score in SCORES)), "m", 0.01).beyond(EXACT) == ()


@pytest.mark.parametrize(
    ("answer", "metadata", "seconds", "words"),
    [
        (found(0.2876544, 0.7123456, *SCORES[2:]), "m", 0.01, ("50.0% of the labels flipped", "a score moved by 0.42")),
        (found(0.7123, 0.2877, 0.1, 0.9), "m", 0.01, ("a score moved by 4.6e-05", "another number of decimals")),
        (found(*SCORES), "other", 0.01, ("the metadata changed",)),
        (found(*SCORES), "m", 0.05, ("5.0 times as slow",)),
        (found(*SCORES, name="q"), "m", 0.01, ("100.0% of the labels flipped", "moved by 1e+09")),
        (found(*SCORES, shape=(4,)), "m", 0.01, ("100.0% of the labels flipped", "moved by 1e+09")),
        (found(np.nan, *SCORES[1:]), "m", 0.01, ("a score moved by 1e+09",)),
    ],
)
def test_each_kind_of_change_is_told(answer, metadata, seconds, words) -> None:
    told = compare(GOLDEN, answer, metadata, seconds).beyond(replace(EXACT, slower=3.0))
    assert len(told) >= len(words)
    for word in words:
        assert any(word in one for one in told), told


def test_a_replaced_model_does_not_hide_in_nested_lists() -> None:
    """A caller gets such an answer: `failed` would be forever, and never a quarantine."""
    answer = {"outputs": [{"name": "p", "datatype": "FP32", "shape": [2, 2], "data": [SCORES[:2], SCORES[2:]]}]}
    assert outputs(json.dumps(answer).encode()) == GOLDEN.outputs
    answer["outputs"][0]["data"] = [SCORES[2:], SCORES[:2]]
    assert compare(GOLDEN, outputs(json.dumps(answer).encode()), "m", 0.01).flips > 0


def test_what_the_tolerance_allows_is_no_change() -> None:
    moved = compare(GOLDEN, found(0.2876544, 0.7123456, *SCORES[2:]), "m", 1.0)
    assert moved.beyond(Tolerance(0.5, 0.5, None)) == ()


def test_a_model_that_answers_labels_is_compared_by_them() -> None:
    golden = msgspec.structs.replace(GOLDEN, outputs=(Expected("label", (3,), (1.0, 2.0, 3.0)),))
    delta = compare(golden, (Expected("label", (3,), (1.0, 2.0, 4.0)),), "m", 0.01)
    assert delta.flips == pytest.approx(1 / 3)


def test_metadata_in_another_order_is_the_same() -> None:
    assert metadata_digest(b'{"a": 1, "b": 2}') == metadata_digest(b'{"b":2,"a":1}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"outputs": []}',
        b'{"outputs": [{"name": "p", "datatype": "FP32", "shape": [2], "data": [1]}]}',
        b'{"outputs": [{"name": "p", "datatype": "FP32", "shape": [1], "data": ["x"]}]}',
        b'{"outputs": [{"name": "p", "datatype": "FP32", "shape": [3], "data": [1, [2, 3]]}]}',
        b'{"outputs": [{"name": "p", "datatype": "FP32", "shape": [1], "data": {"0": 1}}]}',
        b'{"outputs": [{"name": "p", "datatype": "FP32", "shape": [1], "data": [1%s]}]}' % (b"0" * 400),
        b'{"outputs": [{"name": "p", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}',
        b"[" * 100_000,
    ],
)
def test_an_answer_that_cannot_be_read_is_the_upstreams_fault(body) -> None:
    with pytest.raises(RequestError):
        outputs(body)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"model": "/v2/repository"},
        {"model": "/v2/models/iris/infer HTTP/1.1\r\nx: y"},
        {"seconds": 0.0},
        {"outputs": []},
        {"outputs": [{"name": "p", "shape": [2], "values": [1.0]}]},
        {"more": 1},
    ],
)
def test_a_baseline_that_is_none_is_refused(change) -> None:
    good = msgspec.to_builtins(GOLDEN)
    assert read_golden(json.dumps(good).encode(), "file") == GOLDEN
    with pytest.raises(ConfigError, match="file: not a baseline"):
        read_golden(json.dumps(good | change).encode(), "file")


def test_wholly_is_a_number_that_json_has() -> None:
    assert json.loads(json.dumps(WHOLLY)) == WHOLLY
