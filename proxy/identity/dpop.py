"""Proof of possession (RFC 9449): that the caller of this request has the key that its token is bound to.

The checks are those of section 4.3, numbered as there. A proof holds for one method, one URL, one token and one
minute, and for one use. The URL is the configured public one, never the request's `Host`, which the caller writes.
Nonces (section 8) are not used: single use and the minute stand for them, so the clocks must agree.

Not guaranteed: that the body is the client's own (a proof does not cover it), and that a proof seen before a restart
is refused after it, where the memory of proofs is the process's own.
"""

import json
import re
from dataclasses import dataclass
from hashlib import sha256

from proxy.errors import InvalidProof, Unauthenticated
from proxy.exchange import Call, Principal, Scheme
from proxy.identity.bearer import Credentials
from proxy.identity.claims import moment, text
from proxy.identity.keyset import PRIVATE_MEMBERS
from proxy.identity.notation import Compact, decode_compact, encode_base64url
from proxy.identity.publickey import PublicKey, Skipped, import_key
from proxy.identity.token import ALGORITHMS
from proxy.ports import Replays
from proxy.reasons import Reason

MAX_PROOF_CHARS = 8192
PROOF_SECONDS = 60  # how old a proof may be
LEEWAY_SECONDS = 30  # how far in the future: the client's clock is not ours
REMEMBER_SECONDS = PROOF_SECONDS + LEEWAY_SECONDS + 1  # no proof is good for longer

# The members that make up a key, which are those of its thumbprint (RFC 7638 section 3.2, RFC 8037 section 2).
_REQUIRED = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[a-z0-9.:\[\]-]+)(?P<path>[^?#]*)(?:[?#].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds for a request: which key made it, and the proof's own id."""

    thumbprint: str
    proof_id: str

    @property
    def memory(self) -> bytes:
        """The name to remember it by: of one length, and no client can take another's."""
        return sha256(f"{self.thumbprint}.{self.proof_id}".encode()).digest()


class Possession:
    """Checks what a token is bound to beside a certificate. One per process."""

    def __init__(self, public_url: str, replays: Replays) -> None:
        """Take the URL that clients know us by (scheme, authority, perhaps a path), and the memory of proofs."""
        self._public_url = public_url.rstrip("/")
        self._replays = replays

    async def check(self, call: Call, presented: Credentials, principal: Principal, *, now: float) -> None:
        """Refuse a bound token without its proof. Raise Unauthenticated, or DependencyFault(PROOFS_UNAVAILABLE)."""
        if principal.proof_key is None:
            if presented.scheme is Scheme.DPOP:  # section 7.1: the scheme is for bound tokens
                raise Unauthenticated(Reason.TOKEN_BINDING, "the DPoP scheme with a token that is bound to no key")
            return
        if presented.scheme is not Scheme.DPOP:  # section 7.2: or a stolen token is as good as a bearer token
            raise Unauthenticated(Reason.TOKEN_BINDING, "a DPoP-bound token under the Bearer scheme")
        proof = verify_proof(
            proof_field(call), presented.token, method=call.method, url=self._public_url + call.path, now=now
        )
        if proof.thumbprint != principal.proof_key:  # 12, second half
            raise Unauthenticated(Reason.TOKEN_BINDING, "the proof is made with another key than the token's")
        if not await self._replays.first(proof.memory, REMEMBER_SECONDS):  # section 11.1
            raise InvalidProof(Reason.TOKEN_REPLAYED, "the proof has been used before")


def proof_field(call: Call) -> str:
    """Return the one proof of a call. Raise InvalidProof."""
    fields = call.values(b"dpop")
    if len(fields) != 1:  # 1
        raise InvalidProof(detail=f"{len(fields)} DPoP fields, there must be one")
    if not 0 < len(fields[0]) <= MAX_PROOF_CHARS or not fields[0].isascii():
        raise InvalidProof(detail=f"a DPoP field that is not 1 to {MAX_PROOF_CHARS} ASCII characters")
    return fields[0].decode("ascii")


def verify_proof(proof: str, token: str, *, method: str, url: str, now: float) -> Proof:
    """Return the proof if it holds for this request and this token. Raise InvalidProof."""
    try:
        parts = decode_compact(proof)  # 2
    except ValueError as exc:
        raise InvalidProof(detail="the proof is not a signed JWT in compact form with one reading") from exc
    if parts.header.get("typ") != "dpop+jwt":  # 4
        raise InvalidProof(detail="the proof's typ is not dpop+jwt")
    if "crit" in parts.header or "b64" in parts.header:  # RFC 7515 section 4.1.11
        raise InvalidProof(detail="the proof's header has an extension that is not understood")
    key = _key(parts)  # 5, 7
    if not key.verify(parts.signing_input, parts.signature):  # 6
        raise InvalidProof(detail="the proof's signature is not its key's")
    try:
        claimed_method, claimed_url, token_hash, proof_id = (
            text(parts.claims, name) for name in ("htm", "htu", "ath", "jti")
        )
        issued_at = moment(parts.claims, "iat")
    except Unauthenticated as exc:  # 3
        raise InvalidProof(detail=f"the proof: {exc.detail}") from exc
    if claimed_method != method:  # 8; methods are case-sensitive (RFC 9110 section 9.1)
        raise InvalidProof(detail="the proof is for another method")
    if (wanted := normal_url(url)) is None or normal_url(claimed_url) != wanted:  # 9
        raise InvalidProof(detail="the proof is for another URL than the public one")
    if not now - PROOF_SECONDS <= issued_at <= now + LEEWAY_SECONDS:  # 11
        raise InvalidProof(detail="the proof is too old, or from the future: compare the clocks")
    if token_hash != encode_base64url(sha256(token.encode("ascii")).digest()):  # 12, first half
        raise InvalidProof(detail="the proof is for another token")
    return Proof(key.kid, proof_id)


def normal_url(url: str) -> str | None:
    """Return a URL without query and fragment, scheme and host in lower case, without a default port (RFC 3986 6.2).

    The path is compared as it is: a listener that takes only one spelling of a path needs no other. None: not a URL.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    authority = match["authority"].lower().removesuffix(_DEFAULT_PORTS[scheme])
    return f"{scheme}://{authority}{match['path'] or '/'}"


def _key(parts: Compact) -> PublicKey:
    """Return the key that the proof brings along, under its thumbprint; only a token's `cnf` makes it count."""
    jwk, algorithm = parts.header.get("jwk"), parts.header.get("alg")
    if not isinstance(jwk, dict) or PRIVATE_MEMBERS & jwk.keys():
        raise InvalidProof(detail="the proof's header has no public key in jwk")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InvalidProof(detail="the proof's alg is not one that we take")
    required = _REQUIRED.get(str(jwk.get("kty")), ())
    members = {name: jwk.get(name) for name in required}
    thumbprint = encode_base64url(sha256(json.dumps(members, separators=(",", ":")).encode()).digest())
    try:
        return import_key(
            {"use": "sig", **jwk, "alg": jwk.get("alg", algorithm), "kid": thumbprint}, frozenset({algorithm})
        )
    except Skipped as why:
        raise InvalidProof(detail=f"the proof's key: {why.because}") from why
