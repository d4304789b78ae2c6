"""One file in a form: `multipart/form-data` (RFC 7578) of exactly one part, read completely and written again. Pure.

Two readers of a form may disagree about boundaries, preambles and names, so what is forwarded has a boundary of ours
and nothing of the caller's but the part's bytes. Everything that is not the plain form which clients write is refused.
"""

import re
from hashlib import sha256

from proxy.errors import Malformed, UnsupportedMediaType
from proxy.exchange import Headers

FORM = b"multipart/form-data"

# RFC 2046 section 5.1.1, without the characters that would need quoting in a second place.
_TYPE = re.compile(rb'multipart/form-data; ?boundary=("?)([A-Za-z0-9\'()+_,./:=?-]{1,70})\1', re.IGNORECASE)
_NAME = re.compile(rb'form-data; name="([a-z]{1,32})"(?:; filename="[^"\\\r\n\x00]{0,255}")?')
_HEADS = frozenset({b"content-disposition", b"content-type", b"content-transfer-encoding"})


def only_part(content_type: bytes, body: bytes, name: bytes) -> tuple[bytes, bytes]:
    """Return media type and bytes of the only part, which has this name. Raise UnsupportedMediaType or Malformed."""
    given = _TYPE.fullmatch(content_type.strip())
    if given is None:
        raise UnsupportedMediaType(detail="a form without a plain boundary")
    mark = b"--" + given[2]
    begin, end = mark + b"\r\n", b"\r\n" + mark + b"--"
    inner = body.removesuffix(b"\r\n")
    if not (inner.startswith(begin) and inner.endswith(end)) or len(inner) < len(begin) + len(end):
        raise Malformed(detail="a form that is not of one part alone")
    heads, found, content = inner[len(begin) : -len(end)].partition(b"\r\n\r\n")
    if not found or mark in content or mark in heads:
        raise Malformed(detail="a form of several parts, or a part without a head")
    return _kind(heads, name), content


def _kind(heads: bytes, name: bytes) -> bytes:
    """Return the media type that the head of a part says, of the one name that it must have."""
    said: dict[bytes, bytes] = {}
    for line in heads.split(b"\r\n"):
        key, colon, value = line.partition(b":")
        key = key.lower()
        if not colon or key not in _HEADS or key in said:
            raise Malformed(detail="the head of a part")
        said[key] = value.strip(b" ")
    named = _NAME.fullmatch(said.get(b"content-disposition", b""))
    if named is None or named[1] != name or said.get(b"content-transfer-encoding", b"binary").lower() != b"binary":
        raise Malformed(detail="a part of another name, or with a transfer encoding")
    return said.get(b"content-type", b"application/octet-stream").lower()


def form(name: bytes, kind: bytes, content: bytes) -> tuple[Headers, bytes]:
    """Return the headers and the body of a form with one file. No content holds a boundary that is its own digest."""
    boundary = sha256(content).hexdigest().encode()
    head = b'content-disposition: form-data; name="%b"; filename="%b"\r\ncontent-type: %b' % (name, name, kind)
    body = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (boundary, head, content, boundary)
    return ((b"content-type", FORM + b"; boundary=" + boundary),), body
