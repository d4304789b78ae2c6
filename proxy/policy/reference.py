"""The reference page of the language, from its JSON Schema: what an editor shows and what the page says are one.

Decides nothing. `hip check --reference > docs/policy-reference.md` renews the page.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from proxy.documents import json_schema
from proxy.policy.expectations import TestFile
from proxy.policy.schema import PolicyFile

Schema: TypeAlias = Mapping[str, Any]

_HEAD = """\
# The policy language, key by key

Made from the JSON Schema by `hip check --reference`; a test holds it current. The language is taught in
[policy.md](policy.md). An unknown key is an error everywhere; a key in bold must be there.
"""


def reference() -> str:
    """Return the page."""
    parts = [_HEAD]
    for title, model in (("A policy file", PolicyFile), ("A test file", TestFile)):
        schema = json_schema(model)
        parts.append("\n".join(_part(title, schema)))
        known = schema.get("$defs", {})
        parts += ["\n".join(_part(name, known[name])) for name in _order(schema, known)]
    return "\n".join(dict.fromkeys(parts))  # what both kinds of file have is told once


def _order(schema: Schema, known: Mapping[str, Schema]) -> Iterator[str]:
    """Yield the parts in the order in which a reader meets them."""
    seen: set[str] = set()
    waiting = [schema]
    while waiting:
        for name in _references(waiting.pop(0)):
            if name not in seen and "properties" in known[name]:
                seen.add(name)
                waiting.append(known[name])
                yield name


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for key, inner in value.items():
            if key != "$defs":
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _part(title: str, schema: Schema) -> Iterator[str]:
    yield f"## {title}\n"
    if "description" in schema:
        yield f"{schema['description']}\n"
    yield "| key | value | |"
    yield "|---|---|---|"
    required = schema.get("required", ())
    for key, value in schema["properties"].items():
        name = f"**`{key}`**" if key in required else f"`{key}`"
        default = "" if value.get("default") in (None, {}, []) else f" Without it: `{_literal(value['default'])}`."
        yield f"| {name} | {_cell(_value(value))} | {_cell(value.get('description', ''))}{default} |"
    yield ""


def _value(schema: Schema) -> str:
    """Return what may stand there."""
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(map(_value, schema[key])))
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name not in _ENUMS else _listed(_ENUMS[name])
    if "const" in schema or "enum" in schema:
        return _listed(schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return f"list of {_value(schema['items']).removeprefix('like ')}"
        case "object":
            named: Mapping[str, Schema] = schema.get("patternProperties", {})
            inner: Schema = schema.get("additionalProperties") or next(iter(named.values()), {})
            return f"name → {_value(inner)}" if inner else "group"
        case "string":
            return _text(schema)
        case "integer":
            return f"{schema.get('minimum', '…')} to {schema['maximum']}" if "maximum" in schema else "whole number"
        case kind:
            return {"boolean": "true or false", "number": "number"}.get(str(kind), "value")


def _text(schema: Schema) -> str:
    examples = schema.get("examples")
    if examples:
        return f"like {_listed(examples)}"
    return {r"^[0-9a-f]{64}$": "SHA-256, hexadecimal"}.get(
        schema.get("pattern", ""), "name" if "pattern" in schema else "text"
    )


def _listed(words: Sequence[object]) -> str:
    return ", ".join(f"`{_literal(word)}`" for word in words)


def _literal(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_ENUMS: Mapping[str, Sequence[str]] = {
    name: part["enum"]
    for model in (PolicyFile, TestFile)
    for name, part in json_schema(model)["$defs"].items()
    if "enum" in part
}
