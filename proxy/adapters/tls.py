"""The listener's TLS: one context from files, replaced as a whole when the files change (NIST SP 800-52r2).

`ServerTls.context` is asked for at each new connection, so a reload builds a second context, proves it, and puts it
in the first one's place: certificate, key and client CA change together, a bad set is never loaded, and connections
that are open keep what they shook hands with. There are no tickets, so no session outlives its context: one from
before a change cannot bring a certificate back that is no longer trusted (CVE-2025-23419).

Revoked client certificates are those of `client_crl` (`proxy.adapters.crl`); without it, none is. Open connections do
not see a reload: `distrusts` says which of them should end.

Not guaranteed: that a TLS 1.2 client does not resume by session id within the life of one context, which Python cannot
switch off (`modern` has no TLS 1.2); and the groups, which Python cannot choose before 3.15 (`OPENSSL_CONF` can). Nor
can it choose the suites of TLS 1.3: `fips` prefers AES, and ends a handshake that comes to ChaCha20 all the same.
That is what the profile promises, and not a validated module: that is the OpenSSL below, with its FIPS provider.
"""

import base64
import hashlib
import os
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from proxy.adapters.crl import TakenBack, read_crl
from proxy.errors import ConfigError, Finding
from proxy.exchange import Certificate


class ClientCertificates(StrEnum):
    """Whether clients show a certificate. One that is shown is always verified."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Profile(StrEnum):
    """Which protocol versions and suites; the names are Mozilla's, and `fips` leaves ChaCha20 out."""

    MODERN = "modern"
    INTERMEDIATE = "intermediate"
    FIPS = "fips"


# The lowest version and the suites of TLS 1.2: ephemeral keys and AEAD only. Level 2 is 112 bits (SP 800-57).
_PROFILES = {
    Profile.MODERN: (ssl.TLSVersion.TLSv1_3, "ECDHE+AESGCM:@SECLEVEL=2"),
    Profile.INTERMEDIATE: (ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"),
    Profile.FIPS: (ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM:@SECLEVEL=2"),
}


class _WithoutChaCha20(ssl.SSLObject):
    """A handshake that ends before its client has seen a byte of it, if the client offers nothing but ChaCha20."""

    def do_handshake(self) -> None:
        """Look at what was chosen as soon as it is: our first flight is not out yet."""
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            self._look()
            raise
        self._look()

    def _look(self) -> None:
        chosen = self.cipher()
        if chosen is not None and "CHACHA20" in chosen[0]:
            msg = f"{chosen[0]} is not in the profile"
            raise ssl.SSLError(msg)


_VERIFY = {
    ClientCertificates.OFF: ssl.CERT_NONE,
    ClientCertificates.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificates.REQUIRED: ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the listener's TLS stands on disk; PEM throughout."""

    certificate: Path  # leaf first, then its chain
    key: Path
    key_password: Path | None = None  # the password of an encrypted key, one line
    client_ca: Path | None = None
    client_crl: Path | None = None  # which of its certificates the CA has taken back

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is there to be read."""
        named = (self.certificate, self.key, self.key_password, self.client_ca, self.client_crl)
        return tuple(path for path in named if path is not None)


@dataclass(frozen=True, slots=True)
class _Loaded:
    context: ssl.SSLContext
    expires: float
    fingerprint: str
    digest: bytes  # of everything that was read
    authorities: bytes
    taken_back: TakenBack | None


class ServerTls:
    """The context that new connections get, and how to renew it."""

    def __init__(self, files: TlsFiles, client_certificates: ClientCertificates, profile: Profile, now: float) -> None:
        self._files = files
        self._client_certificates = client_certificates
        self._profile = profile
        self._other_authorities = False
        self._loaded = self._load(now)

    def context(self) -> ssl.SSLContext:
        """Return the context for one new connection."""
        return self._loaded.context

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files to watch."""
        return self._files.paths

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in use, base64url."""
        return self._loaded.fingerprint

    @property
    def expires(self) -> float:
        """When the certificate in use ends, in UNIX seconds."""
        return self._loaded.expires

    @property
    def list_expires(self) -> float | None:
        """When the revocation list in use ends, in UNIX seconds: no client certificate is accepted after that."""
        return self._loaded.taken_back.ends if self._loaded.taken_back is not None else None

    def reload(self, now: float) -> bool:
        """Read the files again, and say whether anything in them is new.

        Raise ConfigError, and keep what serves, unless all of them are good together.
        """
        before, loaded = self._loaded, self._load(now)
        if loaded.digest == before.digest:
            return False
        self._other_authorities = loaded.authorities != before.authorities
        self._loaded = loaded
        return True

    def distrusts(self, certificate: Certificate) -> bool:
        """Say whether a client certificate from before the last reload might be refused by what serves now."""
        taken_back = self._loaded.taken_back
        return self._other_authorities or (taken_back is not None and certificate.serial in taken_back.serials)

    def _load(self, now: float) -> _Loaded:
        files = self._files
        findings = list(_ca_findings(files.client_ca, self._client_certificates))
        for secret in filter(None, (files.key, files.key_password)):
            findings += _secrecy_findings(secret)
        expires, fingerprint = 0.0, ""
        try:
            expires, fingerprint = _leaf(files.certificate, now)
        except ConfigError as error:
            findings += error.findings
        if findings:
            raise ConfigError(findings)
        context = server_context(files, self._client_certificates, self._profile)
        contents = [_read(path) for path in files.paths]
        digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).digest()
        authorities = _read(files.client_ca) if files.client_ca is not None else b""
        taken_back = None
        if files.client_crl is not None:
            taken_back = read_crl(files.client_crl, _read(files.client_crl), authorities, now)
            _load_crl(context, files.client_crl)
        return _Loaded(context, expires, fingerprint, digest, authorities, taken_back)


def server_context(files: TlsFiles, client_certificates: ClientCertificates, profile: Profile) -> ssl.SSLContext:
    """Return a context that has accepted the files; raise ConfigError with the file that it did not."""
    lowest, suites = _PROFILES[profile]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = lowest
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers(suites)
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    context.num_tickets = 0
    if profile is Profile.FIPS:
        context.sslobject_class = _WithoutChaCha20
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, files)
    if files.client_ca is not None:
        _load_ca(context, files.client_ca)
    context.verify_mode = _VERIFY[client_certificates]
    return context


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    lines = _read(files.key_password).splitlines() if files.key_password is not None else []
    password = lines[0] if lines else b""  # never None: OpenSSL would ask for it on the terminal, and wait
    try:
        context.load_cert_chain(files.certificate, files.key, password=password)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        message, hint = _pair_fault(getattr(exc, "reason", None), _read(files.key), password)
        raise _config_error(files.key, message, hint) from exc


def _pair_fault(reason: str | None, key: bytes, password: bytes) -> tuple[str, str]:
    """Return what is wrong with a pair and what would mend it: OpenSSL's own words help nobody."""
    if reason == "KEY_VALUES_MISMATCH":
        return "the private key does not belong to the certificate", "deploy the two files together"
    try:
        serialization.load_pem_private_key(key, password or None)
    except TypeError:  # cryptography's way to say that one of key and password wants the other
        return "the private key is encrypted and no password is given", "name its password file as key_password_file"
    except (ValueError, UnsupportedAlgorithm):
        return "the private key cannot be read: no PEM key, or another password", "check it with `openssl pkey -in`"
    hint = "112 bits are the least: RSA 2048, P-256 and SHA-256"
    return f"OpenSSL does not take certificate and key ({reason or 'no reason given'})", hint


def _load_ca(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as exc:
        raise _config_error(path, "the client CA cannot be loaded", "a PEM file of CA certificates") from exc
    if not context.cert_store_stats()["x509_ca"]:
        raise _config_error(path, "no CA certificate in the file", "a leaf certificate cannot issue others")


def _load_crl(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as exc:
        raise _config_error(path, "OpenSSL does not take the revocation list", "PEM, signed with SHA-256") from exc
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _ca_findings(path: Path | None, client_certificates: ClientCertificates) -> list[Finding]:
    match path, client_certificates:
        case None, ClientCertificates.OPTIONAL | ClientCertificates.REQUIRED:
            hint = "name the PEM file of the CA that issues them as client_ca"
            return [Finding("tls", 0, 0, "client certificates are asked for, but no CA may issue them", hint)]
        case Path(), ClientCertificates.OFF:
            hint = "set client_certificates to optional or required, or remove client_ca"
            return [Finding(str(path), 0, 0, "a client CA, but no client is asked for a certificate", hint)]
        case _:
            return []


def _leaf(path: Path, now: float) -> tuple[float, str]:
    """Return when the certificate ends, and its fingerprint."""
    try:
        leaf = x509.load_pem_x509_certificates(_read(path))[0]
    except ValueError as exc:
        raise _config_error(path, "no certificate can be read here", "a PEM file, leaf first") from exc
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not begins <= datetime.fromtimestamp(now, UTC) <= ends:
        message = f"the certificate is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, which is not now"
        raise _config_error(path, message, "renew it, or set this machine's clock")
    if _must_be_stapled(leaf):
        message = "the certificate demands a stapled OCSP answer, which we cannot give: clients would refuse it"
        raise _config_error(path, message, "have it issued without the TLS feature `status_request`")
    fingerprint = base64.urlsafe_b64encode(leaf.fingerprint(hashes.SHA256())).rstrip(b"=").decode("ascii")
    return ends.timestamp(), fingerprint


def _must_be_stapled(leaf: x509.Certificate) -> bool:
    """RFC 7633 section 4.1."""
    try:
        wanted = leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    except x509.ExtensionNotFound:
        return False
    return x509.TLSFeatureType.status_request in wanted


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise _config_error(path, f"the file cannot be read: {exc.strerror}", "") from exc


def _secrecy_findings(path: Path) -> list[Finding]:
    try:
        status = path.stat()
    except OSError as exc:
        return [Finding(str(path), 0, 0, f"the file cannot be read: {exc.strerror}")]
    if exposed(status.st_mode, status.st_uid, os.geteuid()):
        return [Finding(str(path), 0, 0, "a secret that others on this machine can read", f"chmod 600 {path}")]
    return []


def exposed(mode: int, owner: int, we: int) -> bool:
    """Say whether a secret's mode shows it to others. A group may read what root owns and we do not: PostgreSQL's
    rule, and the only way in which Kubernetes gives a secret to a process that is not root."""
    others = stat.S_IRWXO | stat.S_IRWXG
    if owner == 0 and we != 0:
        others &= ~stat.S_IRGRP
    return bool(mode & others)


def _config_error(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
