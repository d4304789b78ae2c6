"""Encryption at rest: each segment has a key of its own, wrapped to a public key whose private half is elsewhere.

Decides the bytes of a `.sealed` file: one JSON line with the wrapped key, then frames of length and AES-256-GCM
ciphertext, each frame bound to the header and to its number. X25519 recipients get HPKE (RFC 9180, base mode), RSA
ones OAEP with SHA-256 (RFC 8017). Who stole the proxy's disk reads nothing; destroying the private key erases what was
sealed, and the hashes outside still verify. It does NOT protect what a live process holds in memory.
"""

import base64
import binascii
from collections.abc import Iterator
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

KEY_BITS = 256
NONCE_BYTES = 12
LENGTH_BYTES = 4
MAX_FRAME = 64 << 20  # bytes
MAX_HEADER = 16 << 10  # bytes
MIN_RSA_BITS = 2_048
_VERSION = 1
_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
_encode = msgspec.json.Encoder().encode


class SealError(ValueError):
    """A key that cannot be used, or bytes that this key did not seal."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a `.sealed` file."""

    v: int
    stream: str
    segment: int
    recipient: str  # the first 16 hexadecimal digits of the SHA-256 of the public key (SubjectPublicKeyInfo)
    key: str  # wrapped, base64


_read_header = msgspec.json.Decoder(Header).decode


class Recipient:
    """A public key that segments are sealed to."""

    def __init__(self, pem: bytes) -> None:
        try:
            key = load_pem_public_key(pem)
        except (ValueError, TypeError) as error:
            raise SealError("not a public key in PEM") from error
        if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
            message = f"an RSA key of {key.key_size} bits, {MIN_RSA_BITS} are the least"
            raise SealError(message)
        if not isinstance(key, X25519PublicKey | RSAPublicKey):
            raise SealError("neither an X25519 nor an RSA key")
        self._key = key
        self.name = _name(key)

    def wrap(self, key: bytes, info: bytes) -> bytes:
        """Return a key that only the private half can read."""
        if isinstance(self._key, X25519PublicKey):
            return _HPKE.encrypt(key, self._key, info=info)
        return self._key.encrypt(key, _OAEP)


def _name(key: X25519PublicKey | RSAPublicKey) -> str:
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]


def _info(stream: str, segment: int) -> bytes:
    return f"hip audit segment v{_VERSION} {stream} {segment}".encode()


class Sealer:
    """One segment, while it is written."""

    def __init__(self, stream: str, segment: int, recipient: Recipient) -> None:
        key = AESGCM.generate_key(KEY_BITS)
        wrapped = base64.b64encode(recipient.wrap(key, _info(stream, segment))).decode()
        self.header = _encode(Header(_VERSION, stream, segment, recipient.name, wrapped))
        self._cipher = AESGCM(key)
        self._frames = 0

    def frame(self, data: bytes) -> bytes:
        """Return the next frame."""
        sealed = self._cipher.encrypt(_nonce(self._frames), data, self.header)
        self._frames += 1
        return len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed


class Opener:
    """The private half."""

    def __init__(self, pem: bytes, password: bytes | None = None) -> None:
        try:
            key = load_pem_private_key(pem, password)
        except (ValueError, TypeError) as error:
            raise SealError("not a private key in PEM that this password opens") from error
        if not isinstance(key, X25519PrivateKey | RSAPrivateKey):
            raise SealError("neither an X25519 nor an RSA key")
        self._key = key
        self._name = _name(key.public_key())

    def lines(self, data: bytes, stream: str, segment: int) -> Iterator[bytes]:
        """Yield a sealed segment's lines; an unfinished last frame is what a crash left, and was never promised."""
        head, newline, rest = data.partition(b"\n")
        if not newline or len(head) > MAX_HEADER:
            return
        cipher = AESGCM(self._unwrap(head, stream, segment))
        view, at, number = memoryview(rest), 0, 0
        while at + LENGTH_BYTES <= len(view):
            length = int.from_bytes(view[at : at + LENGTH_BYTES], "big")
            at += LENGTH_BYTES
            if length > MAX_FRAME:
                raise SealError("a frame that is too long")
            if at + length > len(view):
                return
            try:
                plain = cipher.decrypt(_nonce(number), bytes(view[at : at + length]), head)
            except InvalidTag as error:
                message = f"frame {number} was changed"
                raise SealError(message) from error
            yield from plain.splitlines()
            at += length
            number += 1

    def _unwrap(self, head: bytes, stream: str, segment: int) -> bytes:
        try:
            header = _read_header(head)
            wrapped = base64.b64decode(header.key, validate=True)
        except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
            raise SealError("not a sealed segment") from error
        if (header.v, header.stream, header.segment) != (_VERSION, stream, segment):
            raise SealError("the sealed part of another segment, or of another version")
        if header.recipient != self._name:
            message = f"sealed to the key {header.recipient}, this one is {self._name}"
            raise SealError(message)
        try:
            if isinstance(self._key, X25519PrivateKey):
                return _HPKE.decrypt(wrapped, self._key, info=_info(stream, segment))
            return self._key.decrypt(wrapped, _OAEP)
        except (InvalidTag, ValueError) as error:
            raise SealError("the segment's key does not open") from error


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES, "big")  # unique: the key is this segment's own, and frames are counted
