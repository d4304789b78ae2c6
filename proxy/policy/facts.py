"""Conditions on what else a token says: `claims: {department: [botany, zoology], contractor: false}`.

A claim holds if it is one of the values, or a list with one of them in it; `1`, `"1"` and `true` are three values. A
claim that is not there does not hold. One that is there and cannot be compared (a group of members, a fraction,
nothing) does not hold for an `allow`, and holds for a `deny`.

Not guaranteed: that a claim is true. It is what the issuer says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, Tag

from proxy.documents import by_kind, fault, unique

Fact = bool | int | str


@dataclass(frozen=True, slots=True)
class ClaimIs:
    """One claim and its values, each with its type: `True == 1` in Python, and not in a policy."""

    path: tuple[str, ...]  # of object keys, from the outside in
    values: frozenset[tuple[type, Fact]]

    def holds(self, claims: Mapping[str, object], *, unknown: bool) -> bool:
        """Say whether the claims have one of the values; `unknown` is the answer where they cannot be compared."""
        value: object = claims
        for name in self.path:
            if not isinstance(value, Mapping):
                return unknown
            if name not in value:
                return False
            value = value[name]
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, Fact) for item in items):
            return unknown
        return any((type(item), item) in self.values for item in items)

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {', '.join(sorted(map(_shown, self.values)))}"


def claim_path(name: str) -> tuple[str, ...]:
    """Return the path of a claim's name: dots lead inwards, unless the name is a URL (RFC 7519 section 4.2)."""
    return (name,) if "://" in name else tuple(name.split("."))


def claim_is(name: str, values: "Fact | tuple[Fact, ...]") -> ClaimIs:
    """Return the condition that a policy writes as `name: values`."""
    listed = values if isinstance(values, tuple) else (values,)
    return ClaimIs(claim_path(name), frozenset((type(value), value) for value in listed))


def _shown(value: tuple[type, Fact]) -> str:
    return str(value[1]).lower() if value[0] is bool else str(value[1])


def _name(text: str) -> str:
    if not all(claim_path(text)):
        raise fault("`{text}` is not a claim's name", "like `department`, or `org.team` from the outside in", text=text)
    return text


_Text = Annotated[str, Field(min_length=1, max_length=256)]
_OneFact = Annotated[
    Annotated[bool, Tag("<boolean>")] | Annotated[int, Tag("<number>")] | Annotated[_Text, Tag("<text>")],
    by_kind("a text, a whole number, true or false"),
]
_Facts = Annotated[
    tuple[_OneFact, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(unique)
]
ClaimName = Annotated[_Text, AfterValidator(_name)]
ClaimFacts = Annotated[
    Annotated[bool, Tag("<boolean>")]
    | Annotated[int, Tag("<number>")]
    | Annotated[_Text, Tag("<text>")]
    | Annotated[_Facts, Tag("<list>")],
    by_kind("a text, a whole number, true or false, or a list of them"),
]
