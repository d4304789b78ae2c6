"""The journal's two secrets, made at the first start: the long-term signing key and the pseudonyms' key.

`audit.pub` is for the auditor, who should get it on another way than the journal: a key that lies beside what it
proves, proves little.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.adapters.journal.disk import PRIVATE_FILE, private_directory, require_private
from proxy.audit.certificate import KEY_NAME
from proxy.audit.note import Signer
from proxy.audit.pseudonym import SECRET_BYTES
from proxy.audit.sealing import Recipient, SealError
from proxy.errors import ConfigError, Finding

SIGNING_FILE = "audit-signing.pem"
PSEUDONYM_FILE = "audit-pseudonym.hex"
PUBLIC_FILE = "audit.pub"


@dataclass(frozen=True, slots=True)
class Keys:
    """What a journal signs with and names with."""

    signer: Signer
    pseudonym_secret: bytes

    @property
    def public(self) -> str:
        """The line for the auditor."""
        return str(self.signer.verifier)


def ensure_keys(directory: Path) -> Keys:
    """Return the keys in a directory, made now if there are none; raise ConfigError for any that cannot be trusted."""
    signing, pseudonym, public = directory / SIGNING_FILE, directory / PSEUDONYM_FILE, directory / PUBLIC_FILE
    try:
        private_directory(directory)
        if public.exists() and not signing.exists():
            raise _config_error(
                signing, "is missing, but its public key is there", "restore it, or remove " + str(public)
            )
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _once(signing, key)
        _once(pseudonym, secrets.token_hex(SECRET_BYTES).encode() + b"\n")
        keys = Keys(_read_signer(signing), _read_secret(pseudonym))
        _once(public, keys.public.encode() + b"\n")
    except OSError as error:
        raise _config_error(
            directory, f"cannot hold the audit keys: {error.strerror}", "see its owner and mode"
        ) from error
    if public.read_text().strip() != keys.public:
        raise _config_error(public, "is not the public half of the signing key", "restore the pair")
    return keys


def read_recipient(path: Path) -> Recipient:
    """Return the public key that records are encrypted to; raise ConfigError for any that cannot be used."""
    try:
        return Recipient(path.read_bytes())
    except OSError as error:
        raise _config_error(path, f"cannot be read: {error.strerror}", "name a PEM file at audit.encrypt_to") from error
    except SealError as error:
        hint = "make one: openssl genpkey -algorithm x25519 -out auditor.pem && openssl pkey -pubout -in auditor.pem"
        raise _config_error(path, f"is {error}", hint) from error


def _once(path: Path, content: bytes) -> None:
    """Create a file whole or not at all; whoever comes second keeps what the first one made."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        os.write(fd, content)
        os.fsync(fd)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
        draft.unlink()


def _read_signer(path: Path) -> Signer:
    require_private(path, "chmod 600")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise _config_error(path, "is not an unencrypted PEM private key", "restore it from a backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _config_error(path, "is not an Ed25519 key", "let hip make one: remove the file")
    return Signer(KEY_NAME, key)


def _read_secret(path: Path) -> bytes:
    require_private(path, "chmod 600")
    try:
        secret = bytes.fromhex(path.read_text("ascii"))
    except ValueError as error:
        raise _config_error(path, "is not hexadecimal", "restore it from a backup") from error
    if len(secret) != SECRET_BYTES:
        raise _config_error(path, f"does not hold {SECRET_BYTES} bytes", "restore it from a backup")
    return secret


def _config_error(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
