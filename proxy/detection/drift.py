"""Whether recent traffic is still like the data that a detector was calibrated on. Pure: judgements in, findings out.

Two tests for each model and version. Alarms: are there more than the promised rate makes likely? The rate that one
calibration really has is itself uncertain (Vovk 2012: it follows Beta(l, n + 1 - l), with l = floor(alpha * (n + 1))),
so the tail is that of a Poisson count over this distribution. Scores: are those of requests with one row from the same
distribution as the calibration's (two-sample Kolmogorov-Smirnov, which is the test of uniformity of their p-values
that knows how many scores the calibration has)?

A caller counts with its last PER_CALLER different inputs, and the one with the most alarms not at all, as long as the
others are enough: many unrelated callers who drift at once are a reason to calibrate anew, one who drifts is a
suspicion. Not guaranteed: that drift is innocent, since several attackers look like it. Look before you fit again.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import Learned

PER_CALLER = 200  # requests of one caller that count
MIN_REQUESTS = 100  # below which nothing is said
SIGNIFICANT = 0.001  # of either test: a check a day is wrong once in a year and a half
BINS = 10  # of the p-values
_GRID = 400  # points of the Beta distribution
_EXACT_ALARMS = 10_000  # above which a normal distribution is as good as Poisson's


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a detector said of one request, as the journal has it."""

    model: str
    version: str
    caller: str
    input: str  # equal for equal inputs
    p_value: float
    statistic: float
    rows: int
    suspicious: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """What the tests say of one model and version. A probability is None where there is nothing to test."""

    model: str
    version: str
    requests: int  # judged
    tested: int
    callers: int
    alarms: int  # of the tested
    expected: float
    alarm_probability: float | None
    ks: float | None  # the distance of the two distributions
    ks_probability: float | None
    bins: tuple[int, ...]  # p-values of requests with one row, in tenths from 0 to 1
    busiest: float  # share of all callers' alarms that are one caller's

    @property
    def enough(self) -> bool:
        """Say whether there was enough to test."""
        return self.tested >= MIN_REQUESTS

    @property
    def drifted(self) -> bool:
        """Say whether either test says so."""
        found = (self.alarm_probability, self.ks_probability)
        return self.enough and any(one is not None and one < SIGNIFICANT for one in found)


@dataclass
class _Seen:
    requests: int = 0
    callers: dict[str, dict[str, Judgement]] = field(default_factory=dict)  # by input


def drifts(facts: Learned, judgements: Iterable[Judgement]) -> list[Drift]:
    """Return the findings, by model and version. The judgements come in order of time."""
    groups: dict[tuple[str, str], _Seen] = {}
    for one in judgements:
        seen = groups.setdefault((one.model, one.version), _Seen())
        seen.requests += 1
        kept = seen.callers.setdefault(one.caller, {})
        kept.setdefault(one.input, one)
        if len(kept) > PER_CALLER:
            del kept[next(iter(kept))]
    return [_tested(facts, *names, groups[names]) for names in sorted(groups)]


def _tested(facts: Learned, model: str, version: str, seen: _Seen) -> Drift:
    tested = [one for kept in seen.callers.values() for one in kept.values()]
    by_caller = Counter(one.caller for one in tested if one.suspicious)
    alarms = by_caller.total()
    busiest = max(by_caller, key=lambda caller: by_caller[caller], default=None)
    others = [one for one in tested if one.caller != busiest]
    tested = others if len(others) >= MIN_REQUESTS else tested
    counted = sum(one.suspicious for one in tested)
    rows = np.array([one.rows for one in tested])
    single = [one for one in tested if one.rows == 1]
    distance = probability = alarmed = None
    if len(tested) >= MIN_REQUESTS:
        alarmed = _alarm_probability(facts, rows, counted)
    if len(single) >= MIN_REQUESTS:
        distance, probability = _two_samples(np.array([one.statistic for one in single]), facts.calibration)
    counts, _ = np.histogram([one.p_value for one in single], bins=BINS, range=(0, 1))
    return Drift(
        model=model,
        version=version,
        requests=seen.requests,
        tested=len(tested),
        callers=len(seen.callers),
        alarms=counted,
        expected=float((1 - (1 - _promised(facts)) ** rows).sum()),
        alarm_probability=alarmed,
        ks=distance,
        ks_probability=probability,
        bins=tuple(counts.tolist()),
        busiest=max(by_caller.values(), default=0) / max(alarms, 1),
    )


def _promised(facts: Learned) -> float:
    """Return the mean rate of ordinary rows above the threshold: alpha, rounded down to what n scores can tell."""
    n = len(facts.calibration)
    return math.floor(facts.alpha * (n + 1) + 1e-9) / (n + 1)


def _alarm_probability(facts: Learned, rows: NDArray[np.int64], alarms: int) -> float:
    """Return how likely at least so many alarms are, if nothing has changed."""
    n = len(facts.calibration)
    below = max(math.floor(facts.alpha * (n + 1) + 1e-9), 1)
    rates = (np.arange(_GRID) + 0.5) / _GRID * min(1.0, 12 * below / (n + 1))
    log_density = (below - 1) * np.log(rates) + (n - below) * np.log1p(-rates)
    weights = np.exp(log_density - log_density.max())
    sizes, counts = np.unique(rows, return_counts=True)
    expected = ((1 - (1 - rates[:, None]) ** sizes) * counts).sum(axis=1)
    return float((weights * _at_least(alarms, expected)).sum() / weights.sum())


def _at_least(count: int, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that a Poisson variable with each of these means is at least `count`."""
    if count == 0:
        return np.ones(len(expected))
    if count > _EXACT_ALARMS:
        scaled = (count - 0.5 - expected) / np.sqrt(2 * expected)
        return np.array([0.5 * math.erfc(one) for one in scaled])
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count)))])
    below = np.zeros(len(expected))
    for number, log_factorial in enumerate(log_factorials):
        below += np.exp(number * np.log(expected) - expected - log_factorial)
    return np.clip(1 - below, 0.0, 1.0)


def _two_samples(first: NDArray[np.float64], second: NDArray[np.float32]) -> tuple[float, float]:
    """Return the two-sample distance of Kolmogorov and Smirnov, and its asymptotic probability (Stephens 1970)."""
    one, other = np.sort(first.astype(np.float32)), np.sort(second)
    every = np.concatenate([one, other])
    below = one.searchsorted(every, "right") / len(one) - other.searchsorted(every, "right") / len(other)
    distance = float(np.abs(below).max())
    effective = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    scaled = (effective + 0.12 + 0.11 / effective) * distance
    if scaled < 0.2:  # the series does not converge, and the probability is 1 in all its digits
        return distance, 1.0
    terms = [2 * (-1) ** (term - 1) * math.exp(-2 * (term * scaled) ** 2) for term in range(1, 101)]
    return distance, min(max(math.fsum(terms), 0.0), 1.0)
