"""`generic`: a server that nobody has met, described in the policy by JSON pointers (RFC 6901).

    generic: {infer: /classify, rows: /inputs, scores: [/results/*/scores], labels: [/results/*/label]}

What a pointer does not name is closed: other fields of a request are refused, other fields of a reply stay behind. `*`
is every entry of a list that has one for each row; without it, a pointer names the row, or the list of all rows.

Not guaranteed: that the pointers are the right ones. What `labels` names leaves as it is, unless it could be a score.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from proxy.dialects import lone, loose_json, strict_json
from proxy.dialects.lone import APART, alone
from proxy.dialects.loose_json import JSON_HEADERS, Json, encode, unreadable
from proxy.errors import Malformed, MethodNotAllowed
from proxy.exchange import (
    Action,
    Cost,
    Form,
    Hardened,
    Headers,
    KnownParameter,
    Naming,
    Output,
    Parameters,
    Pointer,
    Query,
    Reply,
    Target,
)
from proxy.reasons import Reason

EACH = "*"

_Sought: TypeAlias = Sequence[tuple[Pointer, bool]]  # what is left of a pointer, and whether it names scores

_document = msgspec.json.Decoder()


class Generic(loose_json.WithoutStreams):
    """A described server. Without a description it names no path."""

    name = "generic"
    naming = Naming.NOWHERE
    parameters: Mapping[str, KnownParameter] = MappingProxyType({})
    manages: frozenset[Action] = frozenset()

    def __init__(self, form: Form | None = None) -> None:
        self._form = form

    @property
    def readiness(self) -> str | None:
        """The description's word."""
        return None if self._form is None else self._form.health

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Compare with the two paths of the description."""
        form = self._form
        if form is None or path not in {form.infer, form.health}:
            return None
        if method != (known := "POST" if path == form.infer else "GET"):
            raise MethodNotAllowed(allowed=(known,))
        if query:
            raise Malformed(Reason.MALFORMED_MESSAGE, "a query parameter")
        return Target(Action.INFER, None, sole=True) if path == form.infer else Target(Action.HEALTH, None)

    def read(self, target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:  # noqa: ARG002 - it knows none
        """Read the rows, and refuse whatever stands beside them."""
        if target.action is not Action.INFER or self._form is None:
            loose_json.refuse_body(body)
            return Query(Cost(), b"", ())
        loose_json.require_json(headers)
        document = strict_json.decode(_document, body)
        encoded = encode(document)
        strict_json.refuse_duplicates(body, encoded)
        rows = _only(document, self._form.rows)
        if not isinstance(rows, list) or not rows:
            raise Malformed(detail="no rows")
        inner = self._form.features
        judged = None if inner is None else loose_json.features([_inside(row, inner) for row in rows])
        return Query(Cost(rows=len(rows)), encoded, JSON_HEADERS, judged)

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
        """Pick what the pointers name."""
        if target.action is Action.HEALTH or self._form is None:
            return Hardened(JSON_HEADERS, b"{}")
        sought = [(one, True) for one in self._form.scores] + [(one, False) for one in self._form.labels]
        shown = _picked(loose_json.read_reply(reply), sought, query.cost.rows, output, each=False)
        return Hardened(JSON_HEADERS, encode(shown))


def _only(value: Json, pointer: Pointer) -> Json:
    """Follow a pointer through objects that have nothing else in them."""
    for step in pointer:
        if not isinstance(value, dict) or value.keys() != {step}:
            raise Malformed(Reason.FORBIDDEN_PARAMETER, "a field beside the rows")
        value = value[step]
    return value


def _inside(row: Json, pointer: Pointer) -> Json:
    for step in pointer:
        if not isinstance(row, dict) or step not in row:
            raise Malformed(Reason.SCHEMA_MISMATCH, "a row without features")
        row = row[step]
    return row


def _picked(value: Json, sought: _Sought, rows: int, output: Output, *, each: bool) -> Json:
    """Return what the pointers name in a value. `each`: the value belongs to one row."""
    here = [scores for pointer, scores in sought if not pointer]
    if here:
        return (_scores if here[0] else _labels)(value, 1 if each else rows, output)
    steps = {pointer[0] for pointer, _ in sought}
    if isinstance(value, dict) and (named := [name for name in value if name in steps - {EACH}]):
        beside = {name: value[name] for name in named if ((name,), True) in sought}
        together = beside if len(beside) > 1 else {}
        shown = {
            name: _picked(
                value[name],
                [(pointer[1:], scores) for pointer, scores in sought if pointer[0] == name],
                rows,
                output,
                each=each,
            )
            for name in named
            if name not in together
        }
        if together:
            shown |= _scores(together, 1 if each else rows, output)
        return _in_one_place(shown, output, one_row=each or rows == 1)
    if isinstance(value, list) and steps == {EACH} and not each and len(value) == rows:
        inner = [(pointer[1:], scores) for pointer, scores in sought]
        return [_picked(entry, inner, rows, output, each=True) for entry in value]
    raise unreadable("nothing that a pointer names")


def _in_one_place(shown: dict[str, Json], output: Output, *, one_row: bool) -> Json:
    """Return what was picked of an object, where it has one place of scores, or all may leave."""
    if output.top_k is None and not output.label_only:
        return shown
    apart = {name: entry for name, entry in shown.items() if not (one_row and isinstance(alone(entry), float))}
    places = lone.places(list(apart.values())) if one_row else lone.column_places(shown)
    if places + (len(apart) < len(shown)) > 1:
        raise unreadable("scores in several places" + APART)
    return shown


def _scores(value: Json, rows: int, output: Output) -> Json:
    return loose_json.harden(value, output) if rows == 1 else loose_json.harden_rows(value, rows, output)


def _labels(value: Json, rows: int, output: Output) -> Json:  # noqa: ARG001 - one signature
    """Return words, whole numbers and the like; a fraction is a score that somebody called a label."""
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, str | int | None):
            raise unreadable("a label that is none")
    return loose_json.harden_words(value)
