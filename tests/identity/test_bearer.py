"""Where a token may stand: RFC 6750 section 2, as vectors."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import bearer, call

from proxy.errors import BearerMisuse, RequestError, TokenMissing, Unauthenticated
from proxy.exchange import Headers, Scheme
from proxy.identity.bearer import MAX_TOKEN_CHARS, Credentials, credentials, preferred
from proxy.reasons import Reason

A = b"authorization"

REFUSED: list[tuple[str, Headers, str, type[RequestError], Reason]] = [
    ("empty field", ((A, b""),), "", TokenMissing, Reason.TOKEN_MISSING),
    ("Basic", ((A, b"Basic YTpi"),), "", TokenMissing, Reason.TOKEN_MISSING),
    ("DPoP, which we do not speak", ((A, b"DPoP x.y.z"),), "", TokenMissing, Reason.TOKEN_MISSING),
    ("a longer scheme", ((A, b"Bearerx x.y.z"),), "", TokenMissing, Reason.TOKEN_MISSING),
    ("no scheme", ((A, b"x.y.z"),), "", TokenMissing, Reason.TOKEN_MISSING),
    ("a tab after the scheme", ((A, b"Bearer\tx.y.z"),), "", TokenMissing, Reason.TOKEN_MISSING),
    ("a scheme and nothing", ((A, b"Bearer"),), "", Unauthenticated, Reason.TOKEN_MALFORMED),
    ("a scheme and a space", ((A, b"Bearer "),), "", Unauthenticated, Reason.TOKEN_MALFORMED),
    ("too long", ((A, b"Bearer " + b"x" * (MAX_TOKEN_CHARS + 1)),), "", Unauthenticated, Reason.TOKEN_MALFORMED),
    ("beyond ASCII", ((A, "Bearer é".encode()),), "", Unauthenticated, Reason.TOKEN_MALFORMED),
    ("two fields", ((A, b"Bearer x"), (A, b"Bearer y")), "", BearerMisuse, Reason.TOKEN_DUPLICATE),
    ("two fields, the same", ((A, b"Bearer x"), (A, b"Bearer x")), "", BearerMisuse, Reason.TOKEN_DUPLICATE),
    ("two fields, one Basic", ((A, b"Basic x"), (A, b"Bearer x")), "", BearerMisuse, Reason.TOKEN_DUPLICATE),
    ("two in one field", ((A, b"Bearer x, Bearer y"),), "", BearerMisuse, Reason.TOKEN_DUPLICATE),
    ("in the query", (), "access_token=x", BearerMisuse, Reason.TOKEN_DUPLICATE),
    ("in the query, without value", (), "a=1&access_token", BearerMisuse, Reason.TOKEN_DUPLICATE),
    ("in the query, encoded", (), "%61ccess%5Ftoken=x", BearerMisuse, Reason.TOKEN_DUPLICATE),
    ("in both places", ((A, b"Bearer x"),), "access_token=x", BearerMisuse, Reason.TOKEN_DUPLICATE),
]


@pytest.mark.parametrize(("headers", "query", "error", "reason"), [v[1:] for v in REFUSED], ids=[v[0] for v in REFUSED])
def test_refused(headers: Headers, query: str, error: type[RequestError], reason: Reason) -> None:
    with pytest.raises(RequestError) as refused:
        credentials(call(*headers, query=query))
    assert type(refused.value) is error
    assert refused.value.reason is reason


@pytest.mark.parametrize("field", [b"Bearer x.y.z", b"bearer x.y.z", b"BEARER   x.y.z"])
def test_token(field: bytes) -> None:
    """The scheme has no case (RFC 9110 section 11.1); one or more spaces."""
    found = credentials(call((A, field), query="a=access_token&token=1"))
    assert found == Credentials(Scheme.BEARER, "x.y.z")


def test_no_credentials_at_all() -> None:
    """No refusal yet: a client certificate may speak for the caller."""
    assert credentials(call()) is None


@pytest.mark.parametrize("field", [b"DPoP x.y.z", b"dpop x.y.z"])
def test_token_under_dpop(field: bytes) -> None:
    """RFC 9449 section 7.1, where the scheme is known."""
    found = credentials(call((A, field)), tuple(Scheme))
    assert found == Credentials(Scheme.DPOP, "x.y.z")


def test_own_scheme_comes_first() -> None:
    """Who came with DPoP is challenged with DPoP alone; everybody else hears what there is."""
    both = (Scheme.BEARER, Scheme.DPOP)
    assert preferred(call((A, b"dpop x")), both) == (Scheme.DPOP,)
    assert preferred(call((A, b"Bearer x")), both) == both
    assert preferred(call(), both) == both
    assert preferred(call((A, b"DPoP x")), (Scheme.BEARER,)) == (Scheme.BEARER,)


def test_longest_token() -> None:
    found = credentials(bearer("x" * MAX_TOKEN_CHARS))
    assert found is not None
    assert len(found.token) == MAX_TOKEN_CHARS


@given(st.lists(st.binary(), max_size=3), st.text(max_size=40))
def test_any_bytes(values: list[bytes], query: str) -> None:
    """Any fields and any query yield an ASCII token, nothing or a refusal."""
    with suppress(Unauthenticated):
        found = credentials(call(*((A, value) for value in values), query=query))
        assert found is None or found.token.isascii()
