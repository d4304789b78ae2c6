"""The copy that an attacker makes of what it was answered: a softmax regression, the kind that it can hope to solve.

A deeper copy can follow a deeper model further; against one, the figures are a lower bound of what leaks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy.simulate.session import Rows, Scores

SMALLEST = 0.5e-2  # a score of 0 with two decimals lies below it
STEPS = 400
RATE = 0.1  # Adam (Kingma and Ba 2015), whole batch
PENALTY = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """Weights of (features + 1, classes) over standardised rows."""

    mean: Rows
    scale: Rows
    weights: Rows

    def labels(self, rows: Rows) -> NDArray[np.int64]:
        """Return the copy's answers."""
        labels: NDArray[np.int64] = (_widened(rows, self.mean, self.scale) @ self.weights).argmax(axis=1)
        return labels


def copy_of(rows: Rows, scores: Scores) -> Copy:
    """Return the better of two copies: equations solved, and a model trained."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    scale = 1 / np.where(deviation > 0, deviation, 1.0)
    wide = _widened(rows, mean, scale)
    weights = [_trained(wide, scores)]
    if not np.isin(scores, (0, 1)).all():
        weights.append(_solved(wide, scores))
    return Copy(mean, scale, min(weights, key=lambda each: _loss(wide @ each, scores)))


def fidelity(copy: Copy, rows: Rows, labels: NDArray[np.int64]) -> float:
    """Return how often the copy says what the target says."""
    return float((copy.labels(rows) == labels).mean())


def _widened(rows: Rows, mean: Rows, scale: Rows) -> Rows:
    return np.hstack([(rows - mean) * scale, np.ones((len(rows), 1))])


def _solved(wide: Rows, scores: Scores) -> Rows:
    """Solve for the logits (Tramèr et al. 2016): a softmax has one linear equation for each row and pair of classes."""
    logits = np.log(np.clip(scores, SMALLEST if scores.min() == 0 else 1e-300, None))
    solved: Rows = np.linalg.lstsq(wide, logits - logits.mean(axis=1, keepdims=True), rcond=None)[0]
    return solved


def _trained(wide: Rows, scores: Scores) -> Rows:
    weights = np.zeros((wide.shape[1], scores.shape[1]))
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, STEPS + 1):
        gradient = wide.T @ (_softmax(wide @ weights) - scores) / len(wide) + PENALTY * weights
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weights -= RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weights


def _softmax(logits: Rows) -> Rows:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Rows = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _loss(logits: Rows, scores: Scores) -> float:
    return float(-(scores * np.log(np.clip(_softmax(logits), 1e-12, None))).sum(axis=1).mean())
