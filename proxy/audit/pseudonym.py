"""Pseudonyms: keyed hashes that stand for persons, machines, tokens and inputs in records and spans.

Decides that the same subject has the same name in every record of a key epoch, and that nobody without the key can
test a guess. One key for each purpose (HKDF, RFC 5869), so names of different purposes never match. A pseudonym is
NOT anonymous: who holds the key can look up whom he suspects.
"""

import base64
import hmac
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SECRET_BYTES = 32
PSEUDONYM_BYTES = 16  # of the HMAC: 128 bits do not collide by accident
MEMO_ENTRIES = 8_192  # per purpose; an attacker who floods us with addresses costs time, not memory
_INFO = b"hip audit pseudonym v1 "


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, _INFO + purpose).derive(secret)


def _framed(first: str, second: str) -> bytes:
    # The length in front keeps ("a", "b:c") apart from ("a:b", "c"); surrogates may come from a JSON claim.
    return f"{len(first)}:{first}:{second}".encode("utf-8", "surrogatepass")


class Pseudonyms:
    """The keyed hashes of one secret. `epoch` stands before each, so that a new secret is visible as such."""

    __slots__ = ("_addresses", "_input", "_prefix", "_subjects", "_tokens", "epoch")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            message = f"a pseudonym secret has {SECRET_BYTES} bytes"
            raise ValueError(message)
        self.epoch = _derive(secret, b"epoch")[:3].hex()
        self._prefix = self.epoch + "."
        self._subjects = _Memo(self._named(secret, b"subject"))
        self._addresses = _Memo(self._named(secret, b"address"))
        self._tokens = _Memo(self._named(secret, b"token"))
        self._input = self._named(secret, b"input")

    def _named(self, secret: bytes, purpose: bytes) -> "_Name":
        keyed, prefix = hmac.new(_derive(secret, purpose), digestmod="sha256"), self._prefix

        def name(message: bytes, behind: bytes | memoryview = b"") -> str:
            hashed = keyed.copy()  # the key is worked in once
            hashed.update(message)
            if behind:
                hashed.update(behind)
            return prefix + base64.urlsafe_b64encode(hashed.digest()[:PSEUDONYM_BYTES])[:-2].decode()

        return name

    def subject(self, issuer: str, subject: str) -> str:
        """Return the name of a caller."""
        return self._subjects.get(issuer, subject)

    def address(self, address: str) -> str:
        """Return the name of a source address."""
        return self._addresses.get("", address)

    def token(self, issuer: str, token_id: str) -> str:
        """Return the name of a token, by its issuer and `jti`."""
        return self._tokens.get(issuer, token_id)

    def input(self, body: bytes, behind: bytes | memoryview = b"") -> str:
        """Return the name of a request body: equal inputs can be found, inputs cannot be read. `behind` follows it."""
        return self._input(body, behind)


class _Name(Protocol):
    """The keyed hash of a message, which may come in two parts."""

    def __call__(self, message: bytes, behind: bytes | memoryview = b"") -> str: ...


class _Memo:
    """The names most recently made, oldest dropped first."""

    __slots__ = ("_known", "_name")

    def __init__(self, name: _Name) -> None:
        self._name = name
        self._known: dict[tuple[str, str], str] = {}

    def get(self, first: str, second: str) -> str:
        known = self._known
        found = known.get((first, second))
        if found is None:
            found = self._name(_framed(first, second))
            if len(known) >= MEMO_ENTRIES:
                del known[next(iter(known))]
            known[first, second] = found
        return found
