"""Holds a document against a pydantic model and says in human words what does not fit, all of it at once.

Values are validated in pydantic's strict JSON mode: nothing is coerced, `"5"` is not 5. What a message may suggest
(known keys, allowed words, what a missing key is for) is read from the model's JSON Schema, so that the messages, the
schema and an editor's completion say the same.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError
from pydantic_core import ErrorDetails

from proxy.documents.faults import FAULT
from proxy.documents.jsonschema import json_schema
from proxy.documents.names import suggestion
from proxy.documents.reading import Document, Path, Value
from proxy.errors import ConfigError, Finding

Schema: TypeAlias = Mapping[str, Any]

M = TypeVar("M", bound=BaseModel)


class Closed(BaseModel):
    """A part of a document: an unknown key is an error, nothing is coerced, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_KINDS: tuple[tuple[type | tuple[type, ...], str, str], ...] = (  # bool before int: a bool is one
    (bool, "<boolean>", "`{}`"),
    ((int, float), "<number>", "the number `{}`"),
    (str, "<text>", "the text `{}`"),
    (list, "<list>", "a list"),
    (dict, "<group>", "a group of keys"),
)


_NOT_KEYS = frozenset({"[key]", *(tag for _, tag, _ in _KINDS)})


def _kind(value: object) -> tuple[str, str]:
    return next((tag, words) for types, tag, words in _KINDS if isinstance(value, types))


def _shown(value: object) -> str:
    return _kind(value)[1].format(json.dumps(value) if isinstance(value, bool) else value)


def by_kind(expected: str) -> Discriminator:
    """Return what tells apart the members of a union tagged `<text>`, `<list>`, `<group>`, `<number>`, `<boolean>`."""
    return Discriminator(
        lambda value: _kind(value)[0],
        custom_error_type=FAULT,
        custom_error_message=f"must be {expected}",
    )


def validate(document: Document, model: type[M]) -> M:
    """Return the document as the model, or raise ConfigError with every fault."""
    try:
        return model.model_validate_json(json.dumps(document.value))
    except ValidationError as error:
        schema = json_schema(model)
        findings = [_finding(document, schema, detail) for detail in _first_hand(error.errors(include_url=False))]
        raise ConfigError(sorted(findings, key=lambda finding: (finding.line, finding.column))) from error


def _first_hand(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out the lists that pydantic calls too short because it does not count their faulty entries."""
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(other is not error and other["loc"][: len(error["loc"])] == error["loc"] for other in errors)
    ]


# ── where ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _finding(document: Document, schema: Schema, error: ErrorDetails) -> Finding:
    loc = error["loc"]
    about_key = bool(loc) and loc[-1] == "[key]"
    path = _path(loc, document.value)
    if error["type"] == "missing":
        key = str(path[-1])
        purpose = _describe(_at(schema, path))
        return document.finding(path[:-1], f"{_owner(path[:-1])}`{key}` is missing", purpose)
    if error["type"] == "extra_forbidden":
        key = str(path[-1])
        known = sorted({name for part in _at(schema, path[:-1]) for name in part.get("properties", ())})
        near = suggestion(key, known)
        return document.finding(path, f"unknown key `{key}`{near}", "" if near else f"known keys: {', '.join(known)}")
    message, hint = _explain(error, _at(schema, path), path)
    return document.finding(path, message, hint, value=not about_key)


def _path(loc: Sequence[str | int], value: Value) -> Path:
    """Return the document's own path: pydantic's, without the tags of unions and its mark for keys."""
    path: list[str | int] = []
    for part in loc:
        match value, part:
            case dict(), str() if part in value:
                value = value[part]
            case list(), int():
                value = value[part]
            case _ if part in _NOT_KEYS:
                continue
        path.append(part)
    return tuple(path)


def _owner(path: Path) -> str:
    """Name the thing that a key is missing from, when the document gave it a name."""
    return f"`{path[-1]}`: " if path and isinstance(path[-1], str) else ""


def _subject(path: Path) -> str:
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return "the file"
    return f"an entry of `{names[-1]}`" if isinstance(path[-1], int) else f"`{names[-1]}`"


def _at(root: Schema, path: Path) -> list[Schema]:
    """Return every schema that may govern the value at a path: a union has several."""
    found = _unfold(root, root)
    for part in path:
        found = [
            below
            for schema in found
            for step in _step(schema, part)
            for below in _unfold(root, step)
        ]  # fmt: skip
    return found


def _step(schema: Schema, part: str | int) -> list[Schema]:
    if isinstance(part, int):
        return [schema["items"]] if "items" in schema else []
    members: Mapping[str, Schema] = schema.get("properties", {})
    if part in members:
        return [members[part]]
    named: Mapping[str, Schema] = schema.get("patternProperties", {})
    return [*named.values(), *(other for other in [schema.get("additionalProperties")] if isinstance(other, Mapping))]


def _unfold(root: Schema, schema: Schema) -> list[Schema]:
    """Follow `$ref`, `anyOf` and `oneOf`; what is said beside a reference stays (JSON Schema 2020-12 section 8.2.3)."""
    if "$ref" in schema:
        target: Schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return [{**part, **beside} for part in _unfold(root, target)]
    branches: Sequence[Schema] = schema.get("anyOf") or schema.get("oneOf") or ()
    if not branches:
        return [schema]
    beside = {key: value for key, value in schema.items() if key not in {"anyOf", "oneOf"}}
    return [{**part, **beside} for branch in branches for part in _unfold(root, branch)]


# ── what ────────────────────────────────────────────────────────────────────────────────────────────────────────

_EXPECTED: Mapping[str, tuple[str, str]] = {
    "string_type": ("text", "put it in quotes"),
    "int_type": ("a whole number", ""),
    "int_from_float": ("a whole number", ""),
    "float_type": ("a number", ""),
    "bool_type": ("true or false", ""),
    "tuple_type": ("a list", "write it in square brackets: `[a, b]`"),
    "dict_type": ("a group of `key: value` lines", ""),
    "model_type": ("a group of `key: value` lines", ""),
}

_LIMITS: Mapping[str, str] = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
}


def _explain(error: ErrorDetails, schemas: Sequence[Schema], path: Path) -> tuple[str, str]:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    subject = _subject(path)
    if kind == FAULT:
        message = error["msg"]
        own = message.startswith("must ")  # the validator does not know the name of its field
        return (f"{subject} {message}" if own else message), str(context.get("hint", ""))
    if kind in _EXPECTED:
        expected, hint = _EXPECTED[kind]
        return f"{subject} must be {expected}, not {_shown(value)}", hint
    if kind in _LIMITS:
        return f"{subject} {_LIMITS[kind].format_map(context)}", _describe(schemas)
    words = [word for schema in schemas for word in _words(schema)]
    if kind in {"literal_error", "enum"} and words:
        if isinstance(value, str):
            message = f"{subject} cannot be `{value}`{suggestion(value, words)}"
        else:
            message = f"{subject} cannot be {_shown(value)}"
        return message, f"one of: {', '.join(words)}" if len(words) > 1 else f"write `{words[0]}`"
    return f"{subject}: {error['msg']}", ""


def _words(schema: Schema) -> list[str]:
    words = [schema["const"]] if "const" in schema else schema.get("enum", ())
    return [word if isinstance(word, str) else json.dumps(word) for word in words]


def _describe(schemas: Sequence[Schema]) -> str:
    return next((str(schema["description"]) for schema in schemas if "description" in schema), "")
