"""What an attacker brings along: inputs of its own, and what it can learn from them without asking anybody."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import DetectorFacts
from proxy.detection.fit import Subject, fit, sketches, statistics
from proxy.errors import ConfigError
from proxy.simulate.session import Rows

OWN_ALPHA = 0.2  # the attacker's own detector: stricter than ours, so that what passes it passes ours
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """`own` is the attacker's, `judged` is where its copy is compared with the target; `members` trained the target."""

    own: Rows
    own_labels: Labels | None
    judged: Rows
    truth: Labels  # what the target says of `judged`
    classes: int
    members: Rows | None = None

    @property
    def features(self) -> int:
        """How many numbers a row has."""
        return int(self.own.shape[1])

    def uniform(self, count: int, rng: np.random.Generator) -> Rows:
        """Return noise in the range of ordinary inputs."""
        low, high = self.own.min(axis=0), self.own.max(axis=0)
        return rng.uniform(low, np.where(high > low, high, low + 1), (count, self.features))

    def natural(self, count: int, rng: np.random.Generator) -> Rows:
        """Return inputs of the attacker's own."""
        return self.own[rng.integers(len(self.own), size=count)]


class OwnDetector:
    """A detector that the attacker fits to its own inputs, to guess what ours will say."""

    def __init__(self, own: Rows) -> None:
        self._facts: DetectorFacts = fit(own, Subject("the attacker's own inputs", ("target",)), OWN_ALPHA)
        self._asked = np.empty((0, self._facts.projection.shape[1]), np.float32)

    def passes(self, row: Rows) -> bool:
        """Say whether it looks ordinary and lies apart from what was asked before; then it is noted as asked."""
        numbers = row[None].astype(np.float32)
        if statistics(self._facts, numbers)[0] > self._facts.threshold:
            return False
        sketch = sketches(self._facts, numbers)
        if len(self._asked) and np.linalg.norm(self._asked - sketch, axis=1).min() <= 1.5 * self._facts.tau:
            return False
        self._asked = np.vstack([self._asked, sketch])
        return True

    def on_grid(self, row: Rows) -> Rows:
        """Return the nearest row of which each number lies on the grid of the attacker's own inputs."""
        gate = self._facts.gate
        inverse = gate.inverse_step.astype(np.float64)
        step = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)
        snapped: Rows = gate.origin + np.round((row - gate.origin) * inverse) * step
        return np.where(inverse > 0, snapped, row)


def own_detector(own: Rows) -> OwnDetector | None:
    """Return the attacker's detector, or None where its inputs do not support one."""
    try:
        return OwnDetector(own)
    except ConfigError:
        return None
