"""Certificates for development: what they say, how they lie on disk, and that nothing is overwritten."""

import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.adapters.mint import mint
from proxy.errors import ConfigError


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_names_and_validity(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    minted = mint(tmp_path / "certs", ["proxy.example", "127.0.0.1", "::1"], ["analyst", "batch-1"], now)
    server = read(minted.server.certificate)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["proxy.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert server.not_valid_before_utc < now < server.not_valid_after_utc
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)
    assert list(minted.clients) == ["analyst", "batch-1"]


def test_openssl_agrees(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command")
    minted = mint(tmp_path / "certs", ["localhost"], ["analyst"])
    for purpose, pair in (("sslserver", minted.server), ("sslclient", minted.clients["analyst"])):
        command = [openssl, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(minted.ca.certificate)]
        subprocess.run([*command, str(pair.certificate)], check=True, capture_output=True)


def test_files_are_the_owners(tmp_path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        mint(tmp_path / "certs", ["localhost"], ["analyst"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "certs").iterdir()} == {0o600}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    minted = mint(tmp_path, ["localhost"], [])
    before = minted.server.key.read_bytes()
    with pytest.raises(ConfigError, match="not overwritten"):
        mint(tmp_path, ["localhost"], ["analyst"])
    assert minted.server.key.read_bytes() == before
    assert not (tmp_path / "client-analyst.key").exists()


@pytest.mark.parametrize(
    ("hosts", "clients", "message"),
    [
        ([], [], "no host"),
        (["a b"], [], "not a host name"),
        (["-a"], [], "not a host name"),
        (["localhost"], ["../x"], "not a client's name"),
        (["localhost"], ["X"], "not a client's name"),
        (["localhost"], [""], "not a client's name"),
        (["localhost"], ["a", "a"], "named twice"),
    ],
)
def test_bad_names(hosts: list[str], clients: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        mint(tmp_path / "certs", hosts, clients)
    assert not (tmp_path / "certs").exists()
