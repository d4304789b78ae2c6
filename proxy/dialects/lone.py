"""Numbers that stand by themselves in JSON: found, and counted where several may be the scores of one row. Pure.

`{"a": {"score": 0.9}, "b": {"score": 0.1}}` tells two classes, and nothing in it says that they belong together. So a
profile that keeps classes back takes an answer with one place of such scores, and no other. Not guaranteed: that places
with several scores each (`{"p": {…}, "logits": {…}}`) are not parts of one row; each is hardened as a row of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_DEPTH = 16  # of a value
APART = ", and top_k or label_only must know which belong together"  # what an auditor reads of an answer refused here


def alone(value: Any) -> float | None:
    """Return the number that a value is, also as an array of one: `[[0.98]]`."""
    for _ in range(MAX_DEPTH):
        if not (isinstance(value, list) and len(value) == 1):
            break
        value = value[0]
    return value if type(value) in {int, float} else None


def places(values: Sequence[Any]) -> int:
    """Return how many of several values have one score in them, wherever in their objects it stands."""
    return sum(_scores(value, MAX_DEPTH) == 1 for value in values)


def column_places(columns: Mapping[str, Any]) -> int:
    """Return the same for columns, of which those that are lists of numbers are one place together."""
    plain = [name for name, column in columns.items() if _is_plain(column)]
    return bool(plain) + sum(_columns(column, MAX_DEPTH) == 1 for name, column in columns.items() if name not in plain)


def _scores(value: Any, depth: int) -> int:
    while depth and isinstance(value, list) and len(value) == 1:
        value, depth = value[0], depth - 1
    if isinstance(value, dict) and depth:
        return sum(_scores(entry, depth - 1) for entry in value.values())
    if isinstance(value, list) and depth and not all(type(entry) in {int, float} for entry in value):
        return int(sum(_scores(entry, depth - 1) for entry in value) == 1)  # `["setosa", 0.9]`; more are a row
    return int(isinstance(value, float))


def _columns(value: Any, depth: int) -> int:
    if isinstance(value, dict) and depth:
        return sum(_columns(entry, depth - 1) for entry in value.values())
    return int(isinstance(value, list) and any(_scores(entry, depth) == 1 for entry in value))


def _is_plain(column: Any) -> bool:
    return isinstance(column, list) and any(isinstance(alone(entry), float) for entry in column)
