"""Signed policies: what may serve, in which order, and how `hip policy` says what to do next."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from policy_building import BASE, READERS
from typer.testing import CliRunner, Result

from proxy.adapters.policy_seal import PRIVATE_KEY_FILE, PUBLIC_KEY_FILE
from proxy.app.seal import MEMORY_FILE, Seal
from proxy.audit.note import Signer
from proxy.cli import app
from proxy.errors import ConfigError
from proxy.policy.compile import digest
from proxy.policy.signature import KEY_NAME, SignatureError, Signed, sign, verify

SIGNER = Signer(KEY_NAME, Ed25519PrivateKey.from_private_bytes(bytes(32)))
OTHER = Signer(KEY_NAME, Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01"))
DIGEST, ANOTHER = "0" * 64, "1" * 64


def test_a_signature_says_its_version() -> None:
    assert verify(sign(Signed(7, DIGEST), SIGNER), SIGNER.verifier, DIGEST) == 7


BROKEN: list[tuple[str, bytes, str]] = [
    ("another key", sign(Signed(7, DIGEST), OTHER), "signed by another key"),
    ("other files", sign(Signed(7, ANOTHER), SIGNER), "it is the signature of other files"),
    (
        "another number",
        sign(Signed(7, DIGEST), SIGNER).replace(b"version 7", b"version 8"),
        "the signature does not hold",
    ),
    (
        "another statement of the key",
        SIGNER.note(f"hip audit v1\nversion 7\ndigest {DIGEST}\n").encode(),
        "not a policy",
    ),
    ("version zero", sign(Signed(0, DIGEST), SIGNER), "not a policy"),
    ("a line more", SIGNER.note(f"{Signed(7, DIGEST)}and more\n").encode(), "not a policy"),
    ("nothing", b"", "not a note"),
    ("binary", bytes(range(256)), "not a policy"),
    ("much", sign(Signed(7, DIGEST), SIGNER) * 100, "not a note"),
]


@pytest.mark.parametrize(("note", "why"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_what_is_not_signed_is_refused(note: bytes, why: str) -> None:
    with pytest.raises(SignatureError, match=why):
        verify(note, SIGNER.verifier, DIGEST)


def test_no_byte_of_a_signature_can_change() -> None:
    note = sign(Signed(7, DIGEST), SIGNER)
    for place in range(len(note)):
        changed = note[:place] + bytes([note[place] ^ 1]) + note[place + 1 :]
        with pytest.raises(SignatureError):
            verify(changed, SIGNER.verifier, DIGEST)


# ── what may serve ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def seal(tmp_path: Path) -> Callable[..., int]:
    """Sign version and digest, and ask whether that may serve."""

    def admit(version: int, signed: str = DIGEST, *, rollback: bool = False) -> int:
        (tmp_path / "policy.sig").write_bytes(sign(Signed(version, signed), SIGNER))
        return Seal(SIGNER.verifier, tmp_path / "audit" / MEMORY_FILE, rollback).admit(tmp_path, signed)

    return admit


def refused(admit: Callable[..., int], *arguments: object, **options: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        admit(*arguments, **options)
    return str(caught.value)


def test_versions_only_grow(seal: Callable[..., int]) -> None:
    assert seal(3) == 3
    assert seal(3) == 3
    assert seal(5, ANOTHER) == 5
    assert "is version 3, and version 5 has served" in refused(seal, 3)
    assert "`rollback: allowed`" in refused(seal, 3)


def test_a_number_belongs_to_one_policy(seal: Callable[..., int]) -> None:
    seal(3)
    assert "is version 3, and other files have served under that number" in refused(seal, 3, ANOTHER)


def test_a_rollback_takes_a_word(seal: Callable[..., int]) -> None:
    """With the word, the older version serves, and from then on it is the one that has."""
    seal(5)
    assert seal(3, ANOTHER, rollback=True) == 3
    assert seal(3, ANOTHER) == 3


def test_a_lost_or_spoilt_memory(seal: Callable[..., int], tmp_path: Path) -> None:
    seal(3)
    memory = tmp_path / "audit" / MEMORY_FILE
    assert memory.stat().st_mode & 0o077 == 0
    for spoilt in (b"", b"3\n", b"four " + DIGEST.encode() + b"\n", b"\xff"):
        memory.write_bytes(spoilt)
        assert "does not say which policy served last" in refused(seal, 4)


def test_no_signature_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy.sig: is not there, and hip.yaml requires it .*hip policy sign"):
        Seal(SIGNER.verifier, tmp_path / MEMORY_FILE, rollback=False).admit(tmp_path, DIGEST)


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def hip_policy(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["policy", *map(str, arguments)])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/policy.yaml").write_text(BASE + READERS)
    return tmp_path


def test_from_keys_to_a_verified_policy(directory: Path) -> None:
    made = hip_policy("keygen", directory / "keys")
    assert made.exit_code == 0
    private, public = directory / "keys" / PRIVATE_KEY_FILE, directory / "keys" / PUBLIC_KEY_FILE
    assert private.stat().st_mode & 0o777 == 0o600
    again = hip_policy("keygen", directory / "keys")
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    unsigned = hip_policy("verify", directory / "policy", "--public-key", public)
    assert (unsigned.exit_code, "not signed" in unsigned.output) == (1, True)
    for version in (1, 2):
        signed = hip_policy("sign", directory / "policy", "--key", private)
        assert signed.exit_code == 0
        assert (
            f"policy.sig: version {version}, digest {digest({'policy.yaml': (BASE + READERS).encode()})}"
            in signed.output
        )
    assert "version 9" in hip_policy("sign", directory / "policy", "--key", private, "--version", 9).output
    assert hip_policy("verify", directory / "policy", "--public-key", public).exit_code == 0
    (directory / "policy/policy.yaml").write_text(BASE + READERS + "# one more line\n")
    changed = hip_policy("verify", directory / "policy", "--public-key", public)
    assert (changed.exit_code, "other files" in changed.output) == (1, True)


def test_a_broken_policy_is_not_signed(directory: Path) -> None:
    hip_policy("keygen", directory / "keys")
    (directory / "policy/policy.yaml").write_text("version: v2\n")
    result = hip_policy("sign", directory / "policy", "--key", directory / "keys" / PRIVATE_KEY_FILE)
    assert result.exit_code == 2
    assert "not a good policy; `hip check" in result.output
    assert not (directory / "policy/policy.sig").exists()


def test_keys_that_are_none(directory: Path) -> None:
    hip_policy("keygen", directory / "keys")
    private, public = directory / "keys" / PRIVATE_KEY_FILE, directory / "keys" / PUBLIC_KEY_FILE
    wrong = hip_policy("sign", directory / "policy", "--key", public)
    assert (wrong.exit_code, "chmod 600" in wrong.output) == (2, True)
    public.chmod(0o600)
    assert "not an unencrypted PEM private key" in hip_policy("sign", directory / "policy", "--key", public).output
    private.chmod(0o644)
    assert "chmod 600" in hip_policy("sign", directory / "policy", "--key", private).output
    assert "no such file" in hip_policy("sign", directory / "policy", "--key", directory / "gone").output
    assert "not the public key" in hip_policy("verify", directory / "policy", "--public-key", private).output


def test_a_spoilt_signature_does_not_count_as_none(directory: Path) -> None:
    hip_policy("keygen", directory / "keys")
    private = directory / "keys" / PRIVATE_KEY_FILE
    (directory / "policy/policy.sig").write_text("scrap")
    result = hip_policy("sign", directory / "policy", "--key", private)
    assert (result.exit_code, "say which number comes next: --version" in result.output) == (2, True)
    assert hip_policy("sign", directory / "policy", "--key", private, "--version", 12).exit_code == 0
