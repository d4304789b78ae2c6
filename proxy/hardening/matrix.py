"""Many rows of scores at once: what `proxy.hardening.scores` does to one row, number by number the same.

Rounding is Python's (correct to the decimal, ties to even), not numpy's: whatever lies so near to a tie that numpy's
multiplication could decide it differently is rounded one by one. A row is hardened as a whole, so the memory that is
needed beside the rows is that of one block; who has many rows hands them in in blocks.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.exchange import Output

Scores = NDArray[np.float64]

_EXACT = 2.0**48  # above it, a scaled score may be off by more than a quarter
_SLACK = 2.0**-50  # relative error of one multiplication, with room


def harden_rows(rows: Scores, output: Output) -> Scores:
    """Return the rows, shape (rows, classes), under the profile. Raises ValueError for what is not finite."""
    if not np.isfinite(rows).all():
        msg = "a score is not a finite number"
        raise ValueError(msg)
    if rows.shape[1] < 2:
        decimals = 0 if output.label_only else output.decimals
        return rows if decimals is None else rounded(rows, decimals)
    winners = rows.argmax(axis=1)  # the first of equals
    if output.label_only:
        shown = np.zeros_like(rows)
        shown[np.arange(len(rows)), winners] = 1.0
        return shown
    shown = rows
    if output.top_k is not None and output.top_k < rows.shape[1]:
        shown = _top(rows, output.top_k)
    if output.decimals is not None:
        shown = rounded(shown, output.decimals)
        return _lifted(shown, rows, winners, output.decimals, tied(shown, winners))
    if (shown == rows).all():
        return rows
    at = tied(shown, winners)
    return _lifted(shown, rows, winners, None, at[(shown[at] != rows[at]).any(axis=1)])


def rounded(scores: Scores, decimals: int) -> Scores:
    """Return the scores rounded as `round` does it."""
    unit = 10.0**decimals
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = scores * unit
        size = np.abs(scaled)
        off_tie = np.abs(size - np.floor(size) - 0.5)
        doubtful = ~(size < _EXACT) | (off_tie <= size * _SLACK)
        shown = np.rint(scaled, out=scaled)
    shown /= unit
    for at in np.argwhere(doubtful):
        place = tuple(at)
        shown[place] = round(float(scores[place]), decimals)
    shown += 0.0  # "-0.0" would tell a sign that rounding took away
    return shown


def tied(scores: NDArray[Any], winners: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the rows, in order, in which another score is as high as the winner's."""
    level = scores >= np.take_along_axis(scores, winners[:, None], axis=1)
    row = np.flatnonzero(level) // scores.shape[1]  # each at least once: the winner is level with itself
    return np.unique(row[1:][row[1:] == row[:-1]])


def _top(rows: Scores, k: int) -> Scores:
    lowest = np.partition(rows, -k, axis=1)[:, -k, None]
    kept = rows >= lowest
    if np.count_nonzero(kept) > k * len(rows):  # of equals, the first
        above = rows > lowest
        kept = above | (kept & ((kept & ~above).cumsum(axis=1) <= k - above.sum(axis=1, keepdims=True)))
    return np.where(kept, rows, np.minimum(lowest, 0.0) + 0.0)


def _lifted(
    shown: Scores, raw: Scores, winners: NDArray[np.intp], decimals: int | None, at: NDArray[np.intp]
) -> Scores:
    """Break the ties that hardening made, in the rows `at`."""
    if not len(at):
        return shown
    winner, others = winners[at], shown[at]
    others[np.arange(len(at)), winner] = -np.inf
    best = others.max(axis=1)
    step, digits = 10.0 ** -(3 if decimals is None else decimals), 12 if decimals is None else decimals
    up = ~(raw[at].max(axis=1) <= 1.0) | (best + step <= 1.0)
    shown[at[up], winner[up]] = rounded(best[up] + step, digits)
    at, winner, best = at[~up], winner[~up], best[~up]
    lowered = np.where(shown[at] >= best[:, None], rounded(best - step, digits)[:, None], shown[at])
    lowered[np.arange(len(at)), winner] = best
    shown[at] = lowered
    return shown
