"""Strings that may hold scores: Triton's classification form and anything else with digits in it.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md:
`"score:index"` or `"score:index:label"`. A string that is not of this form passes as a label, unless it holds a
number with a fraction: then nobody can say that it is not a score, and it is refused.
"""

import re
from collections.abc import Sequence

from proxy.exchange import Output
from proxy.hardening.scores import harden_row

MAX_LABEL = 1024  # characters

_CLASSIFIED = re.compile(r"(?P<score>[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?):(?P<rest>[0-9]+(?::.*)?)", re.DOTALL)
_FRACTION = re.compile(r"[0-9]\.[0-9]|\.[0-9]|[0-9][eE][+-]?[0-9]")


def harden_text(row: Sequence[str], output: Output) -> list[str]:
    """Return a row of strings under the profile; classes that it suppresses are cut off.

    Raises ValueError for a string that cannot be read completely.
    """
    if output.open:
        return list(row)
    matches = [_CLASSIFIED.fullmatch(text) for text in row]
    found = [match for match in matches if match is not None]
    if found:
        if len(found) != len(row):
            msg = "labels and classifications in one row"
            raise ValueError(msg)
        return _classified(found, output)
    if any(len(text) > MAX_LABEL or _FRACTION.search(text) for text in row):
        msg = "a string that may hold a score"
        raise ValueError(msg)
    return list(row)


def harden_prose(row: Sequence[str], output: Output) -> list[str]:
    """Return strings that the policy says are text: whatever numbers they hold, unless they are classifications.

    Raises ValueError as `harden_text` does, for classifications beside text.
    """
    return harden_text(row, output) if any(map(_CLASSIFIED.fullmatch, row)) else list(row)


def holds_class(text: str) -> bool:
    """Say whether a string is a classification: a score and its class."""
    return _CLASSIFIED.fullmatch(text) is not None


def _classified(row: Sequence[re.Match[str]], output: Output) -> list[str]:
    """Harden the scores, keep the best, and put equals in the order of their classes: no order tells more than they."""
    if any(_FRACTION.search(match["rest"]) for match in row):
        msg = "a number inside a label"
        raise ValueError(msg)
    scores = harden_row([float(match["score"]) for match in row], output)
    kept = 1 if output.label_only else output.top_k or len(row)
    digits = 0 if output.label_only else 6 if output.decimals is None else output.decimals
    classes = [int(match["rest"].partition(":")[0]) for match in row]
    ranked = sorted(range(len(row)), key=lambda index: (-scores[index], classes[index]))[:kept]
    return [f"{scores[index]:.{digits}f}:{row[index]['rest']}" for index in ranked]
