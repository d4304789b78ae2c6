"""Where a token may stand: RFC 6750 section 2.1 and RFC 9449 section 7.1, one `Authorization` field, nowhere else.

Not decided here: whether the token is any good (token.py). A token in a form body is not looked for: no dialect
reads forms, so such a body is refused by its content type.
"""

from collections.abc import Sequence
from urllib.parse import unquote_plus

from proxy.errors import BearerMisuse, TokenMissing, Unauthenticated
from proxy.exchange import Call, Scheme, Word
from proxy.reasons import Reason

MAX_TOKEN_CHARS = 8192  # one byte each; what most servers allow a whole header line


_SCHEMES = {scheme.lower().encode(): scheme for scheme in Scheme}


class Credentials(Word, frozen=True):
    """A token and the scheme that it came under."""

    scheme: Scheme
    token: str


def credentials(call: Call, schemes: Sequence[Scheme] = (Scheme.BEARER,)) -> Credentials | None:
    """Return the one token of a call, None where there is no `Authorization` at all.

    Raise TokenMissing for a scheme that is not one of ours, BearerMisuse, or Unauthenticated(TOKEN_MALFORMED).
    """
    if call.query and _token_in_query(call.query):
        raise BearerMisuse(detail="access_token in the query: send it in the Authorization header")
    fields = call.values(b"authorization")
    if not fields:
        return None
    if len(fields) > 1:
        raise BearerMisuse(detail="two Authorization fields")
    name, _, token = fields[0].partition(b" ")
    scheme = _SCHEMES.get(name.lower())
    if scheme is None or scheme not in schemes:  # RFC 6750 section 3.1: an unsupported method counts as no credentials
        raise TokenMissing(detail=f"the authorization scheme is not {' or '.join(schemes)}")
    if b"," in token:  # two fields that somebody joined (RFC 9110 section 5.3)
        raise BearerMisuse(detail="several credentials in one Authorization field")
    token = token.lstrip(b" ")  # RFC 6750 section 2.1: 1*SP
    if not 0 < len(token) <= MAX_TOKEN_CHARS:
        raise Unauthenticated(Reason.TOKEN_MALFORMED, f"a token of {len(token)} bytes, the cap is {MAX_TOKEN_CHARS}")
    try:
        return Credentials(scheme, token.decode("ascii"))
    except UnicodeDecodeError as exc:
        raise Unauthenticated(Reason.TOKEN_MALFORMED, "a token with bytes beyond ASCII") from exc


def preferred(call: Call, schemes: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
    """Return the schemes to challenge with: the error belongs to the first, the others are offers."""
    fields = call.values(b"authorization")
    name = fields[0].partition(b" ")[0].lower() if fields else b""
    if Scheme.DPOP in schemes and name == Scheme.DPOP.lower().encode():
        return (Scheme.DPOP,)  # RFC 9449 section 7.1: who has a bound token is not offered less
    return schemes


def _token_in_query(query: str) -> bool:
    # Section 2.3 allows it; RFC 9700 section 4.3.2 does not: URLs end up in logs and Referer fields.
    return any(unquote_plus(part.partition("=")[0]) == "access_token" for part in query.split("&"))
