"""Sketches, and how near two ordinary rows come to each other.

A sketch is the standardised row itself where it has at most 64 features, and else 64 random projections of it, which
keep distances within about a tenth (Johnson and Lindenstrauss 1984). Tau is half of the distance that 1 % of the
distinct rows have to their nearest neighbour: measured, it flagged none of 3,000 ordinary clients; a looser one flagged
every client of one split (docs/adr). Not guaranteed: tau for data of one or two features, which lies densely.
"""

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import SKETCH, Floats

TAU_QUANTILE = 0.01
TAU_FACTOR = 0.5
MAX_ASKED = 2048  # rows whose nearest neighbour is sought among all
BLOCK = 256  # rows of a distance matrix at a time


def projection(features: int, generator: np.random.Generator) -> Floats:
    """Return the matrix (features, SKETCH) that makes a sketch of a standardised row."""
    if features <= SKETCH:
        return np.eye(features, SKETCH, dtype=np.float32)
    orthonormal, _ = np.linalg.qr(generator.standard_normal((features, SKETCH)))
    scaled: Floats = (orthonormal * np.sqrt(features / SKETCH)).astype(np.float32)
    return scaled


def near_distance(sketches: Floats) -> float:
    """Return tau. At least two of the sketches differ."""
    distinct = np.unique(sketches, axis=0).astype(np.float64)
    asked = np.unique(np.linspace(0, len(distinct) - 1, MAX_ASKED).astype(int))
    squares: NDArray[np.float64] = (distinct**2).sum(axis=1)
    nearest = np.empty(len(asked))
    for at in range(0, len(asked), BLOCK):
        chosen = asked[at : at + BLOCK]
        table = squares[chosen, None] + squares - 2 * distinct[chosen] @ distinct.T
        table[np.arange(len(chosen)), chosen] = np.inf
        nearest[at : at + BLOCK] = np.linalg.norm(distinct[chosen] - distinct[table.argmin(axis=1)], axis=1)
    return TAU_FACTOR * float(np.quantile(nearest, TAU_QUANTILE))
