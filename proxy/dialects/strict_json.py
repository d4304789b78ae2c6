"""JSON that has one reading: RFC 8259 with unique keys, no NaN, bounded depth.

Two parsers may disagree about a duplicate key, and then the part that was inspected is not the part that was used.
So a request is decoded into a typed value, and what is forwarded is that value encoded again; a body whose quotes
do not balance with the encoding had a key twice (or one that nobody reads), and is refused.
"""

import json
from typing import Any, TypeVar

import msgspec

from proxy.errors import Malformed
from proxy.reasons import Reason

T = TypeVar("T")


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Return the typed value. Raise Malformed for anything else, including depth and numbers beyond float64."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise Malformed(Reason.MALFORMED_BODY, f"json: {type(exc).__name__}") from exc


def refuse_duplicates(body: bytes, encoded: bytes) -> None:
    """Raise Malformed where `body` holds a key twice. `encoded` is what was read of it, encoded again.

    Without escapes a second key is two more quotes than the encoding has, which two byte counts show; with escapes
    the counts prove nothing and the slow reading decides.
    """
    if b"\\" not in body and body.count(b'"') == encoded.count(b'"'):
        return
    try:
        json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise Malformed(
            Reason.MALFORMED_BODY, f"json: {exc if isinstance(exc, _DuplicateKey) else 'unreadable'}"
        ) from exc


class _DuplicateKey(ValueError):
    def __init__(self) -> None:
        super().__init__("a key stands twice")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _DuplicateKey
