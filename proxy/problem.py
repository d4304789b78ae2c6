"""The public face of a refusal or fault: RFC 9457, one table, one incident id, nothing else.

The caller is told the type's title and status; the reason and the detail stay with the auditor.
"""

import json
from collections.abc import Sequence

from proxy.errors import BudgetExhausted, MethodNotAllowed, Overloaded, RequestError, public_face
from proxy.exchange import Answer, Headers, Scheme
from proxy.identity.challenge import www_authenticate


def public_answer(
    error: RequestError, incident: str, extra: Headers = (), schemes: Sequence[Scheme] = (Scheme.BEARER,)
) -> Answer:
    """Return what the caller sees of an error, under the incident id that the audit trail knows it by.

    `schemes` are those to challenge with, the caller's own first.
    """
    face = public_face(error)
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/problem+json"), *extra]
    if (challenge := www_authenticate(error, schemes=schemes)) is not None:
        headers.append((b"www-authenticate", challenge))
    if isinstance(error, MethodNotAllowed) and error.allowed:
        headers.append((b"allow", ", ".join(error.allowed).encode("ascii")))  # RFC 9110 section 10.2.1
    if isinstance(error, BudgetExhausted | Overloaded):
        headers.append((b"retry-after", b"%d" % error.retry_after))
    body = {
        "type": "about:blank",
        "title": face.title,
        "status": face.status,
        "instance": f"urn:hip:incident:{incident}",
    }
    return Answer(face.status, tuple(headers), json.dumps(body).encode())
