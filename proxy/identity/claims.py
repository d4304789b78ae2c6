"""The claims of a token whose signature holds, as a `Principal`: RFC 7519 section 4.1, RFC 9068 section 2.2.

Times are integers (RFC 7519 allows fractions; a float has more than one reading near its limits). Strings are
printable, without controls, bidirectional overrides or lone surrogates, and capped, because they end up in logs,
budget keys and reports. A claim that is there in the wrong form is refused, never read as absent.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeGuard

from proxy.errors import Unauthenticated
from proxy.exchange import Issuer, Principal
from proxy.identity.notation import decode_base64url
from proxy.reasons import Reason

MAX_TEXT = 256  # characters of one string
MAX_ITEMS = 256  # members of `aud`, `amr` and of the roles
MAX_TIME = 253_402_300_799  # UNIX seconds: the end of the year 9999
_SHA256_BYTES = 32


def principal(claims: Mapping[str, object], issuer: Issuer, *, key_id: str, digest: bytes, now: float) -> Principal:
    """Return who the claims speak for, if they speak to us and now. Raise Unauthenticated."""
    expires_at, issued_at = _time(claims, "exp"), _time(claims, "iat")
    if now >= expires_at + issuer.leeway:  # RFC 7519 section 4.1.4: "on or after"
        raise Unauthenticated(Reason.TOKEN_EXPIRED, "exp has passed")
    if issued_at > now + issuer.leeway:
        raise Unauthenticated(Reason.TOKEN_NOT_YET_VALID, "iat is in the future")
    if "nbf" in claims and now < _time(claims, "nbf") - issuer.leeway:
        raise Unauthenticated(Reason.TOKEN_NOT_YET_VALID, "nbf is in the future")
    if expires_at <= issued_at:
        raise Unauthenticated(Reason.TOKEN_CLAIMS, "exp is not after iat")
    if issuer.audience not in _texts(claims.get("aud"), "aud", Reason.TOKEN_AUDIENCE):
        raise Unauthenticated(Reason.TOKEN_AUDIENCE, "aud does not contain ours")
    return Principal(
        issuer=issuer.name,
        subject=text(claims, "sub"),
        roles=_roles(claims, issuer.roles_claim),
        factors=_factors(claims),
        acr=_optional_text(claims, "acr"),
        auth_time=_time(claims, "auth_time") if "auth_time" in claims else None,
        issued_at=issued_at,
        expires_at=expires_at,
        token_id=text(claims, "jti"),
        token_digest=digest,
        key_id=key_id,
        client=_optional_text(claims, "client_id") or _optional_text(claims, "azp"),
        certificate=_certificate(claims),
        claims=MappingProxyType(claims),
    )


def text(members: Mapping[str, object], name: str, reason: Reason = Reason.TOKEN_CLAIMS) -> str:
    """Return a required string. Raise Unauthenticated with the reason."""
    value = members.get(name)
    if not _is_text(value):
        raise Unauthenticated(reason, f"{name} must be a printable string of 1 to {MAX_TEXT} characters")
    return value


def _optional_text(claims: Mapping[str, object], name: str) -> str | None:
    return text(claims, name) if name in claims else None


def _time(claims: Mapping[str, object], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= MAX_TIME:  # `type`, because a bool is an int
        raise Unauthenticated(Reason.TOKEN_CLAIMS, f"{name} must be an integer of UNIX seconds")
    return value


def _texts(value: object, name: str, reason: Reason = Reason.TOKEN_CLAIMS) -> tuple[str, ...]:
    """Read one string or an array of strings."""
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_ITEMS or not all(map(_is_text, items)):
        raise Unauthenticated(reason, f"{name} must be one printable string or an array of at most {MAX_ITEMS}")
    return tuple(items)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def _roles(claims: Mapping[str, object], path: tuple[str, ...]) -> frozenset[str]:
    """Follow the path; a claim that is not there gives no roles. One string is one role, never a list in disguise."""
    value: object = claims
    for name in path:
        if not isinstance(value, Mapping):
            raise Unauthenticated(
                Reason.TOKEN_CLAIMS, f"the roles claim {'.'.join(path)} leads through something that is no object"
            )
        if name not in value:
            return frozenset()
        value = value[name]
    return frozenset(_texts(value, "the roles claim"))


def _factors(claims: Mapping[str, object]) -> frozenset[str]:
    if "amr" not in claims:
        return frozenset()
    if not isinstance(claims["amr"], list):  # RFC 8176 section 1: "mfa" alone is not ["mfa"]
        raise Unauthenticated(Reason.TOKEN_CLAIMS, "amr must be an array of strings")
    return frozenset(_texts(claims["amr"], "amr"))


def _certificate(claims: Mapping[str, object]) -> str | None:
    """Read `cnf`. What is not understood is refused, not ignored: RFC 7800 section 3.1 leaves that to us."""
    if "cnf" not in claims:
        return None
    confirmation: object = claims["cnf"]
    if not isinstance(confirmation, dict) or confirmation.keys() != {"x5t#S256"}:
        raise Unauthenticated(Reason.TOKEN_BINDING, "cnf must hold x5t#S256 and nothing else")
    thumbprint = confirmation["x5t#S256"]
    if not isinstance(thumbprint, str) or not _is_thumbprint(thumbprint):
        raise Unauthenticated(Reason.TOKEN_BINDING, "x5t#S256 must be base64url of a SHA-256, without padding")
    return thumbprint


def _is_thumbprint(value: str) -> bool:
    try:
        return len(decode_base64url(value)) == _SHA256_BYTES
    except ValueError:
        return False
