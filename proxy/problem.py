"""The public face of a refusal or fault: RFC 9457, one table, one incident id, nothing else.

The caller is told the type's title and status; the reason and the detail stay with the auditor.
"""

import json

from proxy.errors import BudgetExhausted, Overloaded, RequestError, public_face
from proxy.exchange import Answer, Headers
from proxy.identity.challenge import www_authenticate

BUSY_SECONDS = 1  # the Retry-After of an overload


def public_answer(error: RequestError, incident: str, extra: Headers = ()) -> Answer:
    """Return what the caller sees of an error, under the incident id that the audit trail knows it by."""
    face = public_face(error)
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/problem+json"), *extra]
    if (challenge := www_authenticate(error)) is not None:
        headers.append((b"www-authenticate", challenge))
    if isinstance(error, BudgetExhausted):
        headers.append((b"retry-after", b"%d" % error.retry_after))
    elif isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % BUSY_SECONDS))
    body = {
        "type": "about:blank",
        "title": face.title,
        "status": face.status,
        "instance": f"urn:hip:incident:{incident}",
    }
    return Answer(face.status, tuple(headers), json.dumps(body).encode())
