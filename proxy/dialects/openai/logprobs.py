"""Log-probabilities under an output profile. Pure.

A profile speaks of scores, so a log-probability is made coarse as the probability that it is, and shown with as many
digits: two digits of a logarithm alone would tell one in e^17 from one in e^18. What is too small to show is -9999.0,
the interface's own word for it. Not guaranteed: that the order of the alternatives which are shown tells nothing.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from proxy.exchange import Output
from proxy.hardening.scores import harden_row

UNLIKELY = -9999.0
_ABOVE_ONE = 1e-3  # how far rounding in a model may lift a probability above 1, as a logarithm

Scored: TypeAlias = tuple[str, float]  # a token and its log-probability


class _Alternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: None = None  # the same token again: not repeated


class _Place(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Alternative] = []
    bytes: None = None


class _GivenAlternative(msgspec.Struct):
    token: str
    logprob: float


class _GivenPlace(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_GivenAlternative] | None = None


class ChatLogprobs(msgspec.Struct):
    """What a chat's choice has of them."""

    content: list[_GivenPlace] | None = None
    refusal: list[_GivenPlace] | None = None


class TextLogprobs(msgspec.Struct):
    """What a completion's choice has of them: four lists, a place each."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


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


def chat_logprobs(given: ChatLogprobs | None, count: int | None, output: Output) -> object:
    """Return what may leave of them: `count` alternatives a place, None if none were asked for. Raise ValueError."""
    if given is None or count is None or output.label_only:
        return None
    return {
        "content": _places(given.content, count, output),
        "refusal": _places(given.refusal, count, output),
    }


def _places(given: Sequence[_GivenPlace] | None, count: int, output: Output) -> list[_Place] | None:
    if given is None:
        return None
    places = []
    for place in given:
        others = [(one.token, one.logprob) for one in place.top_logprobs or ()]
        score, shown = harden_place((place.token, place.logprob), others, count, output)
        places.append(_Place(place.token, score, [_Alternative(*one) for one in shown]))
    return places


def text_logprobs(given: TextLogprobs | None, count: int | None, output: Output) -> object:
    """Return what may leave of them: `count` alternatives a place, None if none were asked for. Raise ValueError."""
    if given is None or count is None or output.label_only:
        return None
    places = len(given.tokens)
    tops = given.top_logprobs if given.top_logprobs is not None else [None] * places
    if not places == len(given.token_logprobs) == len(tops):
        msg = "logprobs of different lengths"
        raise ValueError(msg)
    scores: list[float | None] = []
    shown: list[dict[str, float] | None] = []
    for token, score, top in zip(given.tokens, given.token_logprobs, tops, strict=True):
        if score is None:  # the first token of a prompt has no score
            if top:
                msg = "alternatives without a score"
                raise ValueError(msg)
            scores.append(None)
            shown.append(None)
            continue
        new, others = harden_place((token, score), list((top or {}).items()), count, output)
        scores.append(new)
        shown.append(dict(others) if top is not None else None)
    return {"tokens": given.tokens, "token_logprobs": scores, "top_logprobs": shown, "text_offset": given.text_offset}


def _row(scores: Sequence[float], output: Output) -> list[float]:
    if output.decimals is None or not scores:
        return list(scores)
    row = harden_row([math.exp(min(score, 0.0)) for score in scores], replace(output, top_k=None))
    return [round(math.log(p), output.decimals) + 0.0 if p > 0 else UNLIKELY for p in row]
