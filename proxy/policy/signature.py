"""Signed policies: whether the people who may change a policy have changed it, and in which order. Pure.

`policy.sig` is a signed note (C2SP signed-note, Ed25519) over three lines: what it is, a version number and the
digest of the policy files. The number only grows, so that an old policy that was once good cannot be put back.

Not guaranteed: what lies in files that the policy names and the digest does not cover (key sets, certificates; a
detector is covered by its own digest). And who holds the key may sign anything.
"""

import re
from dataclasses import dataclass

from proxy.audit.note import NoteError, Signer, Verifier

KEY_NAME = "hip-policy"  # in notes and in public keys
SIGNATURE_FILE = "policy.sig"
MAX_VERSION = 10**12
MAX_NOTE = 4096  # bytes

_TITLE = "hip policy v1"
_TEXT = re.compile(rf"{_TITLE}\nversion ([1-9][0-9]{{0,11}})\ndigest ([0-9a-f]{{64}})\n")


class SignatureError(ValueError):
    """Not a signature of this policy by this key."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature says. `digest` is the policy's, hexadecimal."""

    version: int
    digest: str

    def __str__(self) -> str:
        return f"{_TITLE}\nversion {self.version}\ndigest {self.digest}\n"


def sign(statement: Signed, signer: Signer) -> bytes:
    """Return the content of `policy.sig`."""
    return signer.note(str(statement)).encode()


def claimed(note: bytes) -> Signed:
    """Return what a signature says, unverified: to choose the next number, never to believe it."""
    match = _TEXT.match(note.decode("utf-8", "replace"))
    if match is None:
        raise SignatureError("not a policy signature")
    return Signed(int(match[1]), match[2])


def verify(note: bytes, verifier: Verifier, digest: str) -> int:
    """Return the version number that the key signed for this digest, or raise SignatureError."""
    try:
        text = verifier.open(note[: MAX_NOTE + 1].decode())
    except (NoteError, UnicodeDecodeError) as exc:
        raise SignatureError(str(exc) if isinstance(exc, NoteError) else "not a policy signature") from exc
    match = _TEXT.fullmatch(text)
    if match is None:
        raise SignatureError("signed, but not a policy signature")
    if match[2] != digest:
        raise SignatureError("it is the signature of other files")
    return int(match[1])
