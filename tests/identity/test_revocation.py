"""What a revocation list takes back, and what it may be made of."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import CORP, ISS, NOW, Hands, Ring, b64, bearer, signer
from msgspec.structs import replace

from proxy.errors import ConfigError, Unauthenticated
from proxy.exchange import Certificate, Principal
from proxy.identity.authenticator import Authenticator
from proxy.identity.revocation import (
    MAX_BYTES,
    MAX_FINDINGS,
    NOTHING_REVOKED,
    Revocation,
    Revocations,
    parse_revocation,
    parse_revocations,
    revocation_members,
)
from proxy.reasons import Reason

FINGERPRINT = b64(bytes(range(32)))
CERTIFICATE = Certificate(FINGERPRINT, "01")
ALICE = Principal("corp", "alice", frozenset(), frozenset(), None, None, NOW - 60, NOW + 60, "t1", b"", "k")


def listed(*lines: dict[str, object]) -> Revocations:
    """A list of these lines, through its own reader."""
    return Revocations.of(parse_revocations("r", b"\n".join(json.dumps({"at": 1} | line).encode() for line in lines)))


MATCHES: list[tuple[str, dict[str, object], Reason | None]] = [
    ("its jti", {"issuer": "corp", "jti": "t1"}, Reason.TOKEN_REVOKED),
    ("another jti", {"issuer": "corp", "jti": "t2"}, None),
    ("its jti at another issuer", {"issuer": "other", "jti": "t1"}, None),
    ("a jti that begins the same", {"issuer": "corp", "jti": "t"}, None),
    ("its subject", {"issuer": "corp", "subject": "alice"}, Reason.TOKEN_REVOKED),
    ("its subject at another issuer", {"issuer": "other", "subject": "alice"}, None),
    ("another case", {"issuer": "corp", "subject": "Alice"}, None),
    ("its subject, later", {"issuer": "corp", "subject": "alice", "issued_before": NOW - 59}, Reason.TOKEN_REVOKED),
    ("its subject, then", {"issuer": "corp", "subject": "alice", "issued_before": NOW - 60}, None),
    ("its issuer, later", {"issuer": "corp", "issued_before": NOW - 59}, Reason.TOKEN_REVOKED),
    ("its issuer, then", {"issuer": "corp", "issued_before": NOW - 60}, None),
    ("another issuer", {"issuer": "other", "issued_before": NOW}, None),
    ("its certificate", {"certificate": FINGERPRINT}, Reason.CERTIFICATE_REVOKED),
    ("another certificate", {"certificate": b64(bytes(32))}, None),
]


@pytest.mark.parametrize(("line", "reason"), [m[1:] for m in MATCHES], ids=[m[0] for m in MATCHES])
def test_match(line: dict[str, object], reason: Reason | None) -> None:
    """A token issued at NOW - 60, not bound, on a connection with a certificate."""
    assert listed(line).revoked(ALICE, CERTIFICATE) is reason


def test_of_two_moments_the_later_counts() -> None:
    lines = [{"issuer": "corp", "subject": "alice", "issued_before": moment} for moment in (NOW, 5)]
    assert listed(*lines).revoked(ALICE, None) is Reason.TOKEN_REVOKED
    assert listed(*lines).revoked(replace(ALICE, issued_at=NOW), None) is None


def test_no_pair_is_another() -> None:
    """Issuer and subject are looked up as two, not as one text."""
    assert listed({"issuer": "cor", "subject": "palice"}).revoked(ALICE, None) is None


def test_empty_list_revokes_nothing() -> None:
    assert parse_revocations("r", b"") == parse_revocations("r", b"\n\n") == ()
    assert NOTHING_REVOKED.revoked(ALICE, CERTIFICATE) is None


def test_the_same_line_twice_is_no_fault() -> None:
    line = {"issuer": "corp", "jti": "t1"}
    assert listed(line, line).revoked(ALICE, None) is Reason.TOKEN_REVOKED


BAD_LINES: list[tuple[str, str, str]] = [
    ("no JSON", "revoke alice", "not one JSON object"),
    ("a list", '["alice"]', "not one JSON object"),
    ("a name twice", '{"at": 1, "jti": "a", "jti": "b", "issuer": "corp"}', "unique names"),
    ("nothing", '{"at": 1}', "revoke nothing: none"),
    ("no issuer", '{"at": 1, "jti": "a"}', "revoke nothing: jti"),
    ("a subject without issuer", '{"at": 1, "subject": "a"}', "revoke nothing"),
    ("an issuer alone", '{"at": 1, "issuer": "corp"}', "revoke nothing: issuer"),
    ("two things", '{"at": 1, "issuer": "corp", "jti": "a", "subject": "b"}', "revoke nothing"),
    ("an unknown member", '{"at": 1, "issuer": "corp", "sub": "a"}', "revoke nothing: issuer, sub"),
    ("no at", '{"issuer": "corp", "jti": "a"}', "`at` is missing"),
    ("at as text", '{"at": "1", "issuer": "corp", "jti": "a"}', "`at` must be"),
    ("at true", '{"at": true, "issuer": "corp", "jti": "a"}', "`at` must be"),
    ("moment zero", '{"at": 1, "issuer": "corp", "issued_before": 0}', "`issued_before` must be"),
    ("moment in milliseconds", '{"at": 1, "issuer": "corp", "issued_before": 9999999999999}', "`issued_before`"),
    ("empty jti", '{"at": 1, "issuer": "corp", "jti": ""}', "`jti` must be"),
    ("jti a number", '{"at": 1, "issuer": "corp", "jti": 1}', "`jti` must be"),
    ("hexadecimal fingerprint", '{"at": 1, "certificate": "' + "ab" * 32 + '"}', "`certificate` must be"),
    ("too long", '{"at": 1, "note": "' + "x" * 5000 + '"}', "bytes in a line"),
]


@pytest.mark.parametrize(("line", "words"), [b[1:] for b in BAD_LINES], ids=[b[0] for b in BAD_LINES])
def test_bad_line(line: str, words: str) -> None:
    """Half a list is no list: one bad line refuses all, and says where it is."""
    good = b'{"at": 1, "issuer": "corp", "jti": "a"}\n'
    with pytest.raises(ConfigError) as refused:
        parse_revocations("revoked.jsonl", good + line.encode() + b"\n" + good)
    (finding,) = refused.value.findings
    assert (finding.file, finding.line) == ("revoked.jsonl", 2)
    assert words in finding.message


def test_findings_and_bytes_are_capped() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_revocations("r", b"x\n" * 1000)
    assert len(refused.value.findings) == MAX_FINDINGS
    with pytest.raises(ConfigError, match="16 MiB"):
        parse_revocations("r", b"\n" * (MAX_BYTES + 1))


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are a list or findings."""
    with suppress(ConfigError):
        Revocations.of(parse_revocations("r", data))


TEXT = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20)
TIME = st.integers(1, 253_402_300_799)


@given(
    st.one_of(
        st.builds(Revocation, at=TIME, issuer=TEXT, token_id=TEXT, note=st.none() | TEXT),
        st.builds(Revocation, at=TIME, issuer=TEXT, subject=TEXT, issued_before=st.none() | TIME),
        st.builds(Revocation, at=TIME, issuer=TEXT, issued_before=TIME),
        st.builds(Revocation, at=TIME, certificate=st.binary(min_size=32, max_size=32).map(b64)),
    )
)
def test_a_line_reads_back(revocation: Revocation) -> None:
    assert parse_revocation(json.dumps(revocation_members(revocation)).encode()) == revocation


class Switch:
    """A `RevocationList` that a test changes between two requests."""

    def __init__(self) -> None:
        self.current = NOTHING_REVOKED
        self.generation = 0

    def revoked(self, principal: Principal, certificate: Certificate | None) -> Reason | None:
        return self.current.revoked(principal, certificate)


async def test_checked_on_every_request_remembered_or_not() -> None:
    """A verdict in the cache does not outlive a revocation, and comes back with the line's end."""
    switch, ring = Switch(), Ring()
    authenticator, token = Authenticator(ring, Hands(), revocations=switch), signer().token()
    await authenticator.authenticate(bearer(token), {ISS: CORP}, "p")
    switch.current = listed({"issuer": "corp", "jti": "token-1"})
    for _ in range(2):
        with pytest.raises(Unauthenticated) as refused:
            await authenticator.authenticate(bearer(token), {ISS: CORP}, "p")
        assert refused.value.reason is Reason.TOKEN_REVOKED
    switch.current = listed({"certificate": FINGERPRINT})
    with pytest.raises(Unauthenticated) as refused:
        await authenticator.authenticate(bearer(token, certificate=CERTIFICATE), {ISS: CORP}, "p")
    assert refused.value.reason is Reason.CERTIFICATE_REVOKED
    assert (await authenticator.authenticate(bearer(token), {ISS: CORP}, "p")).subject == "alice"
    assert len(ring.asked) == 1
