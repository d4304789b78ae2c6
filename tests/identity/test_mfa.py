"""What counts as multi-factor and recent: RFC 8176, SP 800-63B, RFC 9470, as vectors."""

import pytest
from issuing import NOW

from proxy.errors import Challenge
from proxy.exchange import Mfa, Principal
from proxy.identity.mfa import FUTURE_LEEWAY, METHODS, challenge, weakness
from proxy.reasons import Reason

NOTHING = Mfa()
MISSING, OLD = Reason.MFA_MISSING, Reason.MFA_TOO_OLD


def principal(amr: str = "", acr: str | None = None, auth_time: int | None = NOW - 60) -> Principal:
    """`amr` as words: "pwd otp"."""
    return Principal("corp", "alice", frozenset(), frozenset(amr.split()), acr, auth_time, NOW, NOW + 60, "j", b"", "k")


PLAIN: list[tuple[str, Reason | None]] = [
    ("", MISSING),
    ("pwd", MISSING),
    ("otp", MISSING),
    ("hwk", MISSING),
    ("mfa", None),
    ("MFA", MISSING),
    ("pwd pin", MISSING),
    ("pwd pin kba", MISSING),
    ("otp hwk sc swk", MISSING),
    ("face fpt iris retina vbm", MISSING),
    ("pwd otp", None),
    ("pin hwk", None),
    ("kba sc", None),
    ("pwd swk", None),
    ("fpt hwk", None),
    ("pwd face", None),
    ("PWD OTP", MISSING),
    ("pwd sms", MISSING),
    ("pwd tel", MISSING),
    ("pwd mca", MISSING),
    ("pwd geo rba user wia", MISSING),
    ("pwd unheard-of", MISSING),
]


@pytest.mark.parametrize(("amr", "outcome"), PLAIN, ids=[amr or "nothing" for amr, _ in PLAIN])
def test_where_nothing_is_named(amr: str, outcome: Reason | None) -> None:
    """`mfa`, or two methods of different kinds."""
    assert weakness(principal(amr), NOTHING, NOTHING, now=NOW) is outcome


@pytest.mark.parametrize("factor", ["mfa ", " mfa", "mfa\u00a0", "mf\u0430"])
def test_almost_mfa(factor: str) -> None:
    """Exact strings: a space more or a letter of another script does not count."""
    almost = Principal("corp", "a", frozenset(), frozenset({factor}), None, None, NOW, NOW + 60, "j", b"", "k")
    assert weakness(almost, NOTHING, NOTHING, now=NOW) is MISSING


OTP = Mfa(any_amr=frozenset({"otp", "hwk"}))
AAL2 = Mfa(acr_values=("urn:aal2", "urn:aal3"))
EITHER = Mfa(any_amr=frozenset({"otp"}), acr_values=("urn:aal2",))
SMS = Mfa(any_amr=frozenset({"sms"}))

NAMED: list[tuple[str, str, str | None, Mfa, Mfa, Reason | None]] = [
    ("a named method", "pwd otp", None, OTP, NOTHING, None),
    ("a named method alone: the policy's author knows", "otp", None, OTP, NOTHING, None),
    ("none of the named", "pwd swk", None, OTP, NOTHING, MISSING),
    ("mfa does not stand for a named method", "mfa", None, OTP, NOTHING, MISSING),
    ("sms where it is named", "pwd sms", None, SMS, NOTHING, None),
    ("a named context", "", "urn:aal3", AAL2, NOTHING, None),
    ("another context", "mfa", "urn:aal1", AAL2, NOTHING, MISSING),
    ("a context in another case", "", "URN:AAL2", AAL2, NOTHING, MISSING),
    ("no context", "mfa", None, AAL2, NOTHING, MISSING),
    ("either, by the method", "otp", None, EITHER, NOTHING, None),
    ("either, by the context", "pwd", "urn:aal2", EITHER, NOTHING, None),
    ("either, by none", "pwd", "urn:aal1", EITHER, NOTHING, MISSING),
    ("the rule's methods replace the issuer's", "otp", None, OTP, Mfa(frozenset({"hwk"})), MISSING),
    ("the rule's context is not met by the issuer's methods", "otp", None, OTP, AAL2, MISSING),
    ("the rule's context", "", "urn:aal2", OTP, AAL2, None),
    ("the rule's methods are not met by the issuer's context", "pwd", "urn:aal2", AAL2, OTP, MISSING),
]


@pytest.mark.parametrize(("amr", "acr", "issuer", "rule", "outcome"), [v[1:] for v in NAMED], ids=[v[0] for v in NAMED])
def test_where_something_is_named(amr: str, acr: str | None, issuer: Mfa, rule: Mfa, outcome: Reason | None) -> None:
    assert weakness(principal(amr, acr), issuer, rule, now=NOW) is outcome


HOUR, MINUTE = Mfa(max_age=3600), Mfa(max_age=60)

AGES: list[tuple[str, int | None, Mfa, Mfa, Reason | None]] = [
    ("no age asked, none known", None, NOTHING, NOTHING, None),
    ("no age asked, old", 0, NOTHING, NOTHING, None),
    ("recent", NOW - 10, HOUR, NOTHING, None),
    ("exactly as old as allowed", NOW - 3600, HOUR, NOTHING, None),
    ("a second too old", NOW - 3601, HOUR, NOTHING, OLD),
    ("missing", None, HOUR, NOTHING, OLD),
    ("now", NOW, HOUR, NOTHING, None),
    ("a clock that runs ahead", NOW + FUTURE_LEEWAY, HOUR, NOTHING, None),
    ("in the future", NOW + FUTURE_LEEWAY + 1, HOUR, NOTHING, OLD),
    ("the rule asks for less age", NOW - 100, HOUR, MINUTE, OLD),
    ("the rule allows more age", NOW - 100, MINUTE, HOUR, None),
    ("age zero", NOW - 1, HOUR, Mfa(max_age=0), OLD),
]


@pytest.mark.parametrize(("auth_time", "issuer", "rule", "outcome"), [v[1:] for v in AGES], ids=[v[0] for v in AGES])
def test_age(auth_time: int | None, issuer: Mfa, rule: Mfa, outcome: Reason | None) -> None:
    assert weakness(principal("mfa", None, auth_time), issuer, rule, now=NOW) is outcome


def test_too_weak_is_said_before_too_old() -> None:
    """A fresh login with the same single factor would not help."""
    assert weakness(principal("pwd", None, 0), HOUR, NOTHING, now=NOW) is MISSING


CHALLENGES: list[tuple[Mfa, Mfa, Challenge]] = [
    (NOTHING, NOTHING, Challenge()),
    (AAL2, NOTHING, Challenge(("urn:aal2", "urn:aal3"))),
    (AAL2, MINUTE, Challenge(("urn:aal2", "urn:aal3"), 60)),
    (HOUR, Mfa(acr_values=("urn:x",)), Challenge(("urn:x",), 3600)),
    (HOUR, MINUTE, Challenge((), 60)),
    (AAL2, OTP, Challenge()),
    (HOUR, Mfa(max_age=0), Challenge((), 0)),
]


@pytest.mark.parametrize(("issuer", "rule", "asked"), CHALLENGES)
def test_challenge(issuer: Mfa, rule: Mfa, asked: Challenge) -> None:
    """What is asked of the client is what `weakness` would accept."""
    assert challenge(issuer, rule) == asked


def test_every_registered_method_is_known() -> None:
    """RFC 8176 section 2, all twenty."""
    registered = "face fpt geo hwk iris kba mca mfa otp pin pwd rba retina sc sms swk tel user vbm wia"
    assert METHODS.keys() == set(registered.split())
