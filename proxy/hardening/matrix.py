"""Many rows of scores at once: what `proxy.hardening.scores` does to one row, number by number the same.

Rounding is Python's (correct to the decimal, ties to even), not numpy's: whatever lies so near to a tie that numpy's
multiplication could decide it differently is rounded one by one. A row is hardened as a whole, so the memory that is
needed beside the rows is that of one block; who has many rows hands them in in blocks.

Inside, a class lies behind the other (`columns`): numpy takes as long for the highest of ten numbers as for a hundred
of them that lie side by side, so it is asked for the highest of each row in ten steps over all rows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.exchange import Output

Scores = NDArray[np.float64]

FEW_KEPT, MANY_ROWS = 4, 2_048  # with at most so many classes to keep of so many rows, comparing beats sorting
_SLACK = 2.0**-50  # relative error of one multiplication, with room; from 2^49 on everything is doubtful


def harden_rows(rows: Scores, output: Output) -> Scores:
    """Return the rows, shape (rows, classes), under the profile. Raises ValueError for what is not finite."""
    if not np.isfinite(rows).all():
        msg = "a score is not a finite number"
        raise ValueError(msg)
    if rows.shape[1] < 2:
        decimals = 0 if output.label_only else output.decimals
        return rows if decimals is None else rounded(rows, decimals)
    columns = np.ascontiguousarray(rows.T)
    if output.label_only:
        return _labels(columns).T
    shown = columns
    if output.top_k is not None and output.top_k < len(columns):
        shown = _top(columns, output.top_k)
    if output.decimals is not None:
        shown = rounded(shown, output.decimals)
        return _lifted(shown, columns, output.decimals, tied(shown)).T
    if (shown == columns).all():
        return shown.T  # not `rows`: what is held back is 0, and not -0.0
    at = tied(shown)
    return _lifted(shown, columns, None, at[(shown[:, at] != columns[:, at]).any(axis=0)]).T


def rounded(scores: Scores, decimals: int) -> Scores:
    """Return the scores rounded as `round` does it."""
    unit = 10.0**decimals
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = scores * unit
        shown = np.rint(scaled)
        error = np.abs(scaled)
        error *= _SLACK
        scaled -= shown
        off = np.abs(scaled, out=scaled)
        off += error
        certain = off < 0.5  # also not true of what is not a number any more
    shown /= unit
    if not certain.all():
        for at in np.argwhere(~certain):
            place = tuple(at)
            shown[place] = round(float(scores[place]), decimals)
    shown += 0.0  # "-0.0" would tell a sign that rounding took away
    return shown


def tied(columns: NDArray[Any]) -> NDArray[np.intp]:
    """Return the rows, in order, whose highest score stands there more than once. Shape (classes, rows)."""
    level = columns == columns.max(axis=0)
    if np.count_nonzero(level) == columns.shape[1]:
        return np.empty(0, np.intp)
    return np.flatnonzero(np.count_nonzero(level, axis=0) > 1)


def _labels(columns: Scores) -> Scores:
    shown: Scores = (columns == columns.max(axis=0)).astype(np.float64)
    at = tied(columns)
    if len(at):
        shown[:, at] = 0.0
        shown[columns[:, at].argmax(axis=0), at] = 1.0  # the first of equals
    return shown


def _top(columns: Scores, k: int) -> Scores:
    lowest = _kth(columns, k)
    kept = columns >= lowest
    if np.count_nonzero(kept) > k * len(lowest):  # of equals, the first
        at = np.flatnonzero(np.count_nonzero(kept, axis=0) > k)
        above = columns[:, at] > lowest[at]
        level = kept[:, at] & ~above
        kept[:, at] = above | (level & (level.cumsum(axis=0) <= k - np.count_nonzero(above, axis=0)))
    shown: Scores = columns * kept  # many times faster than to choose
    fill = np.minimum(lowest, 0.0)
    shown += fill * ~kept if fill.any() else 0.0  # "-0.0" again
    return shown


def _kth(columns: Scores, k: int) -> Scores:
    """Return the k-th highest score of each row, equals counted."""
    if k > FEW_KEPT or columns.shape[1] < MANY_ROWS:
        highest: Scores = np.partition(columns, -k, axis=0)[-k]
        return highest
    best: list[Scores] = []  # so far, in falling order
    for column in columns:
        falling = column
        for place, one in enumerate(best):
            best[place] = np.maximum(one, falling)
            if place < k - 1:
                falling = np.minimum(one, falling)
        if len(best) < k:
            best.append(falling)
    return best[-1]


def _lifted(shown: Scores, raw: Scores, decimals: int | None, at: NDArray[np.intp]) -> Scores:
    """Break the ties that hardening made, in the rows `at`."""
    if not len(at):
        return shown
    raw, part, every = raw[:, at], shown[:, at], np.arange(len(at))
    winner = raw.argmax(axis=0)  # the first of equals
    others = part.copy()
    others[winner, every] = -np.inf
    best = others.max(axis=0)
    step, digits = 10.0 ** -(3 if decimals is None else decimals), 12 if decimals is None else decimals
    up = ~(raw.max(axis=0) <= 1.0) | (best + step <= 1.0)
    lowered = np.where(up | (part < best), part, rounded(best - step, digits))
    lowered[winner, every] = np.where(up, rounded(best + step, digits), best)
    shown[:, at] = lowered
    return shown
