"""The schema and grid gate: the range of each feature, and the step of the grid on which its values lie.

Real data is quantised: pixels are multiples of 1/16 or 1/255, amounts have two decimals, counts are whole. Inputs that
an attack computes are not. A breach is suspicious, not malformed: a caller learns nothing from it. Not guaranteed:
whoever knows the grid can round to it; a value off the grid is taken for one on it once in 1 / (2 * ON_GRID) times.
"""

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import Floats, Gate

MARGIN = 0.5  # of the range, on both sides: ranges are for foreign units, not for the largest customer so far
MAX_LEVELS = 1 << 16  # |value| / step: beyond it float32 cannot tell on from off
ON_GRID = 1 / 64  # of a step; float32 errors stay below it up to MAX_LEVELS
MIN_MOVED = 30  # rows away from the commonest value, before a few values count as a grid
MAX_DIVISOR = 10  # the smallest gap seen may be a few steps wide
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
MAX_GRID_ROWS = 2048  # rows on which a grid is sought; all others must then agree


def learn_gate(rows: Floats) -> Gate:
    """Learn the gate. Rows are in random order: what the first half suggests, the second half must confirm."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    width = high.astype(np.float64) - low
    wide = width[width > 0]
    margin = MARGIN * np.maximum(width, np.median(wide))  # a constant feature may move as far as another would
    origin, step = low.astype(np.float64), np.zeros(len(low))
    sample = rows[: min(len(rows) // 2, MAX_GRID_ROWS)].astype(np.float64)
    for feature in range(len(low)):
        step[feature] = _grid(sample[:, feature])
    inverse = np.divide(1.0, step, out=np.zeros_like(step), where=step > 0).astype(np.float32)
    inverse[_off_grid(rows, origin.astype(np.float32), inverse).any(axis=0)] = 0
    return Gate(
        centre=((low.astype(np.float64) + high) / 2).astype(np.float32),
        half_width=np.clip(width / 2 + margin, SMALLEST, LARGEST).astype(np.float32),
        origin=origin.astype(np.float32),
        inverse_step=inverse,
    )


def breaches(gate: Gate, rows: Floats) -> Floats:
    """Count the features outside of the gate, per row."""
    with np.errstate(over="ignore", invalid="ignore"):  # far outside: infinite, and so outside of the range
        outside = np.abs(rows - gate.centre) > gate.half_width
        off = _off_grid(rows, gate.origin, gate.inverse_step)
    counted: Floats = (outside | off).sum(axis=1, dtype=np.float32)
    return counted


def _off_grid(rows: Floats, origin: Floats, inverse_step: Floats) -> NDArray[np.bool_]:
    levels = (rows - origin) * inverse_step
    off: NDArray[np.bool_] = np.abs(levels - np.round(levels)) > ON_GRID
    return off


def _grid(values: NDArray[np.float64]) -> float:
    """Return the widest step between whose multiples all values lie; 0 where there is none."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(values) - counts.max() < MIN_MOVED:
        return 0.0
    span = float(np.ptp(distinct))
    finest = max(span, float(np.abs(distinct).max())) / MAX_LEVELS
    gaps = np.diff(distinct)
    smallest = float(gaps[gaps > finest].min(initial=np.inf))
    for divisor in range(1, MAX_DIVISOR + 1):
        if not max(finest, SMALLEST) <= smallest / divisor <= span:
            return 0.0
        levels = np.cumsum(np.round(gaps / (smallest / divisor)))  # gap by gap: errors of the first guess do not add up
        step = span / levels[-1]
        if np.abs(gaps.cumsum() / step - levels).max() <= ON_GRID / 2:
            return float(step)
    return 0.0
