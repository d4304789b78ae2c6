"""One access token, read strictly: RFC 7515 (compact form), 7519, 8725, 9068 and the claim of RFC 8705 section 3.1.

`peek` reads what a token says of itself, only to choose its issuer and key. `verify` decides, in this order: algorithm
and type as the issuer's entry allows, signature, then every claim. `check_binding` compares a verified principal
with the certificate at the other end of the connection, and belongs to every request.

Not guaranteed: that a token is used once (a bearer token may be used until it expires), that it was not revoked
since, and that its subject still exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from proxy.errors import Unauthenticated
from proxy.exchange import Certificate, Issuer, Principal
from proxy.identity import claims as read
from proxy.identity.notation import decode_compact
from proxy.ports import VerificationKey
from proxy.reasons import Reason

# RFC 8725 section 3.1: never `none`, never a shared secret, whatever an issuer's entry says.
ALGORITHMS = frozenset({"ES256", "ES384", "EdDSA", "RS256", "PS256"})

# RFC 8725 sections 3.1 and 3.10: a token does not choose its own key, its own compression or its own reading. No
# `crit` is understood here, so that each is refused (RFC 7515 section 4.1.11).
_REFUSED_HEADERS = frozenset({"b64", "crit", "enc", "jku", "jwk", "x5c", "x5u", "zip"})

# RFC 8725 section 3.12: claims of other kinds of JWT (OIDC Core section 3.3.2.11, RFC 8417 section 2.2).
_FOREIGN_CLAIMS = frozenset({"at_hash", "c_hash", "events", "s_hash"})


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token says of itself. Believe nothing here: it only chooses the issuer and the key."""

    algorithm: str
    key_id: str
    token_type: str  # empty where the header has no `typ`
    issuer: str
    claims: Mapping[str, object]
    signing_input: bytes
    signature: bytes
    digest: bytes  # SHA-256 of the whole token


def peek(token: str) -> Unverified:
    """Read a token without believing it. Raise Unauthenticated."""
    try:
        parts = decode_compact(token)
    except ValueError as exc:
        raise Unauthenticated(
            Reason.TOKEN_MALFORMED, "not a signed JWT in compact form with one reading: base64url, UTF-8, JSON"
        ) from exc
    header, claims = parts.header, parts.claims
    if refused := _REFUSED_HEADERS & header.keys():
        raise Unauthenticated(
            Reason.TOKEN_MALFORMED, f"header members that are never accepted: {', '.join(sorted(refused))}"
        )
    return Unverified(
        algorithm=read.text(header, "alg", Reason.TOKEN_ALGORITHM),
        key_id=read.text(header, "kid", Reason.TOKEN_KEY_UNKNOWN),
        token_type=read.text(header, "typ", Reason.TOKEN_TYPE) if "typ" in header else "",
        issuer=read.text(claims, "iss", Reason.TOKEN_ISSUER),
        claims=claims,
        signing_input=parts.signing_input,
        signature=parts.signature,
        digest=sha256(token.encode("ascii")).digest(),
    )


def check_header(token: Unverified, issuer: Issuer) -> None:
    """Refuse what no key of this issuer may have signed. Worth doing before a key is looked for."""
    if token.issuer != issuer.issuer:
        raise Unauthenticated(Reason.TOKEN_ISSUER, "iss is not this issuer's, byte for byte")
    if token.algorithm not in issuer.algorithms & ALGORITHMS:
        raise Unauthenticated(Reason.TOKEN_ALGORITHM, "alg is not in the issuer's algorithms")
    # RFC 8725 section 3.11, RFC 9068 section 4. An issuer whose tokens carry no `typ` lists the empty string.
    if token.token_type not in issuer.token_types or _FOREIGN_CLAIMS & token.claims.keys():
        raise Unauthenticated(Reason.TOKEN_TYPE, "typ is not in the issuer's token_types, or not an access token")


def verify(token: Unverified, key: VerificationKey, issuer: Issuer, *, now: float) -> Principal:
    """Return who the token speaks for. Raise Unauthenticated with the reason. The binding is checked elsewhere."""
    check_header(token, issuer)
    if key.kid != token.key_id:
        raise Unauthenticated(Reason.TOKEN_KEY_UNKNOWN, "another key than the header names")
    if key.algorithm != token.algorithm:  # RFC 8725 section 3.1: one key, one algorithm
        raise Unauthenticated(Reason.TOKEN_ALGORITHM, "alg is not the key's")
    if not key.verify(token.signing_input, token.signature):
        raise Unauthenticated(Reason.TOKEN_SIGNATURE, "the signature is not the key's")
    return read.principal(token.claims, issuer, key_id=key.kid, digest=token.digest, now=now)


def check_binding(principal: Principal, certificate: Certificate | None) -> None:
    """Refuse a certificate-bound token on a connection without that certificate (RFC 8705 section 3)."""
    if principal.certificate is None:
        return
    if certificate is None:
        raise Unauthenticated(Reason.CERTIFICATE_MISSING, "a certificate-bound token, and no client certificate")
    if certificate.fingerprint != principal.certificate:
        raise Unauthenticated(Reason.TOKEN_BINDING, "the token is bound to another client certificate")
