"""A CA for development, with a server and its clients: for the demo, the tests and `hip certs init`.

Not for production: the CA's key lies beside what it signs, unencrypted, and nothing is ever revoked. RFC 5280, ECDSA
with P-256 and SHA-256.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxy.errors import ConfigError, Finding

CA_DAYS = 365
LEAF_DAYS = 90
CLOCK_SKEW = timedelta(minutes=5)  # machines that have just been started disagree

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # of a client: a DNS label, and part of a file's name
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?)+")
_SPIFFE = "spiffe://hip.test/"  # RFC 6761 section 6.2: .test belongs to nobody


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Minted:
    """What lies in the directory now."""

    ca: Pair
    server: Pair
    clients: Mapping[str, Pair]


@dataclass(frozen=True, slots=True)
class _Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def mint(directory: Path, hosts: Sequence[str], clients: Sequence[str], now: datetime | None = None) -> Minted:
    """Write a CA, a server pair for the hosts and a pair for each client; raise ConfigError, and overwrite nothing."""
    _check(hosts, clients)
    now = now or datetime.now(UTC)
    ca = _issue_ca(now)
    issued = {"ca": ca, "server": _issue(ca, hosts[0], [_host_name(host) for host in hosts], now, server=True)}
    for client in clients:
        names = [x509.DNSName(client), x509.UniformResourceIdentifier(_SPIFFE + client)]
        issued[f"client-{client}"] = _issue(ca, client, names, now, server=False)
    pairs = {name: Pair(directory / f"{name}.crt", directory / f"{name}.key") for name in issued}
    _write(directory, {pairs[name]: one for name, one in issued.items()})
    return Minted(pairs["ca"], pairs["server"], MappingProxyType({name: pairs[f"client-{name}"] for name in clients}))


def renew(directory: Path, days_left: int, now: datetime | None = None) -> Mapping[str, Pair]:
    """Issue again, with new keys, what `mint` wrote and has fewer days left; return it by name, or raise ConfigError.

    Each file is replaced in one step, the key before its certificate: a proxy that watches them loads both or none.
    """
    now = now or datetime.now(UTC)
    ca = _read_ca(Pair(directory / "ca.crt", directory / "ca.key"), now)
    due = {}
    for path in sorted(directory.glob("*.crt")):
        if path.name == "ca.crt":
            continue
        leaf = _read_certificate(path)
        if leaf.not_valid_after_utc - now < timedelta(days=days_left):
            due[path.stem] = _issue_again(ca, leaf, now)
    pairs = {name: Pair(directory / f"{name}.crt", directory / f"{name}.key") for name in due}
    try:
        for name, one in due.items():
            _replace(pairs[name].key, _key_pem(one))
            _replace(pairs[name].certificate, one.certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as exc:
        raise ConfigError([Finding(str(directory), 0, 0, f"cannot be written: {exc.strerror}")]) from exc
    return MappingProxyType(pairs)


def _read_ca(pair: Pair, now: datetime) -> _Issued:
    certificate = _read_certificate(pair.certificate)
    try:
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as exc:
        hint = "name a directory that `hip certs init` has made"
        raise ConfigError([Finding(str(pair.key), 0, 0, "no key of a development CA can be read here", hint)]) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError([Finding(str(pair.key), 0, 0, "not the key of the CA beside it", "restore the pair")])
    if certificate.not_valid_after_utc <= now:
        message = f"the CA has ended on {certificate.not_valid_after_utc:%Y-%m-%d}"
        raise ConfigError([Finding(str(pair.certificate), 0, 0, message, "make a new one: hip certs init DIRECTORY")])
    return _Issued(certificate, key)


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as exc:
        hint = "name a directory that `hip certs init` has made"
        raise ConfigError([Finding(str(path), 0, 0, "no certificate can be read here", hint)]) from exc


def _issue_again(ca: _Issued, leaf: x509.Certificate, now: datetime) -> _Issued:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    (common_name,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return _issue(ca, str(common_name.value), list(names), now, server=ExtendedKeyUsageOID.SERVER_AUTH in purposes)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    _write_new(draft, content)
    draft.replace(path)


def _check(hosts: Sequence[str], clients: Sequence[str]) -> None:
    findings = [
        Finding(host, 0, 0, "not a host name or an IP address") for host in hosts if not (_is_ip(host) or _is_dns(host))
    ]
    findings += [
        Finding(client, 0, 0, "not a client's name", "lower-case letters, digits and hyphens, at most 63")
        for client in clients
        if not _NAME.fullmatch(client)
    ]
    if not hosts:
        findings.append(Finding("hosts", 0, 0, "no host", "name at least one, as localhost"))
    if len(set(clients)) != len(clients):
        findings.append(Finding("clients", 0, 0, "a client is named twice"))
    if findings:
        raise ConfigError(findings)


def _is_ip(host: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(host))
    return False


def _is_dns(host: str) -> bool:
    return bool(_HOST.fullmatch(host))


def _host_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(host)) if _is_ip(host) else x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issue_ca(now: datetime) -> _Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"hip development CA {now:%Y-%m-%d}")
    builder = (
        _builder(name, name, key, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _Issued(builder.sign(key, hashes.SHA256()), key)


def _issue(ca: _Issued, common_name: str, names: Sequence[x509.GeneralName], now: datetime, *, server: bool) -> _Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = (
        _builder(_name(common_name), ca.certificate.subject, key, now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer_key_id, critical=False)
    )
    return _Issued(builder.sign(ca.key, hashes.SHA256()), key)


def _write(directory: Path, issued: Mapping[Pair, _Issued]) -> None:
    paths = [path for pair in issued for path in (pair.certificate, pair.key)]
    existing = [path for path in paths if path.exists()]
    if existing:
        hint = "name an empty directory, or move these files away"
        raise ConfigError([Finding(str(path), 0, 0, "already there, and not overwritten", hint) for path in existing])
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for pair, one in issued.items():
            _write_new(pair.certificate, one.certificate.public_bytes(serialization.Encoding.PEM))
            _write_new(pair.key, _key_pem(one))
    except OSError as exc:
        raise ConfigError([Finding(str(directory), 0, 0, f"cannot be written: {exc.strerror}")]) from exc


def _key_pem(one: _Issued) -> bytes:
    return one.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
