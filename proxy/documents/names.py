"""Names in documents: what one looks like, and which one was probably meant."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Annotated, TypeVar

from pydantic import AfterValidator, WithJsonSchema

from proxy.documents.faults import fault

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_NAME = re.compile(NAME_PATTERN)

T = TypeVar("T", bound=Sequence[object])


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean …?` when a known word is near, else nothing."""
    near = get_close_matches(word, sorted(known), n=1)
    return f", did you mean `{near[0]}`?" if near else ""


def _name(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    hint = "letters, digits, `.`, `_` and `-`, at most 64, the first a letter or a digit"
    raise fault("`{text}` is not a name", hint, text=text)


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]


def unique(items: T) -> T:
    """Refuse a list that says something twice: one of the two was meant to be something else."""
    seen: list[object] = []
    for item in items:
        if item in seen:
            shown = f"`{item}`" if isinstance(item, str) else "an entry"
            raise fault("{item} stands twice in the list", "keep one of the two", item=shown)
        seen.append(item)
    return items
