"""The claims of a token whose signature holds, as a `Principal`: RFC 7519 section 4.1, RFC 9068 section 2.2.

Times are integers (RFC 7519 allows fractions; a float has more than one reading near its limits). Strings are
printable, without controls, bidirectional overrides or lone surrogates, and capped, because they end up in logs,
budget keys and reports. A claim that is there in the wrong form is refused, never read as absent.
"""

import re
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
SCOPE = ("scope",)  # the path of the roles where they are OAuth scopes, which a client can ask for
_SCOPE = re.compile(r"[!#-\[\]-~]+")
_SHA256_BYTES = 32
_CONFIRMATIONS = frozenset({"x5t#S256", "jkt"})


def principal(claims: Mapping[str, object], issuer: Issuer, *, key_id: str, digest: bytes, now: float) -> Principal:
    """Return who the claims speak for, if they speak to us and now. Raise Unauthenticated."""
    expires_at, issued_at = moment(claims, "exp"), moment(claims, "iat")
    if now >= expires_at + issuer.leeway:  # RFC 7519 section 4.1.4: "on or after"
        raise Unauthenticated(Reason.TOKEN_EXPIRED, "exp has passed")
    if issued_at > now + issuer.leeway:
        raise Unauthenticated(Reason.TOKEN_NOT_YET_VALID, "iat is in the future")
    if "nbf" in claims and now < moment(claims, "nbf") - issuer.leeway:
        raise Unauthenticated(Reason.TOKEN_NOT_YET_VALID, "nbf is in the future")
    if expires_at <= issued_at:
        raise Unauthenticated(Reason.TOKEN_CLAIMS, "exp is not after iat")
    if issuer.audience not in _texts(claims.get("aud"), "aud", Reason.TOKEN_AUDIENCE):
        raise Unauthenticated(Reason.TOKEN_AUDIENCE, "aud does not contain ours")
    certificate, proof_key = _confirmation(claims)
    return Principal(
        issuer=issuer.name,
        subject=text(claims, "sub"),
        roles=_roles(claims, issuer.roles_claim),
        factors=_factors(claims),
        acr=_optional_text(claims, "acr"),
        auth_time=moment(claims, "auth_time") if "auth_time" in claims else None,
        issued_at=issued_at,
        expires_at=expires_at,
        token_id=text(claims, "jti"),
        token_digest=digest,
        key_id=key_id,
        client=_optional_text(claims, "client_id") or _optional_text(claims, "azp"),
        certificate=certificate,
        claims=MappingProxyType(claims),
        proof_key=proof_key,
    )


def text(members: Mapping[str, object], name: str, reason: Reason = Reason.TOKEN_CLAIMS) -> str:
    """Return a required string. Raise Unauthenticated with the reason."""
    value = members.get(name)
    if not is_text(value):
        raise Unauthenticated(reason, f"{name} must be a printable string of 1 to {MAX_TEXT} characters")
    return value


def _optional_text(claims: Mapping[str, object], name: str) -> str | None:
    return text(claims, name) if name in claims else None


def moment(claims: Mapping[str, object], name: str) -> int:
    """Return a required time. Raise Unauthenticated(TOKEN_CLAIMS)."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= MAX_TIME:  # `type`, because a bool is an int
        raise Unauthenticated(Reason.TOKEN_CLAIMS, f"{name} must be an integer of UNIX seconds")
    return value


def _texts(value: object, name: str, reason: Reason = Reason.TOKEN_CLAIMS) -> tuple[str, ...]:
    """Read one string or an array of strings."""
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_ITEMS or not all(map(is_text, items)):
        raise Unauthenticated(reason, f"{name} must be one printable string or an array of at most {MAX_ITEMS}")
    return tuple(items)


def is_text(value: object) -> TypeGuard[str]:
    """Say whether a value is a text that may stand in logs, keys and reports."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def _roles(claims: Mapping[str, object], path: tuple[str, ...]) -> frozenset[str]:
    """Follow the path; a claim that is not there gives no roles.

    One string is one role, never a list in disguise, but in `scope`, where the standard says that it is one.
    """
    value: object = claims
    for name in path:
        if not isinstance(value, Mapping):
            raise Unauthenticated(
                Reason.TOKEN_CLAIMS, f"the roles claim {'.'.join(path)} leads through something that is no object"
            )
        if name not in value:
            return frozenset()
        value = value[name]
    if path == SCOPE and isinstance(value, str):
        return _scopes(value)
    return frozenset(_texts(value, "the roles claim"))


def _scopes(value: str) -> frozenset[str]:
    """Read RFC 9068 section 2.2.3: tokens with one space between (RFC 6749 section 3.3)."""
    tokens = value.split(" ")
    if not all(map(is_scope, tokens)):
        raise Unauthenticated(Reason.TOKEN_CLAIMS, "scope must be scope tokens with one space between")
    return frozenset(_texts(tokens, "scope"))


def is_scope(text: str) -> bool:
    """Say whether a text may be one scope: RFC 6749 section 3.3."""
    return _SCOPE.fullmatch(text) is not None


def _factors(claims: Mapping[str, object]) -> frozenset[str]:
    if "amr" not in claims:
        return frozenset()
    if not isinstance(claims["amr"], list):  # RFC 8176 section 1: "mfa" alone is not ["mfa"]
        raise Unauthenticated(Reason.TOKEN_CLAIMS, "amr must be an array of strings")
    return frozenset(_texts(claims["amr"], "amr"))


def _confirmation(claims: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Return what `cnf` binds the token to: a certificate (RFC 8705 section 3.1), a DPoP key (RFC 9449 section 6.1).

    What is not understood is refused, not ignored: RFC 7800 section 3.1 leaves that to us.
    """
    if "cnf" not in claims:
        return None, None
    confirmation: object = claims["cnf"]
    if not isinstance(confirmation, dict) or not confirmation or confirmation.keys() - _CONFIRMATIONS:
        raise Unauthenticated(Reason.TOKEN_BINDING, "cnf must hold x5t#S256 or jkt and nothing else")
    if not all(map(is_thumbprint, confirmation.values())):
        raise Unauthenticated(Reason.TOKEN_BINDING, "cnf must hold base64url of a SHA-256, without padding")
    return confirmation.get("x5t#S256"), confirmation.get("jkt")


def is_thumbprint(value: object) -> bool:
    """Say whether a value is a SHA-256 in base64url without padding: of a certificate, a key or a token."""
    try:
        return isinstance(value, str) and len(decode_base64url(value)) == _SHA256_BYTES
    except ValueError:
        return False
