"""Which client certificates their CA has taken back (RFC 5280 section 5): read, and proven before OpenSSL gets it.

Decides whether a list may be loaded: every part signed by a CA that may issue client certificates here, and in force.
Not guaranteed: that the list is the newest one; whoever fetches it writes the file. OCSP is not asked (ADR 0012).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from proxy.errors import ConfigError, Finding

MAX_BYTES = 16 << 20  # a list of about 400,000 certificates

_PART = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What the lists say. `serials` are hexadecimal, as `Certificate.serial`; `ends` is UNIX seconds."""

    serials: frozenset[str]
    ends: float


def read_crl(path: Path, data: bytes, authorities: bytes, now: float) -> TakenBack:
    """Return what the lists of a PEM file say. Raise ConfigError for any that must not be loaded."""
    if len(data) > MAX_BYTES:
        raise _wrong(path, f"more than {MAX_BYTES >> 20} MiB", "split the CA, or let certificates live shorter")
    try:
        lists = [x509.load_pem_x509_crl(part) for part in _PART.findall(data)]
        issuers = x509.load_pem_x509_certificates(authorities)
    except ValueError as exc:
        raise _wrong(path, "no revocation list can be read here", "PEM, as `openssl ca -gencrl` writes it") from exc
    if not lists:
        raise _wrong(path, "no revocation list in the file", "PEM; a list that names nobody is a list too")
    keys = [(issuer.subject, issuer.public_key()) for issuer in issuers]
    for one in lists:
        if not any(subject == one.issuer and _signed(one, key) for subject, key in keys):
            raise _wrong(path, "a list that no CA of client_ca has signed", "let the issuing CA sign it")
    ends = min(one.next_update_utc.timestamp() if one.next_update_utc else 0.0 for one in lists)
    if ends <= now:  # OpenSSL would refuse every client from here on
        raise _wrong(path, "a list that is out of date, or says no date", "fetch the CA's current list")
    return TakenBack(frozenset(f"{entry.serial_number:x}" for one in lists for entry in one), ends)


def _signed(one: x509.CertificateRevocationList, key: CertificatePublicKeyTypes) -> bool:
    try:
        return one.is_signature_valid(key)  # type: ignore[arg-type]  # keys that cannot sign raise TypeError
    except (TypeError, UnsupportedAlgorithm):
        return False


def _wrong(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
