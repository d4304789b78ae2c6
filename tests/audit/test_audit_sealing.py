"""Encryption at rest: verifies without a key, reads with one, and hides what speaks of persons."""

import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from stories import Place, crash, place, serve
from typer.testing import CliRunner

from proxy.adapters.journal.reading import Kept, Verification, verify
from proxy.adapters.journal.unsealing import unseal
from proxy.audit.findings import Status
from proxy.audit.sealing import Opener, Recipient, Sealer, SealError
from proxy.cli.audit import audit_app

RSA = generate_rsa(65537, 2048)
X25519 = X25519PrivateKey.generate()


def public(key: RSAPrivateKey | X25519PrivateKey) -> Recipient:
    return Recipient(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private(key: RSAPrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def judge(where: Place, directory: Path | None = None) -> Verification:
    return verify(directory or where.directory, where.auditor, Kept())


async def sealed(tmp_path: Path, key: RSAPrivateKey | X25519PrivateKey = X25519) -> tuple[Place, list[str]]:
    where = place(tmp_path)
    first = await where.open(recipient=public(key))
    events = await serve(first, 20, refused=4)
    await crash(first, torn=b'{"withheld":9')
    second = await where.open(recipient=public(key))
    events += await serve(second, 5)
    await second.close()
    return where, events


@pytest.mark.parametrize("key", [X25519, RSA], ids=["x25519", "rsa"])
async def test_it_verifies_without_a_key_and_reads_with_one(
    tmp_path: Path, key: RSAPrivateKey | X25519PrivateKey
) -> None:
    where, events = await sealed(tmp_path, key)
    found = judge(where)
    assert found.status is Status.INTACT, found
    assert sum(report.withheld for report in found.streams) == 2 * 25 + 4
    on_disk = b"".join(path.read_bytes() for path in where.directory.iterdir())
    assert not [event for event in events if event.encode() in on_disk]
    count = unseal(where.directory, tmp_path / "plain", Opener(private(key)))
    assert (count.opened, count.missing) == (2 * 25 + 4, 0)
    found = judge(where, tmp_path / "plain")
    assert found.status is Status.INTACT, found
    assert (sum(report.allowed for report in found.streams), sum(report.withheld for report in found.streams)) == (
        25,
        0,
    )
    plain = b"".join(path.read_bytes() for path in (tmp_path / "plain").iterdir())
    assert not [event for event in events if event.encode() not in plain]


async def test_no_changed_bit_of_either_half_is_taken(tmp_path: Path) -> None:
    """The clear half fails verification; the sealed half fails to open, or leaves its records withheld."""
    where, _ = await sealed(tmp_path)
    chance, opener = random.Random(7), Opener(private(X25519))
    files = sorted(where.directory.glob("2*.*"))
    files = [path for path in files if path.suffix in {".jsonl", ".sealed"}]
    for turn in range(120):
        path = chance.choice(files)
        honest = path.read_bytes()
        data = bytearray(honest)
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(data))
        if path.suffix == ".jsonl":
            assert judge(where).status is Status.TAMPERED, (path, at)
        else:
            assert judge(where).status is Status.INTACT
            try:
                count = unseal(where.directory, tmp_path / f"plain{turn}", opener)
            except SealError:
                pass
            else:
                assert count.missing, (path, at)
        path.write_bytes(honest)
    assert judge(where).status is Status.INTACT


async def test_a_sealed_record_that_was_never_acknowledged_is_left_out(tmp_path: Path) -> None:
    """A crash between the two writes: the sealed half knows more than the clear one."""
    where = place(tmp_path)
    journal = await where.open(recipient=public(X25519))
    await serve(journal, 2)
    stream = journal._writer.stream
    await crash(journal)
    path = where.directory / f"{stream.name}.{stream._index:06d}.sealed"
    assert stream._sealer is not None
    path.write_bytes(path.read_bytes() + stream._sealer.frame(b'{"v":1,"never":"promised"}\n') + b"\x00\x00\x01")
    await (await where.open(recipient=public(X25519))).close()
    assert judge(where).status is Status.INTACT
    count = unseal(where.directory, tmp_path / "plain", Opener(private(X25519)))
    assert (count.opened, count.missing) == (4, 0)
    assert judge(where, tmp_path / "plain").status is Status.INTACT


async def test_a_crash_in_the_middle_of_withheld_records_is_found_in_its_place(tmp_path: Path) -> None:
    where = place(tmp_path)
    first = await where.open(recipient=public(X25519))
    await serve(first, 1)
    await crash(first)
    lines = (where.directory / f"{first._writer.stream.name}.000000.jsonl").read_bytes().splitlines()
    assert lines[-1].startswith(b'{"withheld":')
    await (await where.open()).close()
    found = judge(where)
    assert (found.status, found.streams[0].ending) == (Status.INTACT, "recovered")


def test_a_sealed_part_opens_only_in_its_own_place() -> None:
    sealer = Sealer("stream", 0, public(X25519))
    data = sealer.header + b"\n" + sealer.frame(b"one\n") + sealer.frame(b"two\n")
    opener = Opener(private(X25519))
    assert list(opener.lines(data, "stream", 0)) == [b"one", b"two"]
    for stream, segment in (("other", 0), ("stream", 1)):
        with pytest.raises(SealError):
            list(opener.lines(data, stream, segment))
    with pytest.raises(SealError, match="sealed to the key"):
        list(Opener(private(RSA)).lines(data, "stream", 0))
    first, second = sealer.frame(b"x"), sealer.frame(b"y")
    with pytest.raises(SealError, match="was changed"):
        list(opener.lines(data + second + first, "stream", 0))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nonsense",
        private(X25519),
        generate_ec(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        generate_rsa(65537, 1024).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "nonsense", "private", "ec", "short rsa"],
)
def test_a_key_that_cannot_be_used_is_refused(pem: bytes) -> None:
    with pytest.raises(SealError):
        Recipient(pem)


async def test_the_command_decrypts(tmp_path: Path) -> None:
    where, _ = await sealed(tmp_path)
    key = tmp_path / "auditor.pem"
    key.write_bytes(X25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"horse")))
    (tmp_path / "password").write_text("horse\n")
    run = CliRunner()
    arguments = ["decrypt", str(where.directory), "-o", str(tmp_path / "plain"), "--private-key", str(key)]
    assert run.invoke(audit_app, arguments).exit_code == 2
    good = [*arguments, "--password-file", str(tmp_path / "password")]
    assert run.invoke(audit_app, good).exit_code == 0
    again = run.invoke(audit_app, good)
    assert (again.exit_code, "not empty" in again.output) == (2, True)
    shown = run.invoke(audit_app, ["verify", str(where.directory), "--public-key", str(where.auditor)])
    assert "records withheld" in shown.output
