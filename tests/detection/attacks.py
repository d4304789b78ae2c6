"""Attackers and ordinary clients, as streams of rows in [0, 1], against a target that answers labels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression

Rows = NDArray[np.float64]
Label = Callable[[Rows], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class World:
    """A data set in two halves, and a target trained on the first."""

    train: Rows
    test: Rows
    test_labels: NDArray[np.int64]
    target: LogisticRegression

    def label(self, row: Rows) -> int:
        return int(self.target.predict(row[None])[0])


@cache
def world(name: str, seed: int = 0) -> World:
    loader = {"digits": load_digits, "breast_cancer": load_breast_cancer}[name]
    rows, labels = loader(return_X_y=True)
    rows = rows / 16 if name == "digits" else (rows - rows.min(0)) / np.ptp(rows, axis=0)
    order = np.random.default_rng(seed).permutation(len(rows))
    rows, labels = rows[order], labels[order]
    half = len(rows) // 2
    target = LogisticRegression(max_iter=3000).fit(rows[:half], labels[:half])
    return World(rows[:half], rows[half:], labels[half:], target)


def uniform(of: World, count: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).random((count, of.test.shape[1]))


def smooth_patches(of: World, count: int, seed: int = 0) -> Rows:
    """Grey patches as photographs have them: neighbours are alike, nothing is a stroke."""
    side = int(of.test.shape[1] ** 0.5)
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(count, 2 * side, 2 * side))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-2, 3)) / 5
    corner = side // 2
    patches = noise[:, corner : corner + side, corner : corner + side].reshape(count, -1)
    return np.clip(patches * 0.5 + generator.random((count, 1)), 0, 1)


def fgsm(of: World, step: float) -> Rows:
    """Goodfellow et al. 2015, with the target's own gradient."""
    weights = of.target.coef_ if len(of.target.coef_) > 1 else np.vstack([-of.target.coef_, of.target.coef_])
    wrong = of.target.predict_proba(of.test) - np.eye(len(weights))[of.test_labels]
    return np.clip(of.test + step * np.sign(wrong @ weights), 0, 1)


def mixup(of: World, count: int, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    first, second = of.test[generator.integers(len(of.test), size=(2, count))]
    share = generator.uniform(0.3, 0.7, (count, 1))
    return first * share + second * (1 - share)


def natural(of: World, count: int, seed: int = 0) -> Rows:
    """An attacker, or anybody, with ordinary data of its own."""
    return of.test[np.random.default_rng(seed).integers(len(of.test), size=count)]


def bisection(of: World, count: int, seed: int = 0) -> Rows:
    """Search the boundary between two ordinary rows of different labels, again and again."""

    def stream() -> Iterator[Rows]:
        generator = np.random.default_rng(seed)
        while True:
            yield from _halvings(of, *_pair(of, generator), steps=16)[0]

    return np.array(list(islice(stream(), count)))


def hop_skip_jump(of: World, count: int, seed: int = 0) -> Rows:
    """Chen, Jordan, Wainwright 2020, reduced: halve to the boundary, estimate its normal, jump, repeat."""
    generator = np.random.default_rng(seed)

    def stream() -> Iterator[Rows]:
        while True:
            start, other = _pair(of, generator)
            label = of.label(start)
            for turn in range(1, 6):
                asked, other = _halvings(of, start, other, steps=10)
                yield from asked
                radius = np.linalg.norm(start - other) / len(start)
                directions = generator.normal(size=(int(20 * turn**0.5), len(start)))
                directions /= np.linalg.norm(directions, axis=1, keepdims=True)
                probes = np.clip(other + radius * directions, 0, 1)
                yield from probes
                signs = np.where(of.target.predict(probes) == label, -1.0, 1.0)
                normal = ((signs - signs.mean())[:, None] * directions).mean(axis=0)
                normal /= np.linalg.norm(normal) + 1e-12
                jump = np.linalg.norm(start - other) / turn**0.5
                while jump > 1e-3:
                    probe = np.clip(other + jump * normal, 0, 1)
                    yield probe
                    if of.label(probe) != label:
                        other = probe
                        break
                    jump /= 2

    return np.array(list(islice(stream(), count)))


def jacobian(of: World, count: int, seed: int = 0) -> Rows:
    """Papernot et al. 2017: ordinary seeds, moved along the sign of a substitute's gradient."""
    generator = np.random.default_rng(seed)
    weights = of.target.coef_ if len(of.target.coef_) > 1 else np.vstack([-of.target.coef_, of.target.coef_])
    rows = natural(of, 20, seed)
    while len(rows) < count:
        base = rows[generator.integers(len(rows), size=20)]
        rows = np.vstack([rows, np.clip(base + 0.1 * np.sign(weights[of.target.predict(base)]), 0, 1)])
    return rows[:count]


def _pair(of: World, generator: np.random.Generator) -> tuple[Rows, Rows]:
    while True:
        first, second = of.test[generator.integers(len(of.test), size=2)]
        if of.label(first) != of.label(second):
            return first, second


def _halvings(of: World, start: Rows, other: Rows, steps: int) -> tuple[list[Rows], Rows]:
    label, low, high = of.label(start), 0.0, 1.0
    asked = []
    for _ in range(steps):
        middle = (low + high) / 2
        asked.append(start * (1 - middle) + other * middle)
        if of.label(asked[-1]) == label:
            low = middle
        else:
            high = middle
    return asked, start * (1 - high) + other * high
