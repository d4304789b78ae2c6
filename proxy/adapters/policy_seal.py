"""The files around a signed policy: the two keys, the signature, and the memory of which policy served last.

What a signature says and whether it holds is `proxy.policy.signature`'s; here are bytes and files.

Not guaranteed: that nobody who can write the memory turns it back. It lies with the journal, where only we write.
"""

import os
import re
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.adapters.journal.disk import PRIVATE_FILE, private_directory, require_private
from proxy.audit.note import NoteError, Signer, Verifier
from proxy.errors import ConfigError, Finding

PRIVATE_KEY_FILE = "policy-signing.pem"
PUBLIC_KEY_FILE = "policy.pub"
PUBLIC_FILE = 0o644
MAX_BYTES = 4096  # of a key, a signature, a memory

_MEMORY = re.compile(r"([0-9]{1,12}) ([0-9a-f]{64})\n")


def make_keys(directory: Path, name: str) -> Verifier:
    """Write a new pair of keys; refuse to overwrite one."""
    private, public = directory / PRIVATE_KEY_FILE, directory / PUBLIC_KEY_FILE
    key = Ed25519PrivateKey.generate()
    signer = Signer(name, key)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _create(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), PRIVATE_FILE)
        _create(public, f"{signer.verifier}\n".encode(), PUBLIC_FILE)
    except FileExistsError as exc:
        raise _fault(
            Path(str(exc.filename)), "is there already", "name another directory; keys are never overwritten"
        ) from exc
    except OSError as exc:
        raise _fault(directory, f"cannot hold the keys: {exc.strerror}", "see its owner and mode") from exc
    return signer.verifier


def read_signer(path: Path, name: str) -> Signer:
    """Return the private key. Raise ConfigError for one that others can read, or that is none."""
    try:
        require_private(path, "chmod 600")
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as exc:
        raise _fault(path, "is not an unencrypted PEM private key", "`hip policy keygen` makes one") from exc
    except OSError as exc:
        raise _fault(path, _words(exc), "name the private key: --key FILE") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise _fault(path, "is not an Ed25519 key", "`hip policy keygen` makes one")
    return Signer(name, key)


def read_verifier(path: Path) -> Verifier:
    """Return the public key. Raise ConfigError."""
    hint = f"name the {PUBLIC_KEY_FILE} that `hip policy keygen` made"
    try:
        return Verifier.parse(_read(path).decode("ascii"))
    except (NoteError, UnicodeDecodeError) as exc:
        raise _fault(path, "is not the public key of a policy", hint) from exc
    except OSError as exc:
        raise _fault(path, _words(exc), hint) from exc


def read_signature(path: Path) -> bytes | None:
    """Return the signature; None where there is none. Raise ConfigError."""
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _fault(path, _words(exc), "it must be readable by the user that runs the proxy") from exc


def write_whole(path: Path, content: bytes, mode: int = PUBLIC_FILE) -> None:
    """Put a file in the place of another, in one step. Raise ConfigError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _create(draft, content, mode)
        draft.replace(path)
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise _fault(path, f"cannot be written: {exc.strerror}", "see the directory's owner and mode") from exc


def recall(path: Path) -> tuple[int, str]:
    """Return version and digest of the policy that served last; zero where none ever did. Raise ConfigError."""
    try:
        match = _MEMORY.fullmatch(_read(path).decode("ascii"))
    except FileNotFoundError:
        return 0, ""
    except (OSError, UnicodeDecodeError) as exc:
        raise _forgotten(path) from exc
    if match is None:
        raise _forgotten(path)
    return int(match[1]), match[2]


def remember(path: Path, version: int, digest: str) -> None:
    """Keep what serves from now on. Raise ConfigError."""
    try:
        private_directory(path.parent)
    except OSError as exc:
        raise _fault(path.parent, f"cannot be made: {exc.strerror}", "see its owner and mode") from exc
    write_whole(path, f"{version} {digest}\n".encode(), PRIVATE_FILE)


def _create(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> bytes:
    # O_NONBLOCK: a named pipe must not hold us
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(MAX_BYTES)


def _words(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()


def _forgotten(path: Path) -> ConfigError:
    return _fault(
        path, "does not say which policy served last", "restore it; without it an older policy could come back"
    )


def _fault(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
