"""Which HTTP message is clean: one Host, one framing, one target that every reader reads alike. Pure.

The parser has already refused what is not HTTP at all (llhttp in its strict mode: obs-fold, bare CR, LF and NUL, bad
field names, differing lengths). What it lets through stands here, each rule with its clause. Not decided here:
whether the path exists, and whether the caller may have it.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address

from proxy.exchange import Word
from proxy.listener.limits import Limits
from proxy.listener.rejection import BODY_TOO_LARGE, CODING, EXPECTATION, METHOD, UNCLEAN, VERSION, Rejected

# CONNECT and TRACE have no resource here (RFC 9110 section 15.6.2); a tunnel or an echo is the last thing we want.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

MAX_PORT = 65_535
LENGTH_DIGITS = 19  # of 2^63; leading zeros mean nothing, and Python refuses to read thousands of them

# RFC 3986 section 3.3 without ";" and without "%": servers disagree on what parameters and encoded octets mean, and
# no model server needs either in a path. "." and ".." are segments that somebody will resolve.
_SEGMENT = rb"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,=:@-]+"
_PATH = re.compile(rb"/(?:" + _SEGMENT + rb"/)*(?:" + _SEGMENT + rb")?")
# RFC 3986 section 3.4 without ";"; no encoded control, no "%25": decoded twice it would be something else.
_QUERY = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,=:@/?-]|%(?![01]|7[Ff]|25|3[Bb]|5[Cc]|23)[0-9A-Fa-f]{2})+")

# RFC 9112 section 3.2, RFC 3986 section 3.2.2; the underscore is not a host name's, and is in every compose file.
_HOST = re.compile(rb"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{1,5}))?")

_VALUE_BYTES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # RFC 9110 section 5.5

# What may stand in a message once. Authorization is not among them: two credentials have a reason of their own.
_ONCE = frozenset({b"content-length", b"content-type", b"expect", b"host", b"transfer-encoding", b"upgrade"})

Fields = Sequence[tuple[bytes, bytes]]  # names in lower case


class Head(Word, frozen=True):
    """What the header section of a clean message says."""

    path: str
    query: str
    expects_continue: bool
    length: int  # of the body in bytes; 0: none follows, or one in chunks


def clean_target(raw: bytes) -> tuple[str, str]:
    """Return path and query, byte for byte as sent; raise Rejected for a target that two servers may read as two.

    Only the origin form is left (RFC 9112 section 3.2.1): the absolute, authority and asterisk forms do not begin
    with a slash, and a fragment has no place in a request.
    """
    path, mark, query = raw.partition(b"?")
    if not _PATH.fullmatch(path):
        raise Rejected(UNCLEAN, "the path is not plain")
    if mark and not _QUERY.fullmatch(query):
        raise Rejected(UNCLEAN, "the query is not plain")
    return path.decode("ascii"), query.decode("ascii")


def read_head(method: str, version: str, target: bytes, fields: Fields, limits: Limits) -> Head:
    """Return what a header section says; raise Rejected when it is not clean."""
    if version != "1.1":
        raise Rejected(VERSION, "not HTTP/1.1")
    if method not in METHODS:
        raise Rejected(METHOD, "a method that nothing here has")
    path, query = clean_target(target)
    once = _read_fields(fields)
    _check_host(once.get(b"host"))
    if b"upgrade" in once:  # RFC 9110 section 7.8 lets us ignore it; whoever is behind us might not
        raise Rejected(UNCLEAN, "an upgrade")
    length = _check_framing(once.get(b"transfer-encoding"), once.get(b"content-length"), limits.body_bytes)
    expect = once.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":  # RFC 9110 section 10.1.1
        raise Rejected(EXPECTATION, "an expectation other than 100-continue")
    return Head(path, query, expects_continue=expect is not None and length is not None, length=length or 0)


def _read_fields(fields: Fields) -> dict[bytes, bytes]:
    once: dict[bytes, bytes] = {}
    if b"".join([value for _, value in fields]).translate(None, _VALUE_BYTES):
        raise Rejected(UNCLEAN, "a control character in a field value")
    for name, value in fields:
        if name in _ONCE:
            if name in once:
                raise Rejected(UNCLEAN, f"two {name.decode('ascii')} fields")
            once[name] = value
    return once


def _check_host(host: bytes | None) -> None:
    """RFC 9112 section 3.2: a server MUST answer 400 to a request without exactly one valid Host."""
    match = _HOST.fullmatch(host or b"")
    if match is None or int(match["port"] or 0) > MAX_PORT:
        raise Rejected(UNCLEAN, "no valid Host")
    if match["v6"] is not None:
        try:
            IPv6Address(match["v6"].decode("ascii"))
        except ValueError as exc:
            raise Rejected(UNCLEAN, "no valid Host") from exc


def _check_framing(coding: bytes | None, length: bytes | None, body_bytes: int) -> int | None:
    """Return how long the body is: 0 of one in chunks, None where none follows.

    RFC 9112 section 6.1: both fields at once are an attempt at smuggling.
    """
    if coding is not None:
        if length is not None:
            raise Rejected(UNCLEAN, "Transfer-Encoding with Content-Length")
        if coding != b"chunked":
            raise Rejected(CODING, "a transfer coding other than chunked")
        return 0
    if length is None:
        return None
    if not length.isdigit() or len(length) > LENGTH_DIGITS:
        raise Rejected(UNCLEAN, "a Content-Length that is not a number, or one of too many digits")
    if int(length) > body_bytes:  # the parser has refused what does not fit 64 bits
        raise Rejected(BODY_TOO_LARGE, "a Content-Length above the limit")
    return int(length) or None
