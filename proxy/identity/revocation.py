"""What is no longer believed before its time: tokens, subjects, client certificates, everything issued before a moment.

A list is JSON lines, one revocation each, with `at` (when it was revoked), an optional `note`, and an optional `until`:
from then on the line means nothing, because the token or certificate has expired anyway:

    {"at": 1800000000, "issuer": "corp", "jti": "f81d4fae", "until": 1800003600}
    {"at": 1800000000, "issuer": "corp", "subject": "alice"}
    {"at": 1800000000, "issuer": "corp", "subject": "alice", "issued_before": 1800000000}
    {"at": 1800000000, "issuer": "corp", "issued_before": 1800000000}
    {"at": 1800000000, "certificate": "base64url of the SHA-256 of the DER, as in x5t#S256"}

`issuer` is the issuer's name in the policy, `mtls` for workloads. An empty list revokes nothing. The same line twice is
no fault: two operators may revoke the same thing, and the second must not make the list unreadable.

Not guaranteed: that an issuer's name is still the policy's; who renames an issuer renames it in the list.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from proxy.errors import ConfigError, Finding
from proxy.exchange import Certificate, Principal
from proxy.identity.claims import MAX_TEXT, MAX_TIME, is_text, is_thumbprint
from proxy.identity.notation import decode_object
from proxy.reasons import Reason

MAX_BYTES = 16 << 20  # of a whole list
MAX_LINE_BYTES = 4096
MAX_FINDINGS = 20  # told of at once; whoever mends these sees the rest

_Pair = tuple[str, str]  # issuer and subject, or issuer and `jti`


@dataclass(frozen=True, slots=True)
class Revocation:
    """One line of a list. Which fields are set says what is revoked; times in UNIX seconds."""

    at: int
    issuer: str | None = None
    token_id: str | None = None
    subject: str | None = None
    certificate: str | None = None
    issued_before: int | None = None
    until: int | None = None
    note: str | None = None

    @property
    def same(self) -> tuple[object, ...]:
        """What makes two lines revoke the same."""
        return self.issuer, self.token_id, self.subject, self.certificate, self.issued_before, self.until

    def over(self, now: float) -> bool:
        """Say whether it means nothing any more."""
        return self.until is not None and self.until <= now

    def __str__(self) -> str:
        """What it revokes, for people."""
        whose = "" if self.issuer is None else f" of {self.issuer}"
        until = "" if self.until is None else f" until {self.until}"
        if self.certificate is not None:
            return f"client certificate {self.certificate}{until}"
        if self.token_id is not None:
            return f"token {self.token_id}{whose}{until}"
        tokens = "every token" if self.subject is None else f"tokens of subject {self.subject}"
        before = "" if self.issued_before is None else f" issued before {self.issued_before}"
        return f"{tokens}{whose}{before}{until}"


@dataclass(frozen=True, slots=True)
class Revocations:
    """A list, indexed: a look costs the same however long it is. `ends_at` is when the next line means nothing."""

    entries: int
    issuers: frozenset[str]  # that lines name
    ends_at: float  # UNIX seconds
    tokens: frozenset[_Pair]
    subjects: frozenset[_Pair]
    certificates: frozenset[str]
    subject_moments: Mapping[_Pair, int]
    issuer_moments: Mapping[str, int]

    @classmethod
    def of(cls, listed: Iterable[Revocation], now: float = 0.0) -> "Revocations":
        """Index what counts at `now`, in UNIX seconds; of two moments the later one counts."""
        issuers, ends_at = set[str](), math.inf
        entries, tokens, subjects, certificates = 0, set[_Pair](), set[_Pair](), set[str]()
        subject_moments, issuer_moments = dict[_Pair, int](), dict[str, int]()
        for one in listed:
            if one.over(now):
                continue
            entries += 1
            issuer = one.issuer or ""
            issuers.add(issuer)
            ends_at = min(ends_at, one.until or math.inf)
            if one.certificate is not None:
                certificates.add(one.certificate)
            elif one.token_id is not None:
                tokens.add((issuer, one.token_id))
            elif one.subject is None:
                issuer_moments[issuer] = max(issuer_moments.get(issuer, 0), one.issued_before or 0)
            elif one.issued_before is None:
                subjects.add((issuer, one.subject))
            else:
                pair = (issuer, one.subject)
                subject_moments[pair] = max(subject_moments.get(pair, 0), one.issued_before)
        return cls(
            entries,
            frozenset(issuers - {""}),
            ends_at,
            frozenset(tokens),
            frozenset(subjects),
            frozenset(certificates),
            MappingProxyType(subject_moments),
            MappingProxyType(issuer_moments),
        )

    @property
    def generation(self) -> int:
        """A list in hand never changes."""
        return 0

    def revoked(self, principal: Principal, certificate: Certificate | None) -> Reason | None:
        """Return why the caller is no longer believed, or None. `certificate` is the connection's, bound or not."""
        if certificate is not None and certificate.fingerprint in self.certificates:
            return Reason.CERTIFICATE_REVOKED
        subject = (principal.issuer, principal.subject)
        before = max(self.subject_moments.get(subject, 0), self.issuer_moments.get(principal.issuer, 0))
        if (
            subject in self.subjects
            or (principal.issuer, principal.token_id) in self.tokens
            or principal.issued_at < before
        ):
            return Reason.TOKEN_REVOKED
        return None


NOTHING_REVOKED = Revocations.of(())


# ── the list's own form ─────────────────────────────────────────────────────────────────────────────────────────


def parse_revocations(name: str, data: bytes) -> tuple[Revocation, ...]:
    """Read a list. Raise ConfigError with the place of every fault; half a list is no list."""
    if len(data) > MAX_BYTES:
        raise ConfigError([Finding(name, 0, 0, f"more than {MAX_BYTES >> 20} MiB", "delete lines of expired tokens")])
    listed: list[Revocation] = []
    findings: list[Finding] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line:
            continue
        try:
            listed.append(parse_revocation(line))
        except ValueError as exc:
            findings.append(Finding(name, number, 1, str(exc), "mend the line or delete it; `hip revoke` writes lines"))
            if len(findings) == MAX_FINDINGS:
                break
    if findings:
        raise ConfigError(findings)
    return tuple(listed)


def parse_revocation(line: bytes) -> Revocation:
    """Read one line. Raise ValueError in words for its author."""
    if len(line) > MAX_LINE_BYTES:
        msg = f"more than {MAX_LINE_BYTES} bytes in a line"
        raise ValueError(msg)
    try:
        members = decode_object(line)
    except ValueError as exc:
        raise ValueError("not one JSON object with unique names") from exc
    what = members.keys() - {"at", "until", "note"}
    if frozenset(what) not in _KINDS:
        known = "; ".join(" + ".join(sorted(kind)) for kind in _KINDS)
        msg = f"these members together revoke nothing: {', '.join(sorted(what)) or 'none'}; known: {known}"
        raise ValueError(msg)
    if "at" not in members:
        raise ValueError("`at` is missing: when it was revoked, in UNIX seconds")
    for member, value in members.items():
        is_good, expected = _FORMS[member]
        if not is_good(value):
            msg = f"`{member}` must be {expected}"
            raise ValueError(msg)
    return Revocation(**{_FIELDS.get(member, member): value for member, value in members.items()})  # type: ignore[arg-type]  # _FORMS


def revocation_members(revocation: Revocation) -> dict[str, str | int]:
    """Return the members of a revocation's line."""
    names = {field: member for member, field in _FIELDS.items()}
    values = ((name, getattr(revocation, name)) for name in Revocation.__slots__)
    return {names.get(field, field): value for field, value in values if value is not None}


def _is_time(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_TIME  # `type`, because a bool is an int


_KINDS: tuple[frozenset[str], ...] = (
    frozenset({"issuer", "jti"}),
    frozenset({"issuer", "subject"}),
    frozenset({"issuer", "subject", "issued_before"}),
    frozenset({"issuer", "issued_before"}),
    frozenset({"certificate"}),
)
_TEXT = (is_text, f"a printable text of 1 to {MAX_TEXT} characters")
_TIME = (_is_time, "a whole number of UNIX seconds")
_FORMS: Mapping[str, tuple[Callable[[object], bool], str]] = MappingProxyType(
    {
        "at": _TIME,
        "until": _TIME,
        "issuer": _TEXT,
        "jti": _TEXT,
        "subject": _TEXT,
        "issued_before": _TIME,
        "certificate": (is_thumbprint, "a SHA-256 in base64url without padding, as `hip certs show` prints it"),
        "note": _TEXT,
    }
)
_FIELDS: Mapping[str, str] = MappingProxyType({"jti": "token_id"})  # where the standard's word is not ours
