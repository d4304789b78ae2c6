"""A line of the anchor log: the small chained, signed file beside all streams of a directory, written by all workers.

Decides the bytes of a line and whether a certified key has signed it. Whether the lines make one story is
`proxy.audit.roster`'s part.
"""

import base64
from hashlib import sha256
from typing import Literal

import msgspec

from proxy.audit.certificate import Certificate
from proxy.audit.note import NoteError, Signer, Verifier, decode_base64

ANCHOR_VERSION = 1

_encode = msgspec.json.Encoder().encode


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was left of a stream that ended without order."""

    stream: str
    size: int
    root: str  # hexadecimal, of the tree over all its records
    torn_bytes: int
    torn_digest: str


class Deleted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The beginning of a stream, or all of it, that retention removed."""

    stream: str
    segments: int  # files, from the first one on
    size: int  # records
    hash: str  # of the last of them; of a whole stream, its root


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line. `size` and `root` are the writing stream's, `found` is another stream that it found dead."""

    v: int
    n: int
    prev: str
    kind: Literal["start", "head", "end", "recovered", "retention"]
    stream: str
    t_ns: int
    size: int
    root: str  # hexadecimal, of the tree over all its records, also those that are withheld
    certificate: str
    found: Found | None = None
    deleted: Deleted | None = None
    torn_bytes: int = 0  # of an unfinished anchor line that this writer removed


_read = msgspec.json.Decoder(Anchor).decode
_SIGNATURE = b',"sig":"'
_SIGNATURE_CHARS = 88  # 64 bytes in base64
_TAIL = len(_SIGNATURE) + _SIGNATURE_CHARS + len(b'"}')


class AnchorError(ValueError):
    """Not an anchor line that a certified key has signed."""


def line_hash(line: bytes) -> str:
    """Return the hash by which the next line, and an auditor, name this one."""
    return sha256(line).hexdigest()


def write(anchor: Anchor, signer: Signer) -> bytes:
    """Return the signed line, without a newline."""
    body = _encode(anchor)[:-1]
    return body + _SIGNATURE + base64.b64encode(signer.sign(body)) + b'"}'


def unverified(line: bytes) -> Anchor:
    """Read a line without looking at its signature: for the writer's own files only."""
    try:
        return _read(line[:-_TAIL] + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AnchorError("not an anchor line") from error


def read(line: bytes, auditor: Verifier) -> Anchor:
    """Read a line whose signing key the auditor's key has certified for that stream and time."""
    body, tail = line[:-_TAIL], line[-_TAIL:]
    anchor = unverified(line)
    if _encode(anchor)[:-1] != body or not tail.startswith(_SIGNATURE) or not tail.endswith(b'"}'):
        raise AnchorError("an anchor line is not spelled as we write it")
    try:
        certificate = Certificate.open(anchor.certificate, auditor)
        signature = decode_base64(tail[len(_SIGNATURE) : -2].decode("ascii", "replace"))
    except NoteError as error:
        message = f"an anchor line without a valid certificate: {error}"
        raise AnchorError(message) from error
    if certificate.stream != anchor.stream or not certificate.covers(anchor.t_ns):
        raise AnchorError("an anchor line's key is certified for another stream or time")
    if not certificate.key.holds(body, signature):
        raise AnchorError("an anchor line's signature does not hold")
    return anchor
