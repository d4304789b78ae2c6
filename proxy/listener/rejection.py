"""What the listener answers to a message that it does not take: RFC 9457, one table, and the connection ends.

These answers stand apart from `proxy.errors.PUBLIC`, because there is no call and no principal yet: nothing has been
parsed that could be trusted. They say the same little: a title, a status, an incident id.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from proxy.errors import HipError
from proxy.exchange import Headers
from proxy.reasons import Reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """A kind of refusal, as the caller sees it, and its reason, as the auditor does."""

    status: int
    title: str
    reason: Reason


UNCLEAN = Rejection(400, "the request is not valid", Reason.MALFORMED_MESSAGE)
HEAD_TIMEOUT = Rejection(408, "the request took too long", Reason.MALFORMED_MESSAGE)
BODY_TOO_LARGE = Rejection(413, "the request is too large", Reason.BODY_TOO_LARGE)
TARGET_TOO_LONG = Rejection(414, "the request target is too long", Reason.MALFORMED_MESSAGE)
EXPECTATION = Rejection(417, "the expectation cannot be met", Reason.MALFORMED_MESSAGE)
HEAD_TOO_LARGE = Rejection(431, "the header fields are too large", Reason.MALFORMED_MESSAGE)
INTERNAL = Rejection(500, "the request could not be handled", Reason.INTERNAL)
METHOD = Rejection(501, "the method is not implemented", Reason.METHOD_NOT_ALLOWED)
CODING = Rejection(501, "the transfer coding is not implemented", Reason.MALFORMED_MESSAGE)
VERSION = Rejection(505, "the HTTP version is not supported", Reason.MALFORMED_MESSAGE)


class Rejected(HipError):
    """A message that goes no further. `detail` is in our own words, for the auditor only."""

    def __init__(self, rejection: Rejection, detail: str) -> None:
        super().__init__(rejection, detail)
        self.rejection = rejection
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Refused:
    """A message or connection that ended in the listener: what the application needs for its one audit record."""

    incident: str  # the id that the caller was told, if it was told anything
    reason: Reason
    status: int  # of the answer; 0: the connection was closed without one
    detail: str


def problem(rejection: Rejection, incident: str) -> tuple[Headers, bytes]:
    """Return the header fields and the body of an answer that is the last on its connection (RFC 9112 section 9.6)."""
    body = json.dumps(
        {
            "type": "about:blank",
            "title": rejection.title,
            "status": rejection.status,
            "instance": f"urn:hip:incident:{incident}",
        }
    ).encode()
    return (
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ), body


def answer(rejection: Rejection, incident: str, defaults: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the whole answer as bytes, for a message that has no application to write it."""
    fields, body = problem(rejection, incident)
    status_line = b"HTTP/1.1 %d %s" % (rejection.status, HTTPStatus(rejection.status).phrase.encode())
    lines = [status_line, *(b"%s: %s" % field for field in (*defaults, *fields)), b"", body]
    return b"\r\n".join(lines)
