"""A dialect's table of actions: which method and path is which action on which model. Pure."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.errors import Malformed, MethodNotAllowed
from proxy.exchange import Action, Target
from proxy.reasons import Reason

# A name that has one spelling in a path: no escapes, no dots alone, nothing hidden.
SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table. `path` is a regular expression whose groups `model` and `version` name both."""

    method: str
    path: str
    action: Action
    form: str = ""
    sole: bool = False
    complete: Callable[[Target, bytes], Target] | None = None


class Table:
    """Every path of a dialect. A path that is not in it may be another dialect's."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = tuple((line, re.compile(line.path)) for line in lines)

    def find(self, method: str, path: str, query: str) -> Target | None:
        """Return what a request is about. Raise MethodNotAllowed, or Malformed for query parameters: none have any."""
        known = False
        for line, pattern in self._lines:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if line.method != method:
                known = True
                continue
            if query:
                raise Malformed(Reason.MALFORMED_MESSAGE, "a query parameter")
            names = match.groupdict()
            model, version = names.get("model"), names.get("version")
            return Target(line.action, model, version, line.form, line.sole, line.complete)
        if known:
            raise MethodNotAllowed(allowed=self._methods(path))
        return None

    def _methods(self, path: str) -> list[str]:
        """Return the methods of a path; asked for only when none of them was sent."""
        return sorted({line.method for line, pattern in self._lines if pattern.fullmatch(path)})
