"""Log-probabilities under an output profile. Pure.

A profile speaks of scores, so a log-probability is made coarse as the probability that it is, and shown with as many
digits: two digits of a logarithm alone would tell one in e^17 from one in e^18. What is too small to show is -9999.0,
the interface's own word for it. Not guaranteed: that the order of the alternatives which are shown tells nothing.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

from msgspec.structs import replace

from proxy.exchange import Output
from proxy.hardening.scores import harden_row

UNLIKELY = -9999.0
_ABOVE_ONE = 1e-3  # how far rounding in a model may lift a probability above 1, as a logarithm

Scored: TypeAlias = tuple[str, float]  # a token and its log-probability


def harden_place(
    chosen: Scored, alternatives: Sequence[Scored], count: int, output: Output
) -> tuple[float, list[Scored]]:
    """Return the score of the chosen token and at most `count` alternatives, best first.

    Raises ValueError for what is not a log-probability.
    """
    for _, score in (chosen, *alternatives):
        if not score <= _ABOVE_ONE:
            msg = "not a log-probability"
            raise ValueError(msg)
    most = count if output.top_k is None else min(count, output.top_k)
    ranked = sorted(alternatives, key=lambda one: (-one[1], one[0]))[:most]
    scores = _row([score for _, score in ranked], output)
    shown = [(token, score) for (token, _), score in zip(ranked, scores, strict=True)]
    named = dict(shown)
    if chosen[0] in named:
        return named[chosen[0]], shown
    if output.top_k is not None and len(shown) >= output.top_k:
        return UNLIKELY, shown  # one score more than the profile shows
    return _row([chosen[1]], output)[0], shown


def _row(scores: Sequence[float], output: Output) -> list[float]:
    if output.decimals is None or not scores:
        return list(scores)
    row = harden_row([math.exp(min(score, 0.0)) for score in scores], replace(output, top_k=None))
    return [round(math.log(p), output.decimals) + 0.0 if p > 0 else UNLIKELY for p in row]
