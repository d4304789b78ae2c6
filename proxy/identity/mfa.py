"""Whether an authentication was strong and recent enough (RFC 8176, NIST SP 800-63B), and what to ask for (RFC 9470).

The rule, in order:

1. What a rule asks replaces what its issuer asks. The methods and the contexts are one statement and are replaced
   together: a rule that names only a context must not be met by the issuer's list of methods. The age stands alone.
2. Where methods or contexts are named, one of the methods in `amr`, or `acr` being one of the contexts, is enough:
   the policy's author knows what an issuer means by its words.
3. Where nothing is named, `amr` must hold `mfa`, or two methods of different kinds. `pwd` with `pin` is one kind;
   `sms` and `tel` are of no kind: SP 800-63B restricts them, so a policy that wants them has to name them.
4. Where an age is asked, `auth_time` must be there, not older than the age, and not in the future.

Not guaranteed: that the issuer's words are true. `amr` and `acr` are what it says it did.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from proxy.errors import Challenge
from proxy.exchange import Mfa, Principal
from proxy.reasons import Reason

FUTURE_LEEWAY = 30  # seconds that an issuer's clock may run ahead of ours


class Kind(StrEnum):
    """A kind of factor: what a person knows, has or is (SP 800-63B)."""

    KNOWLEDGE = "knowledge"
    POSSESSION = "possession"
    INHERENCE = "inherence"


# Every registered method (RFC 8176 section 2); None: says nothing about a factor, or is restricted.
METHODS: Mapping[str, Kind | None] = MappingProxyType(
    {
        "face": Kind.INHERENCE,
        "fpt": Kind.INHERENCE,
        "geo": None,
        "hwk": Kind.POSSESSION,
        "iris": Kind.INHERENCE,
        "kba": Kind.KNOWLEDGE,
        "mca": None,  # several channels are not several factors
        "mfa": None,  # the issuer's own summary: counted by its name
        "otp": Kind.POSSESSION,
        "pin": Kind.KNOWLEDGE,
        "pwd": Kind.KNOWLEDGE,
        "rba": None,
        "retina": Kind.INHERENCE,
        "sc": Kind.POSSESSION,
        "sms": None,
        "swk": Kind.POSSESSION,
        "tel": None,
        "user": None,
        "vbm": Kind.INHERENCE,
        "wia": None,
    }
)


def weakness(principal: Principal, issuer: Mfa, rule: Mfa, *, now: float) -> Reason | None:
    """Return why the authentication is not enough, or None when it is."""
    asked = rule if rule.any_amr or rule.acr_values else issuer
    if not _strong(principal, asked):
        return Reason.MFA_MISSING
    max_age = _max_age(issuer, rule)
    if max_age is not None and not _recent(principal.auth_time, max_age, now):
        return Reason.MFA_TOO_OLD
    return None


def challenge(issuer: Mfa, rule: Mfa) -> Challenge:
    """Return what a client has to ask its issuer for (RFC 9470 section 3). Methods have no word there."""
    asked = rule if rule.any_amr or rule.acr_values else issuer
    return Challenge(asked.acr_values, _max_age(issuer, rule))


def _max_age(issuer: Mfa, rule: Mfa) -> int | None:
    return issuer.max_age if rule.max_age is None else rule.max_age


def _strong(principal: Principal, asked: Mfa) -> bool:
    if asked.any_amr or asked.acr_values:
        return not asked.any_amr.isdisjoint(principal.factors) or principal.acr in asked.acr_values
    kinds = {METHODS.get(method) for method in principal.factors} - {None}
    return "mfa" in principal.factors or len(kinds) > 1


def _recent(auth_time: int | None, max_age: int, now: float) -> bool:
    return auth_time is not None and now - max_age <= auth_time <= now + FUTURE_LEEWAY
