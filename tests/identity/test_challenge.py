"""The `WWW-Authenticate` field, letter by letter: RFC 6750 section 3, RFC 9470 section 3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import (
    AnomalousInput,
    BearerMisuse,
    Challenge,
    DependencyFault,
    Forbidden,
    InvalidProof,
    RequestError,
    StepUpRequired,
    TokenMissing,
    Unauthenticated,
)
from proxy.exchange import Scheme
from proxy.identity.challenge import www_authenticate
from proxy.reasons import Reason

STEP_UP = (
    b'Bearer realm="inference", error="insufficient_user_authentication", '
    b'error_description="a stronger or more recent authentication is required"'
)

EXACT: list[tuple[RequestError, bytes]] = [
    (TokenMissing(), b'Bearer realm="inference"'),
    (
        BearerMisuse(),
        b'Bearer realm="inference", error="invalid_request", error_description="%s"'
        % b"the credentials are not presented correctly",
    ),
    (
        Unauthenticated(Reason.TOKEN_EXPIRED, "secret detail"),
        b'Bearer realm="inference", error="invalid_token", error_description="the credentials are not valid"',
    ),
    (Forbidden(), b'Bearer realm="inference", error="insufficient_scope", error_description="not allowed"'),
    (
        Forbidden(scope="infer:iris"),
        b'Bearer realm="inference", error="insufficient_scope", error_description="not allowed", scope="infer:iris"',
    ),
    (StepUpRequired(), STEP_UP),
    (StepUpRequired(challenge=Challenge(("urn:a", "urn:b"))), STEP_UP + b', acr_values="urn:a urn:b"'),
    (StepUpRequired(challenge=Challenge(max_age=300)), STEP_UP + b', max_age="300"'),
    (StepUpRequired(challenge=Challenge(("urn:a",), 0)), STEP_UP + b', acr_values="urn:a", max_age="0"'),
]


@pytest.mark.parametrize(("error", "field"), EXACT, ids=[type(error).__name__ for error, _ in EXACT])
def test_field(error: RequestError, field: bytes) -> None:
    assert www_authenticate(error) == field


ALGS = b', algs="ES256 ES384 EdDSA PS256 RS256"'
BOTH = (Scheme.BEARER, Scheme.DPOP)
BY_SCHEME: list[tuple[RequestError, tuple[Scheme, ...], bytes]] = [
    (TokenMissing(), BOTH, b'Bearer realm="inference", DPoP realm="inference"' + ALGS),
    (
        InvalidProof(),
        (Scheme.DPOP,),
        b'DPoP realm="inference", error="invalid_dpop_proof", '
        b'error_description="the proof of possession is not valid"' + ALGS,
    ),
    (
        Unauthenticated(),
        (Scheme.DPOP,),
        b'DPoP realm="inference", error="invalid_token", error_description="the credentials are not valid"' + ALGS,
    ),
    (StepUpRequired(), BOTH, STEP_UP + b', DPoP realm="inference"' + ALGS),
    (StepUpRequired(), (Scheme.DPOP,), b"DPoP" + STEP_UP.removeprefix(b"Bearer") + ALGS),
]


@pytest.mark.parametrize(
    ("error", "schemes", "field"), BY_SCHEME, ids=[type(error).__name__ for error, *_ in BY_SCHEME]
)
def test_schemes(error: RequestError, schemes: tuple[Scheme, ...], field: bytes) -> None:
    """RFC 9449 section 7: the error belongs to the caller's scheme, the other is an offer."""
    assert www_authenticate(error, schemes=schemes) == field


@pytest.mark.parametrize("error", [AnomalousInput(), DependencyFault(Reason.KEYS_UNAVAILABLE)])
def test_no_field(error: RequestError) -> None:
    """An error that better credentials would not mend asks for none."""
    assert www_authenticate(error) is None


def test_quoted_string() -> None:
    """RFC 9110 section 5.6.4; a line end never reaches a header."""
    assert www_authenticate(TokenMissing(), 'a"b\\c\r\nd: é') == b'Bearer realm="a\\"b\\\\c??d: ?"'


@given(st.text(), st.lists(st.text()))
def test_any_text(realm: str, contexts: list[str]) -> None:
    """Any realm and contexts yield visible ASCII with balanced quotes."""
    field = www_authenticate(StepUpRequired(challenge=Challenge(tuple(contexts))), realm)
    assert field is not None
    assert all(0x20 <= byte < 0x7F for byte in field)
    assert (field.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')) % 2 == 0
