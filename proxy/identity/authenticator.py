"""Step 2 of the one way: a call to a principal.

A verified token is remembered, because a signature costs more than everything else we do for a request. The memory
is keyed by the SHA-256 of the whole token (a prefix let one caller be another: CVE-2026-35030) and holds a verdict
only under the policy and the keys that it was made with, and never past the token's end. The certificate binding is
checked on every request. Refusals are not remembered: what fails today may hold after a key rotation, and who fails
often is stopped by the source limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from proxy.errors import Unauthenticated
from proxy.exchange import Call, Issuer, Principal
from proxy.identity.bearer import bearer_token
from proxy.identity.token import check_binding, check_header, peek, verify
from proxy.ports import Clock, KeyRing
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
    """Says who calls. One per process."""

    def __init__(self, key_ring: KeyRing, clock: Clock, capacity: int = CAPACITY) -> None:
        self._key_ring = key_ring
        self._clock = clock
        self._capacity = capacity
        self._verdicts: dict[bytes, _Verdict] = {}

    async def authenticate(self, call: Call, issuers: Mapping[str, Issuer], policy: str) -> Principal:
        """Return who calls. `issuers` by their exact `iss`; `policy` is the digest that they belong to.

        Raise Unauthenticated, or DependencyFault(KEYS_UNAVAILABLE).
        """
        token = bearer_token(call)
        digest = sha256(token.encode("ascii")).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None or not self._holds(verdict, policy):
            verdict = await self._verify(token, issuers, policy)
            self._remember(digest, verdict)
        check_binding(verdict.principal, call.peer.certificate)
        return verdict.principal

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
