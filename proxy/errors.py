"""The error tree, split by who is to blame, and the one table of public answers.

Decisions are values (`Grant | Denial`); failures are exceptions. `Refusal` is the caller's fault, `Fault` is ours or
the upstream's, `ConfigError` stops the start. An exception's `detail` is for the auditor and the operator: it never
reaches a caller, who gets `public_answer()` of the exception's type (RFC 9457) and an incident id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from proxy.reasons import Reason


class HipError(Exception):
    """The root of everything that we raise ourselves."""


# ── start-up ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault in a configuration: where it stands, what is wrong and what would mend it.

    `line` and `column` count from 1; 0 means that the fault has no single place. A warning is printed and does not
    stop the start: what it tells of is useless, not dangerous.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """`file:line:column: message (hint)`, the form that editors make clickable."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(HipError):
    """A configuration or policy that must not start; carries every finding at once, never only the first."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(map(str, findings)) or "invalid configuration")
        self.findings = tuple(findings)


# ── while serving ───────────────────────────────────────────────────────────────────────────────────────────────


class RequestError(HipError):
    """A request that will not get the answer it asked for. `detail` is for the audit trail only."""

    default = Reason.INTERNAL
    unsent = False  # whether the upstream is known to have got nothing of the request: then its charge is given back

    def __init__(self, reason: Reason | None = None, detail: str = "") -> None:
        super().__init__(reason or self.default, detail)
        self.reason = reason or self.default
        self.detail = detail


class Refusal(RequestError):
    """The caller's to mend."""


class Malformed(Refusal):
    """Not a request that the dialect describes."""

    default = Reason.MALFORMED_BODY


class UnknownRoute(Refusal):
    """A path that no dialect names, or an action that is closed: the two look alike from outside."""

    default = Reason.UNKNOWN_ROUTE


class MethodNotAllowed(Refusal):
    """A path we know with a method it does not have. `allowed` are those that it has (RFC 9110 section 15.5.6)."""

    default = Reason.METHOD_NOT_ALLOWED

    def __init__(self, reason: Reason | None = None, detail: str = "", allowed: Sequence[str] = ()) -> None:
        super().__init__(reason, detail)
        self.allowed = tuple(allowed)


class BodyTooLarge(Refusal):
    """More bytes than the listener takes."""

    default = Reason.BODY_TOO_LARGE


class BodyTimeout(Refusal):
    """The body did not arrive in time."""

    default = Reason.BODY_TIMEOUT


class UnsupportedMediaType(Refusal):
    """A content type or coding that the dialect does not read."""

    default = Reason.UNSUPPORTED_MEDIA_TYPE


class Unauthenticated(Refusal):
    """No token, or one that does not hold. `error` is the RFC 6750 code; None for a request without credentials."""

    default = Reason.TOKEN_MALFORMED


class TokenMissing(Unauthenticated):
    """RFC 6750 section 3.1: a challenge without an error code."""

    default = Reason.TOKEN_MISSING


class BearerMisuse(Unauthenticated):
    """RFC 6750 `invalid_request`: two credentials, or one in a place where it must not stand."""

    default = Reason.TOKEN_DUPLICATE


class InvalidProof(Unauthenticated):
    """RFC 9449 `invalid_dpop_proof`: no proof that the caller has the token's key, or one for another request."""

    default = Reason.TOKEN_PROOF


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a stronger or fresher authentication must show (RFC 9470 section 3)."""

    acr_values: tuple[str, ...] = ()
    max_age: int | None = None  # seconds


class StepUpRequired(Refusal):
    """Authenticated, but not strongly or not recently enough (RFC 9470)."""

    default = Reason.MFA_MISSING

    def __init__(self, reason: Reason | None = None, detail: str = "", challenge: Challenge | None = None) -> None:
        super().__init__(reason, detail)
        self.challenge = challenge or Challenge()


class Forbidden(Refusal):
    """Known, and not allowed. `scope` is what the caller may ask its provider for (RFC 6750 section 3.1)."""

    default = Reason.NO_RULE

    def __init__(self, reason: Reason | None = None, detail: str = "", scope: str | None = None) -> None:
        super().__init__(reason, detail)
        self.scope = scope


class BudgetExhausted(Refusal):
    """A window of the budget is spent. `retry_after` is in whole seconds."""

    default = Reason.BUDGET_EXHAUSTED

    def __init__(self, reason: Reason | None = None, detail: str = "", retry_after: int = 1) -> None:
        super().__init__(reason, detail)
        self.retry_after = retry_after


class AnomalousInput(Refusal):
    """An input that the model was not made for, refused because the policy enforces its detector."""

    default = Reason.ANOMALOUS_INPUT


class UpstreamRejected(Refusal):
    """The model server did not accept the input; its words stay here."""

    default = Reason.UPSTREAM_REJECTED


class Fault(RequestError):
    """Ours or the upstream's to mend."""


class InternalFault(Fault):
    """A bug of ours: the last resort that still answers and still records."""


class UpstreamFault(Fault):
    """The upstream is down, failed, or answered something that we will not pass on."""

    default = Reason.UPSTREAM_ERROR


class UpstreamTimeout(Fault):
    """The upstream did not answer in time."""

    default = Reason.UPSTREAM_TIMEOUT


class DependencyFault(Fault):
    """A part that we need (keys, ledger, detector, trail) is not there: fail closed."""

    default = Reason.INTERNAL


class Overloaded(Fault):
    """Too much at once, or known to be in vain: refused early and cheaply. `retry_after` is in whole seconds."""

    default = Reason.OVERLOADED

    def __init__(self, reason: Reason | None = None, detail: str = "", retry_after: int = 1) -> None:
        super().__init__(reason, detail)
        self.retry_after = retry_after
        self.unsent = self.reason is Reason.UPSTREAM_OPEN


class ProxyLoop(Fault):
    """The request has been here before (RFC 9110 section 7.6.3)."""

    default = Reason.PROXY_LOOP


# ── what the caller sees ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Public:
    """The public face of an error type: RFC 9457 `status` and `title`, and the RFC 6750 error code if it has one."""

    status: int
    title: str
    bearer_error: str | None = field(default=None)


PUBLIC: dict[type[RequestError], Public] = {
    Malformed: Public(400, "the request is not valid"),
    UnknownRoute: Public(404, "not found"),
    MethodNotAllowed: Public(405, "method not allowed"),
    BodyTooLarge: Public(413, "the request is too large"),
    BodyTimeout: Public(408, "the request took too long"),
    UnsupportedMediaType: Public(415, "the content type is not supported"),
    TokenMissing: Public(401, "authentication is required"),
    BearerMisuse: Public(400, "the credentials are not presented correctly", "invalid_request"),
    InvalidProof: Public(401, "the proof of possession is not valid", "invalid_dpop_proof"),
    Unauthenticated: Public(401, "the credentials are not valid", "invalid_token"),
    StepUpRequired: Public(
        401, "a stronger or more recent authentication is required", "insufficient_user_authentication"
    ),
    Forbidden: Public(403, "not allowed", "insufficient_scope"),
    BudgetExhausted: Public(429, "the query budget is exhausted"),
    AnomalousInput: Public(403, "anomalous input"),
    UpstreamRejected: Public(400, "the model server did not accept the request"),
    InternalFault: Public(500, "the request could not be handled"),
    UpstreamFault: Public(502, "the model server did not give a usable answer"),
    UpstreamTimeout: Public(504, "the model server did not answer in time"),
    DependencyFault: Public(503, "the service is not available"),
    Overloaded: Public(503, "the service is busy"),
    ProxyLoop: Public(508, "loop detected"),
}


def public_face(error: RequestError) -> Public:
    """Return the public answer of the nearest type in the table; an error without one is an internal fault."""
    for kind in type(error).__mro__:
        if kind in PUBLIC:
            return PUBLIC[kind]
    return PUBLIC[InternalFault]
