"""base64url, JSON and compact JWS with one reading: RFC 4648 section 5 without padding, RFC 8259 with unique names.

Two parsers that disagree about one text are how a forged claim passes a check, so a text that has a second reading
is refused with ValueError: padding, spare bits, foreign characters; duplicate names at any depth, NaN, lone
surrogates, another encoding than UTF-8.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Compact:
    """The parts of a JWS in compact form; nothing of it is believed yet."""

    header: Mapping[str, object]
    claims: Mapping[str, object]
    signing_input: bytes
    signature: bytes


def decode_base64url(text: str) -> bytes:
    """Return the bytes of the one text that encodes them (RFC 7515 section 2, RFC 4648 section 3.5)."""
    if _ALPHABET.fullmatch(text) is None:
        raise ValueError("not base64url without padding")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def encode_base64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_object(data: bytes) -> dict[str, object]:
    """Return a JSON object. Raise ValueError for everything else, including depth that exhausts the parser."""
    text = data.decode("utf-8")  # json.loads(bytes) would guess UTF-16 and UTF-32
    try:
        value: object = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one error for every unreadable text
    if "\\u" in text:  # only an escape can make a lone surrogate
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def decode_compact(token: str) -> Compact:
    """Return the parts of a signed JWT (RFC 7515 section 3.1). Raise ValueError."""
    if _COMPACT.fullmatch(token) is None:
        raise ValueError("not the three parts of a signed JWT in compact form")
    signing_input, _, signature = token.rpartition(".")
    header, _, claims = signing_input.partition(".")
    return Compact(
        header=decode_object(decode_base64url(header)),
        claims=decode_object(decode_base64url(claims)),
        signing_input=signing_input.encode("ascii"),
        signature=decode_base64url(signature),
    )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _refuse(_: str) -> object:
    raise ValueError("NaN and infinities are no JSON numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("a number beyond float64")
    return number
