"""Signed notes: the text format in which keys sign heads and certificates (C2SP signed-note, Ed25519 type 0x01).

Decides whether a text was signed by a key. Stricter than the specification on purpose: exactly one signature, one
spelling, so that no byte of a note can change unseen. It does NOT decide whether the key may sign that text.
"""

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"  # signature type identifier
KEY_BYTES = 32
KEY_ID_BYTES = 4
SIGNATURE_BYTES = 64
DASH = "\u2014 "


class NoteError(ValueError):
    """Not a note that this key has signed."""


def decode_base64(text: str) -> bytes:
    """Decode standard base64 in its one canonical spelling."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("not base64") from error
    if base64.b64encode(raw).decode() != text:  # spare bits that are not zero: a second spelling of the same bytes
        raise NoteError("not canonical base64")
    return raw


def _key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:KEY_ID_BYTES]


def _check_name(name: str) -> str:
    if not name or "+" in name or any(char.isspace() for char in name):
        raise NoteError("a key name is not empty and has neither spaces nor '+'")
    return name


@dataclass(frozen=True, slots=True)
class Verifier:
    """A named public key. Its string form is the `name+id+key` line that an auditor is given."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read the `name+id+key` form."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise NoteError("a verifier key has the form name+id+key")
        raw = decode_base64(parts[2])
        if raw[:1] != ED25519 or len(raw) != 1 + KEY_BYTES:
            raise NoteError("not an Ed25519 verifier key")
        key = cls(_check_name(parts[0]), raw[1:])
        if _key_id(key.name, key.public).hex() != parts[1]:
            raise NoteError("the key's id does not fit its name and bytes")
        return key

    def __str__(self) -> str:
        identity = _key_id(self.name, self.public).hex()
        return f"{self.name}+{identity}+{base64.b64encode(ED25519 + self.public).decode()}"

    def holds(self, message: bytes, signature: bytes) -> bool:
        """Say whether the raw signature over the message is this key's."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def open(self, note: str) -> str:
        """Return the text of a note that carries this key's signature and no other."""
        text, _, tail = note.rpartition("\n\n")
        text += "\n"
        head = f"{DASH}{self.name} "
        if not (text.strip() and tail.startswith(head) and tail.endswith("\n")):
            raise NoteError("not a note with one signature of this key's name")
        blob = decode_base64(tail[len(head) : -1])
        if len(blob) != KEY_ID_BYTES + SIGNATURE_BYTES or blob[:KEY_ID_BYTES] != _key_id(self.name, self.public):
            raise NoteError("signed by another key")
        if not self.holds(text.encode(), blob[KEY_ID_BYTES:]):
            raise NoteError("the signature does not hold")
        return text


class Signer:
    """A named private key."""

    __slots__ = ("_private", "verifier")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.verifier = Verifier(_check_name(name), private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the raw signature."""
        return self._private.sign(message)

    def note(self, text: str) -> str:
        """Sign a text that ends in a newline."""
        if not text.endswith("\n"):
            raise NoteError("a note's text ends in a newline")
        public = self.verifier
        blob = _key_id(public.name, public.public) + self._private.sign(text.encode())
        return f"{text}\n{DASH}{public.name} {base64.b64encode(blob).decode()}\n"
