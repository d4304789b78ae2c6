"""Where a token may stand: RFC 6750 section 2.1, one `Authorization` field, and nowhere else.

Not decided here: whether the token is any good (token.py). A token in a form body is not looked for: no dialect
reads forms, so such a body is refused by its content type.
"""

from urllib.parse import unquote_plus

from proxy.errors import BearerMisuse, TokenMissing, Unauthenticated
from proxy.exchange import Call
from proxy.reasons import Reason

MAX_TOKEN_CHARS = 8192  # one byte each; what most servers allow a whole header line


def bearer_token(call: Call) -> str:
    """Return the one token of a call. Raise TokenMissing, BearerMisuse or Unauthenticated(TOKEN_MALFORMED)."""
    if call.query and _token_in_query(call.query):
        raise BearerMisuse(detail="access_token in the query: send it in the Authorization header")
    fields = call.values(b"authorization")
    if not fields:
        raise TokenMissing
    if len(fields) > 1:
        raise BearerMisuse(detail="two Authorization fields")
    scheme, _, token = fields[0].partition(b" ")
    if scheme.lower() != b"bearer":  # RFC 6750 section 3.1: an unsupported method counts as no credentials
        raise TokenMissing(detail="the authorization scheme is not Bearer")
    if b"," in token:  # two fields that somebody joined (RFC 9110 section 5.3)
        raise BearerMisuse(detail="several credentials in one Authorization field")
    token = token.lstrip(b" ")  # RFC 6750 section 2.1: 1*SP
    if not 0 < len(token) <= MAX_TOKEN_CHARS:
        raise Unauthenticated(Reason.TOKEN_MALFORMED, f"a token of {len(token)} bytes, the cap is {MAX_TOKEN_CHARS}")
    try:
        return token.decode("ascii")
    except UnicodeDecodeError as exc:
        raise Unauthenticated(Reason.TOKEN_MALFORMED, "a token with bytes beyond ASCII") from exc


def _token_in_query(query: str) -> bool:
    # Section 2.3 allows it; RFC 9700 section 4.3.2 does not: URLs end up in logs and Referer fields.
    return any(unquote_plus(part.partition("=")[0]) == "access_token" for part in query.split("&"))
