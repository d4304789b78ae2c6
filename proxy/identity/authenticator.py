"""Step 2 of the one way: a call to a principal.

A verified token is remembered, because a signature costs more than everything else we do for a request. The memory
is keyed by the SHA-256 of the whole token (a prefix let one caller be another: CVE-2026-35030) and holds a verdict
only under the policy and the keys that it was made with, and never past the token's end. What a token is bound to,
and what has been revoked, is checked on every request. Refusals are not remembered: what fails today may hold after a
key rotation, and who fails often is stopped by the source limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from proxy.errors import Unauthenticated
from proxy.exchange import Call, Certificate, Issuer, Principal, Scheme
from proxy.identity.bearer import Credentials, credentials, preferred
from proxy.identity.dpop import Possession
from proxy.identity.revocation import NOTHING_REVOKED
from proxy.identity.token import check_binding, check_header, peek, verify
from proxy.identity.workload import NO_WORKLOADS, Workloads
from proxy.ports import Clock, KeyRing, RevocationList
from proxy.reasons import Reason

CAPACITY = 4096  # verdicts; one holds the claims of its token, a few KiB


@dataclass(frozen=True, slots=True)
class _Verdict:
    principal: Principal
    issuer: Issuer
    policy: str
    generation: int
    ends_at: float  # UNIX seconds


class Authenticator:
    """Says who calls. One per process. Without `possession` (DPoP), tokens that are bound to a key are refused."""

    def __init__(
        self,
        key_ring: KeyRing,
        clock: Clock,
        capacity: int = CAPACITY,
        *,
        revocations: RevocationList = NOTHING_REVOKED,
        possession: Possession | None = None,
    ) -> None:
        self._key_ring = key_ring
        self._clock = clock
        self._capacity = capacity
        self.revocations = revocations
        self._possession = possession
        self._schemes = (Scheme.BEARER,) if possession is None else (Scheme.BEARER, Scheme.DPOP)
        self._verdicts: dict[bytes, _Verdict] = {}

    def schemes(self, call: Call) -> tuple[Scheme, ...]:
        """Return what to challenge a caller with; its own scheme is the first."""
        return preferred(call, self._schemes)

    async def authenticate(
        self, call: Call, issuers: Mapping[str, Issuer], policy: str, workloads: Workloads = NO_WORKLOADS
    ) -> Principal:
        """Return who calls. `issuers` by their exact `iss`; `policy` is the digest that all of them belong to.

        Raise Unauthenticated, or DependencyFault(KEYS_UNAVAILABLE, PROOFS_UNAVAILABLE).
        """
        certificate = call.peer.certificate
        presented = credentials(call, self._schemes)
        if presented is None:
            principal = workloads.principal(certificate)
        else:
            principal = await self._bearer(presented, issuers, policy)
            check_binding(principal, certificate)
        self.believe(principal, certificate)
        if presented is not None:  # the last check, because it uses the proof up
            await self._check_possession(call, presented, principal)
        return principal

    def believe(self, principal: Principal, certificate: Certificate | None) -> None:
        """Raise Unauthenticated if the caller is revoked by now, DependencyFault(REVOCATIONS_UNAVAILABLE)."""
        if reason := self.revocations.revoked(principal, certificate):
            raise Unauthenticated(reason, "revoked")

    async def _bearer(self, presented: Credentials, issuers: Mapping[str, Issuer], policy: str) -> Principal:
        digest = sha256(presented.token.encode("ascii")).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None or not self._holds(verdict, policy):
            verdict = await self._verify(presented.token, issuers, policy)
            self._remember(digest, verdict)
        return verdict.principal

    async def _check_possession(self, call: Call, presented: Credentials, principal: Principal) -> None:
        if self._possession is not None:
            await self._possession.check(call, presented, principal, now=self._clock.now())
        elif principal.proof_key is not None:
            raise Unauthenticated(Reason.TOKEN_BINDING, "a DPoP-bound token, and `listen.public_url` is not set")

    def _holds(self, verdict: _Verdict, policy: str) -> bool:
        return (
            verdict.policy == policy
            and self._clock.now() < verdict.ends_at
            and self._key_ring.generation(verdict.issuer) == verdict.generation
        )

    async def _verify(self, token: str, issuers: Mapping[str, Issuer], policy: str) -> _Verdict:
        unverified = peek(token)
        issuer = issuers.get(unverified.issuer)
        if issuer is None:
            raise Unauthenticated(Reason.TOKEN_ISSUER, "no issuer of the policy has this iss")
        check_header(unverified, issuer)
        key = await self._key_ring.key(issuer, unverified.key_id)
        # No await from here on, so that the number is that of the key in hand.
        generation = self._key_ring.generation(issuer)
        principal = verify(unverified, key, issuer, now=self._clock.now())
        return _Verdict(principal, issuer, policy, generation, principal.expires_at + issuer.leeway)

    def _remember(self, digest: bytes, verdict: _Verdict) -> None:
        self._verdicts.pop(digest, None)  # a verdict made again is the youngest again
        if len(self._verdicts) >= self._capacity:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[digest] = verdict
