"""Workloads: programs that are known by their client certificate alone, without a token.

A workload is named by one subject alternative name, a URI (SPIFFE ids are such) or a DNS name, and matches it whole:
no wildcard, no prefix, never the certificate's free-text subject (RFC 9525 section 2). It has no factors, so a rule
for it says `mfa: not_required`.

Not guaranteed: that a name belongs to one program. The client CA answers for that; every certificate it signs counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

from proxy.errors import TokenMissing, Unauthenticated
from proxy.exchange import Certificate, Principal
from proxy.identity.claims import MAX_TIME
from proxy.reasons import Reason

MTLS = "mtls"  # the name that workloads have in the place of an issuer's


@dataclass(frozen=True, slots=True)
class Workload:
    """A program of the policy. Exactly one of `uri` and `dns` is set; `dns` in lower case."""

    name: str
    roles: frozenset[str]
    uri: str | None = None
    dns: str | None = None


@dataclass(frozen=True, slots=True)
class Workloads:
    """Every workload of a policy, by its name in certificates."""

    by_uri: Mapping[str, Workload]
    by_dns: Mapping[str, Workload]

    @classmethod
    def of(cls, workloads: Iterable[Workload]) -> "Workloads":
        """Index workloads whose names are known to be unique."""
        listed = tuple(workloads)
        return cls(
            MappingProxyType({one.uri: one for one in listed if one.uri is not None}),
            MappingProxyType({one.dns: one for one in listed if one.dns is not None}),
        )

    def principal(self, certificate: Certificate | None) -> Principal:
        """Return who calls without a token. Raise TokenMissing, or Unauthenticated(CERTIFICATE_UNKNOWN)."""
        if certificate is None or not (self.by_uri or self.by_dns):
            raise TokenMissing
        uris = (self.by_uri.get(uri) for uri in certificate.uris)
        names = (self.by_dns.get(name.lower()) for name in certificate.dns_names)  # RFC 4343: case says nothing
        found = {one for one in (*uris, *names) if one is not None}
        if len(found) != 1:
            detail = "no token, and the client certificate has the name of "
            raise Unauthenticated(
                Reason.CERTIFICATE_UNKNOWN, detail + ("several workloads" if found else "no workload of the policy")
            )
        return _principal(found.pop(), certificate)


NO_WORKLOADS = Workloads.of(())


def _principal(workload: Workload, certificate: Certificate) -> Principal:
    return Principal(
        issuer=MTLS,
        subject=workload.name,
        roles=workload.roles,
        factors=frozenset(),
        acr=None,
        auth_time=None,
        issued_at=0,  # unknown here, so that a revocation of everything `issued_before` a moment means all of them
        expires_at=MAX_TIME,  # TLS checks the certificate's own end
        token_id=certificate.fingerprint,
        token_digest=sha256(certificate.fingerprint.encode("ascii")).digest(),
        key_id=certificate.serial,
        certificate=certificate.fingerprint,
    )
