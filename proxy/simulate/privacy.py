"""Attacks on what a model was trained with: was this row in it, and what does a class look like."""

import contextlib

import numpy as np
from numpy.typing import NDArray

from proxy.simulate.knowledge import Knowledge
from proxy.simulate.session import Rows, Session, StoppedError

ASKED = 300  # rows of each half, members and others
CLASSES = 2  # classes that are inverted
CLIMBS = 5  # steps, each a whole finite-difference gradient
DIFFERENCE = 1e-2  # of the range
STEP = 0.3  # of the range


async def membership(session: Session, known: Knowledge, rng: np.random.Generator) -> float:
    """Return the AUC of telling training rows from others by the best score (Yeom et al. 2018)."""
    if known.members is None:
        return float("nan")
    count = min(ASKED, len(known.members), len(known.own))
    order = rng.permutation(2 * count)
    inside = order < count
    with contextlib.suppress(StoppedError):
        await session.ask(np.vstack([known.members[:count], known.own[:count]])[order])
    if not session.answers:
        return 0.5
    best = session.received()[1].max(axis=1)
    return _auc(best[inside[: len(best)]], best[~inside[: len(best)]])


async def inversion(session: Session, known: Knowledge, rng: np.random.Generator) -> float:
    """Return how like a class's mean the input is that finite differences climb to (Fredrikson et al. 2015)."""
    low, high = known.own.min(axis=0), known.own.max(axis=0)
    reach = np.where(high > low, high - low, 1.0)
    found = []
    for label in rng.permutation(known.classes)[:CLASSES]:
        row = (low + high) / 2
        try:
            for _ in range(CLIMBS):
                steps = np.diag(DIFFERENCE * reach)
                scores = (await session.ask(np.vstack([row + steps, row - steps])))[:, label]
                slope = scores[: len(row)] - scores[len(row) :]
                row = np.clip(row + STEP * reach * slope / (np.abs(slope).max() or 1.0), low, high)
        except StoppedError:
            pass
        found.append(_likeness(row - (low + high) / 2, known.judged[known.truth == label], known.judged.mean(axis=0)))
    return float(np.mean(found))


def _likeness(moved: Rows, members: Rows, mean: Rows) -> float:
    """Return the correlation of what was found with what sets the class apart."""
    if not len(members) or not np.ptp(moved):
        return 0.0
    return float(np.corrcoef(moved, members.mean(axis=0) - mean)[0, 1])


def _auc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    if not len(inside) or not len(outside):
        return 0.5
    wins = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
    return float(wins)
