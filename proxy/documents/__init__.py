"""Configuration documents: bytes in, checked values with their places out. Pure.

`parse` reads one YAML document and remembers where every key and value stands, `validate` holds it against a pydantic
model and returns every fault at once, `render` shows a fault with its line. Policy files and `hip.yaml` take the same
way. The measures that people write (`10s`, `16MiB`, `60 requests/minute`) are in `proxy.documents.quantities`.
"""

from proxy.documents.faults import fault
from proxy.documents.jsonschema import json_schema
from proxy.documents.names import Name, suggestion, unique
from proxy.documents.reading import Document, Path, Value, parse
from proxy.documents.rendering import render
from proxy.documents.validation import Closed, by_kind, validate

__all__ = [
    "Closed",
    "Document",
    "Name",
    "Path",
    "Value",
    "by_kind",
    "fault",
    "json_schema",
    "parse",
    "render",
    "suggestion",
    "unique",
    "validate",
]
