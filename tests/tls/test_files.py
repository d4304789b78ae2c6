"""What the listener's TLS takes from disk, and what it refuses, with the words that help."""

import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from proxy.adapters.mint import Minted, mint
from proxy.adapters.tls import ClientCertificates, Profile, ServerTls, TlsFiles, exposed
from proxy.errors import ConfigError

NOW = time.time()
DAY = 86_400.0


@pytest.fixture
def minted(tmp_path: Path) -> Minted:
    return mint(tmp_path / "certs", ["localhost"], ["analyst"])


def load(
    minted: Minted,
    *,
    key: Path | None = None,
    certificate: Path | None = None,
    password: Path | None = None,
    ca: Path | None = None,
    clients: ClientCertificates = ClientCertificates.OFF,
    now: float = NOW,
) -> ServerTls:
    files = TlsFiles(certificate or minted.server.certificate, key or minted.server.key, password, ca)
    return ServerTls(files, clients, Profile.INTERMEDIATE, now)


def secret(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def encrypted(minted: Minted, directory: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command")
    path = directory / "encrypted.key"
    command = [openssl, "pkcs8", "-topk8", "-in", str(minted.server.key), "-out", str(path), "-passout", "pass:secret"]
    subprocess.run(command, check=True)
    path.chmod(0o600)
    return path


def test_a_good_pair_tells_when_it_ends(minted: Minted) -> None:
    assert 89 * DAY < load(minted).expires - NOW < 91 * DAY


def test_encrypted_key(minted: Minted, tmp_path: Path) -> None:
    key = encrypted(minted, tmp_path)
    assert load(minted, key=key, password=secret(tmp_path / "password", "secret\n")).expires
    with pytest.raises(ConfigError, match="another password"):
        load(minted, key=key, password=secret(tmp_path / "password", "wrong\n"))
    with pytest.raises(ConfigError, match="no password is given"):  # and OpenSSL asks nobody on a terminal
        load(minted, key=key)
    with pytest.raises(ConfigError, match="no password is given"):
        load(minted, key=key, password=secret(tmp_path / "password", ""))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_that_others_can_read(mode: int, minted: Minted) -> None:
    minted.server.key.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(minted)


def test_a_password_that_others_can_read(minted: Minted, tmp_path: Path) -> None:
    password = secret(tmp_path / "password", "secret")
    password.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(minted, key=encrypted(minted, tmp_path), password=password)


@pytest.mark.parametrize(
    ("mode", "owner", "we", "verdict"),
    [
        (0o600, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o440, 0, 1000, False),  # a secret that Kubernetes mounts for a process that is not root
        (0o444, 0, 1000, True),
        (0o460, 0, 1000, True),
        (0o440, 0, 0, True),
    ],
)
def test_exposed(mode: int, owner: int, we: int, verdict: bool) -> None:
    assert exposed(stat.S_IFREG | mode, owner, we) is verdict


def test_key_of_another_certificate(minted: Minted) -> None:
    with pytest.raises(ConfigError, match="does not belong"):
        load(minted, key=minted.ca.key)


def test_key_that_is_none(minted: Minted, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no PEM key"):
        load(minted, key=secret(tmp_path / "key", "nothing"))


def test_certificate_that_is_none(minted: Minted) -> None:
    with pytest.raises(ConfigError, match="no certificate can be read"):
        load(minted, certificate=minted.server.key)


def test_every_missing_file_is_a_finding_at_once(minted: Minted, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(minted, certificate=tmp_path / "no.crt", key=tmp_path / "no.key", password=tmp_path / "no.password")
    assert {Path(finding.file).name for finding in caught.value.findings} == {"no.crt", "no.key", "no.password"}


@pytest.mark.parametrize("shift", [-DAY, 100 * DAY])
def test_not_valid_now(shift: float, minted: Minted) -> None:
    with pytest.raises(ConfigError, match="which is not now"):
        load(minted, now=NOW + shift)


def test_weak_keys_are_refused(tmp_path: Path, minted: Minted) -> None:
    """SP 800-57: 112 bits."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command")
    key, certificate = tmp_path / "weak.key", tmp_path / "weak.crt"
    command = [openssl, "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x", "-days", "3"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    key.chmod(0o600)
    with pytest.raises(ConfigError, match="EE_KEY_TOO_SMALL"):
        load(minted, certificate=certificate, key=key, now=time.time())


def test_a_certificate_that_demands_stapling_is_refused(tmp_path: Path, minted: Minted) -> None:
    """RFC 7633: clients would end every handshake, since Python cannot staple (ADR 0012)."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command")
    key, certificate = tmp_path / "staple.key", tmp_path / "staple.crt"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "3"]
    command += ["-addext", "tlsfeature=status_request", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o600)
    with pytest.raises(ConfigError, match="demands a stapled OCSP answer"):
        load(minted, certificate=certificate, key=key, now=time.time())


@pytest.mark.parametrize("clients", [ClientCertificates.OPTIONAL, ClientCertificates.REQUIRED])
def test_client_certificates_need_a_ca(clients: ClientCertificates, minted: Minted) -> None:
    with pytest.raises(ConfigError, match="no CA may issue them"):
        load(minted, clients=clients)


def test_a_ca_that_nobody_needs(minted: Minted) -> None:
    with pytest.raises(ConfigError, match="no client is asked"):
        load(minted, ca=minted.ca.certificate)


@pytest.mark.parametrize("content", ["", "nothing"])
def test_a_ca_that_is_none(content: str, minted: Minted, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(content)
    with pytest.raises(ConfigError, match="client CA cannot be loaded"):
        load(minted, ca=ca, clients=ClientCertificates.OPTIONAL)


def test_a_leaf_is_no_ca(minted: Minted) -> None:
    with pytest.raises(ConfigError, match="no CA certificate"):
        load(minted, ca=minted.server.certificate, clients=ClientCertificates.OPTIONAL)


def test_a_reload_that_fails_changes_nothing(minted: Minted) -> None:
    tls = load(minted)
    context, expires = tls.context(), tls.expires
    minted.server.key.write_text("half a file")
    with pytest.raises(ConfigError):
        tls.reload(NOW)
    assert (tls.context(), tls.expires) == (context, expires)
