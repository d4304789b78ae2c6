"""Which of two outputs says more. Pure."""

from enum import StrEnum
from math import inf

from proxy.exchange import Output


class Turn(StrEnum):
    """How one output stands to the one before it."""

    SAME = "same"
    FINER = "finer"
    COARSER = "coarser"
    OTHER = "another output"  # finer in one respect, coarser in the other


def turn(before: Output, after: Output) -> Turn:
    """Compare what an answer may say, not what the profiles are called."""
    signs = {_sign(*pair) for pair in zip(_said(before), _said(after), strict=True)} - {0}
    if len(signs) == 2:
        return Turn.OTHER
    return Turn.SAME if not signs else Turn.FINER if signs == {1} else Turn.COARSER


def _said(output: Output) -> tuple[float, float]:
    """Return digits and classes; a label says fewer than the fewest of both."""
    if output.label_only:
        return -1, 0
    return inf if output.decimals is None else output.decimals, inf if output.top_k is None else output.top_k


def _sign(before: float, after: float) -> int:
    return (after > before) - (after < before)
