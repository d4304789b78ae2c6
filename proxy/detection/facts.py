"""What a detector knows: the numbers of its graph, its calibration, and where they come from.

A row's statistic is the larger of Hotelling's T² and the squared prediction error (Jackson and Mudholkar 1979), each
divided by what 99 % of the fitted rows stay below, plus BREACH for every feature outside of the gate. One statistic, so
one calibration and one false-alarm rate for both; where ordinary rows breach the gate too, it counts for less.

Its p-value is split-conformal (Vovk, Gammerman, Shafer 2005; Bates et al. 2023):
p = (1 + #{calibration >= s}) / (n + 1). Guaranteed: over draws of the data, an ordinary row has p <= alpha at most
alpha of the time. Not guaranteed: that rate for a batch of many rows (the strangest counts), for traffic that is no
longer like the data, or for one unlucky calibration set, whose rate varies by about sqrt(alpha / n).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from proxy.detection.picture import Picture
from proxy.exchange import Score

Floats = NDArray[np.float32]

BREACH = 10.0  # per breached feature. Measured: 1 misses attacks on tables, 1000 hides all else behind rare breaches
SKETCH = 64  # numbers of a sketch
MAX_DEVIATION = 1e6  # standard deviations; more is no stranger, and the squares stay far inside float32


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """What each feature looked like: |x - centre| <= half_width, and (x - origin) * inverse_step is a whole number.

    `inverse_step` 0: the feature has no grid.
    """

    centre: Floats
    half_width: Floats
    origin: Floats
    inverse_step: Floats


@dataclass(frozen=True, eq=False)
class Learned:
    """What every kind of detector holds: where it comes from, and its calibration."""

    models: tuple[str, ...]  # whose inputs these are
    names: tuple[str, ...]  # of the features; empty: nobody named them
    rows: int  # that it learned from
    data_sha256: str  # of these rows as little-endian float32, row by row; of texts, each with its length before it
    alpha: float  # the target false-alarm rate
    tau: float  # sketches nearer than this are near-duplicates
    calibration: Floats  # sorted statistics of held-out rows

    @cached_property
    def threshold(self) -> float:
        """The statistic above which a row is suspicious."""
        n = len(self.calibration)
        above = int(np.searchsorted(p_of_count(np.arange(n + 1), n), self.alpha, "right")) - 1
        return float(self.calibration[n - 1 - above])

    def p_values(self, statistics: Floats) -> NDArray[np.float64]:
        """Return the conformal p-value of each statistic."""
        n = len(self.calibration)
        return p_of_count(n - self.calibration.searchsorted(statistics), n)

    def score(self, statistics: Floats) -> Score:
        """Return the score of the strangest row."""
        row = int(statistics.argmax())
        statistic = statistics[row]
        p_value = float(self.p_values(statistic))
        return Score(p_value, self.alpha, float(statistic), self.threshold, row, len(statistics))


@dataclass(frozen=True, eq=False)
class DetectorFacts(Learned):
    """A detector of numbers: tables, tensors, images. z = (x - mean) * inverse_scale, where x is a row as received.

    Of an image, x is what `proxy.detection.picture` makes of it; its gate is about the pixels themselves.
    """

    mean: Floats
    inverse_scale: Floats
    components: Floats  # (features, components): the principal axes of z
    t2_weights: Floats  # per component: 1 / (variance * scale of T²)
    spe_weight: float  # 1 / scale of the squared prediction error; 0: the components leave no residual
    projection: Floats  # (features, SKETCH)
    gate: Gate
    picture: Picture | None = None  # how a row is an image; None: it is not

    @property
    def features(self) -> int:
        """How many numbers a row has."""
        return len(self.gate.centre)


def p_of_count(higher: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return the p-value where `higher` of n calibration scores are at least as high."""
    return (1 + higher) / (n + 1)


def rows_for(alpha: float) -> int:
    """Return how many calibration rows the rate needs: no p-value is below 1 / (n + 1)."""
    n = max(int(1 / alpha) - 2, 1)
    while 1 / (n + 1) > alpha:
        n += 1
    return n
