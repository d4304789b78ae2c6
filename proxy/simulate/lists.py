"""Routes whose questions and answers are JSON lists, one entry a row: `kserve-v1`, `mlflow`, and described servers.

Pure: what a question looks like, and what an answer says. JSON pointers (RFC 6901) say where the rows and the scores
lie; `*` is every row. An answer without a list of scores for each row cannot be used: the attacks compare scores.
"""

from dataclasses import dataclass

import numpy as np

from proxy.simulate.session import Rows, Scores

EACH = "*"


class UnreadableError(ValueError):
    """A pointer that is none, or an answer that is not where it should be."""


@dataclass(frozen=True, slots=True)
class Lists:
    """`ending` belongs to the URL of a model; `asked` and `answered` are the steps of two pointers."""

    ending: str
    asked: tuple[str, ...]
    answered: tuple[str, ...]

    def question(self, rows: Rows) -> object:
        """Return the body that asks about the rows."""
        body: object = rows.astype(np.float32).tolist()
        for step in reversed(self.asked):
            body = {step: body}
        return body

    def scores(self, answer: object, rows: int) -> Scores:
        """Return the scores of each row. Raise UnreadableError."""
        try:
            found = np.asarray(_found(answer, self.answered), np.float64)
        except (KeyError, TypeError, ValueError) as exc:
            raise UnreadableError("the answer has no scores where they should be") from exc
        if found.ndim != 2 or found.shape[0] != rows or found.shape[1] < 2:
            msg = f"scores of shape {found.shape} for {rows} rows: name a classifier's route that shows every class"
            raise UnreadableError(msg)
        return found


KSERVE_V1 = Lists(":predict", ("instances",), ("predictions",))
MLFLOW = Lists("", ("inputs",), ("predictions",))


def described(rows: str, scores: str) -> Lists:
    """Return what two pointers describe, as in the policy's `generic`. Raise UnreadableError."""
    asked, answered = _steps(rows), _steps(scores)
    if not asked or EACH in asked or answered.count(EACH) > 1:
        raise UnreadableError("rows lie in one list, as in `/inputs`; scores in as many, as in `/results/*/scores`")
    return Lists("", asked, answered)


def _steps(pointer: str) -> tuple[str, ...]:
    if not pointer.startswith("/"):
        msg = f"`{pointer}` is no JSON pointer: write it as `/inputs`"
        raise UnreadableError(msg)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/"))


def _found(value: object, steps: tuple[str, ...]) -> object:
    for number, step in enumerate(steps):
        if step == EACH and isinstance(value, list):
            return [_found(one, steps[number + 1 :]) for one in value]
        if not isinstance(value, dict):
            raise TypeError(step)
        value = value[step]
    return value
