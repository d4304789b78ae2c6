"""One row of scores, as exactly as an output profile allows, and never less useful than its winner.

What holds: the winner (the first highest raw score) stays the only highest; the shape stays; the same row gives the
same answer, so repeating a query averages nothing away. What does not: rounding costs an attacker queries, it does
not prevent extraction with natural data, and it does not help against membership inference (docs/defence.md).
"""

import math
from collections.abc import Sequence

from proxy.exchange import Output


def harden_row(scores: Sequence[float], output: Output) -> list[float]:
    """Return the row under the profile.

    Suppressed scores become 0, or the lowest score that is kept where scores are negative (logits). A single score
    has no winner: it is rounded, to a whole number under `label_only`.

    Raises ValueError for a score that is not a finite number: what cannot be read is not passed on.
    """
    if not all(map(math.isfinite, scores)):
        msg = "a score is not a finite number"
        raise ValueError(msg)
    if len(scores) < 2:
        decimals = 0 if output.label_only else output.decimals
        return list(scores) if decimals is None else [round(score, decimals) + 0.0 for score in scores]
    highest = max(scores)
    winner = scores.index(highest)  # the first of equals
    if output.label_only:
        row = [0.0] * len(scores)
        row[winner] = 1.0
        return row
    row = list(scores)
    if output.top_k is not None and output.top_k < len(row):
        row = _top(row, output.top_k)
    if output.decimals is not None:
        decimals = output.decimals
        # What was cut off is 0 and stays it; + 0.0: "-0.0" would tell a sign that rounding took away.
        row = [round(score, decimals) + 0.0 if score else 0.0 for score in row]
    elif row == list(scores):
        return row
    return _lift(row, winner, output.decimals, bounded=highest <= 1.0)


def _top(row: list[float], k: int) -> list[float]:
    kept = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k]  # stable: of equals the first
    fill = min(0.0, row[kept[-1]])
    shown = [fill] * len(row)
    for index in kept:
        shown[index] = row[index]
    return shown


def _lift(row: list[float], winner: int, decimals: int | None, *, bounded: bool) -> list[float]:
    """Break a tie that hardening made: upward for the winner, or downward for the others where 1 is the limit."""
    best = max(row[:winner] + row[winner + 1 :])
    if row[winner] > best:
        return row
    step = 10.0 ** -(3 if decimals is None else decimals)
    if not bounded or best + step <= 1.0:
        row[winner] = round(best + step, decimals if decimals is not None else 12)
        return row
    row[winner] = best
    lowered = round(best - step, decimals if decimals is not None else 12)
    return [lowered if index != winner and score >= best else score for index, score in enumerate(row)]
