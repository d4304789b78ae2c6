"""Drift: what recent judgements say about a calibration, and what one caller cannot make them say."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from sklearn.datasets import load_digits

from proxy.detection.drift import MIN_REQUESTS, PER_CALLER, SIGNIFICANT, Drift, Judgement, drifts
from proxy.detection.facts import DetectorFacts
from proxy.detection.fit import Subject, fit, statistics


@cache
def split(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rows = load_digits().data / 16
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows[order[::2]], rows[order[1::2]]


@cache
def facts(seed: int = 0) -> DetectorFacts:
    return fit(split(seed)[0], Subject("rows", ("digits",)), 0.01)


def judgements(
    learned: DetectorFacts, rows: np.ndarray, callers: int = 30, size: int = 1, start: int = 0, **said: str
) -> Iterator[Judgement]:
    """The journal of requests of `size` rows each, from so many callers in turn."""
    found = statistics(learned, rows.astype(np.float32))
    for number in range(len(found) // size):
        statistic = found[number * size : (number + 1) * size].max()
        yield Judgement(
            said.get("model", "digits"),
            said.get("version", ""),
            f"caller {start + number % callers}",
            said.get("input") or f"input {start + number}",
            float(learned.p_values(statistic)),
            float(statistic),
            size,
            bool(statistic > learned.threshold),
        )


def only(found: list[Drift]) -> Drift:
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("size", [1, 3])
def test_traffic_like_the_data_has_not_drifted(size) -> None:
    """Over splits: a probability of 0.001 leaves none of ten."""
    for seed in range(10):
        found = only(drifts(facts(seed), judgements(facts(seed), split(seed)[1], size=size)))
        assert (found.enough, found.drifted) == (True, False), seed
        assert (found.ks is None) == (size > 1)
        assert found.requests == 898 // size
        assert found.tested >= 0.9 * found.requests


def test_alarms_beyond_the_promise_are_drift() -> None:
    rows = split(0)[1].copy()
    rows[::20] = np.random.default_rng(0).random(rows[::20].shape)  # 5 % noise, of all callers
    found = only(drifts(facts(), judgements(facts(), rows)))
    assert found.drifted
    assert found.alarm_probability is not None
    assert found.alarm_probability < SIGNIFICANT
    assert found.alarms >= 40 > 3 * found.expected


def test_scores_of_another_distribution_are_drift_without_an_alarm() -> None:
    """Inputs that became too ordinary: none of them as strange as half of the data was."""
    rows = split(0)[1]
    rows = rows[statistics(facts(), rows.astype(np.float32)) < np.median(facts().calibration)]
    found = only(drifts(facts(), judgements(facts(), np.resize(rows, (300, 64)))))
    assert found.alarms == 0
    assert found.alarm_probability == 1.0
    assert found.drifted
    assert sum(found.bins[:5]) == 0


def test_models_and_versions_are_apart() -> None:
    noise = np.random.default_rng(0).random((200, 64))
    first = judgements(facts(), split(0)[1][:400], version="1")
    second = judgements(facts(), noise, version="2")
    found = drifts(facts(), [*first, *second])
    assert [(one.version, one.drifted) for one in found] == [("1", False), ("2", True)]


def test_one_caller_cannot_make_it_drift() -> None:
    """An attacker with thousands of strange inputs, among ordinary callers, counts with its last ones only."""
    noise = np.random.default_rng(0).random((5000, 64))
    ordinary = list(judgements(facts(), split(0)[1], callers=30))
    attack = list(judgements(facts(), noise, callers=1, start=10_000))
    found = only(drifts(facts(), [*ordinary, *attack]))
    assert (found.requests, found.tested, found.drifted) == (898 + 5000, 898, False)
    assert found.busiest > 0.8
    alone = only(drifts(facts(), attack))
    assert (alone.tested, alone.drifted, alone.busiest) == (PER_CALLER, True, 1.0)


def test_repeats_do_not_count() -> None:
    strange = np.random.default_rng(0).random((1, 64))
    again = list(judgements(facts(), np.repeat(strange, 500, axis=0), callers=1, input="the same"))
    found = only(drifts(facts(), [*judgements(facts(), split(0)[1]), *again]))
    assert not found.drifted
    assert only(drifts(facts(), again)).tested == 1


def test_too_little_traffic_says_nothing() -> None:
    noise = np.random.default_rng(0).random((MIN_REQUESTS - 1, 64))
    found = only(drifts(facts(), judgements(facts(), noise)))
    assert (found.enough, found.drifted, found.alarm_probability) == (False, False, None)
    assert drifts(facts(), []) == []


@pytest.mark.parametrize("alarms", [20_000, 400])
def test_any_number_of_alarms_has_a_probability(alarms) -> None:
    every = [Judgement("m", "", f"c{n}", f"i{n}", 0.001, 99.0, 1, suspicious=n < alarms) for n in range(40_000)]
    found = only(drifts(facts(), every))
    assert found.alarm_probability is not None
    assert (found.alarm_probability < SIGNIFICANT) == (alarms > 10_000)
