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
    RequestError,
    StepUpRequired,
    TokenMissing,
    Unauthenticated,
)
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
    (StepUpRequired(), STEP_UP),
    (StepUpRequired(challenge=Challenge(("urn:a", "urn:b"))), STEP_UP + b', acr_values="urn:a urn:b"'),
    (StepUpRequired(challenge=Challenge(max_age=300)), STEP_UP + b', max_age="300"'),
    (StepUpRequired(challenge=Challenge(("urn:a",), 0)), STEP_UP + b', acr_values="urn:a", max_age="0"'),
]


@pytest.mark.parametrize(("error", "field"), EXACT, ids=[type(error).__name__ for error, _ in EXACT])
def test_field(error: RequestError, field: bytes) -> None:
    assert www_authenticate(error) == field


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
