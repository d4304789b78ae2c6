"""The certificate of a segment's key: the long-term audit key says which key may sign which segment, and when.

A segment's private key lives in memory for about an hour and is never stored, so a thief of today's memory cannot
sign for yesterday's segment. A certificate does NOT protect against a thief of the long-term key.
"""

from dataclasses import dataclass

from proxy.audit.checkpoint import canonical_int, origin
from proxy.audit.note import NoteError, Signer, Verifier

KEY_NAME = "hip-audit"  # the long-term key's name in every note
_TITLE = "hip-audit-certificate/v1"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One key, one stream, one segment, one window of time (UNIX seconds, both ends included)."""

    stream: str
    segment: int
    not_before: int
    not_after: int
    key: Verifier

    def issue(self, signer: Signer) -> str:
        """Return the certificate as a note signed by the long-term key."""
        window = f"{self.not_before}\n{self.not_after}"
        return signer.note(f"{_TITLE}\n{self.stream}\n{self.segment}\n{window}\n{self.key}\n")

    @classmethod
    def open(cls, note: str, auditor: Verifier) -> "Certificate":
        """Read a certificate that the long-term key has signed; raise NoteError."""
        lines = auditor.open(note).split("\n")
        if len(lines) != 7 or lines[0] != _TITLE:
            raise NoteError("not a certificate of a segment key")
        key = Verifier.parse(lines[5])
        if key.name != origin(lines[1]):
            raise NoteError("the certified key is named after another stream")
        return cls(lines[1], canonical_int(lines[2]), canonical_int(lines[3]), canonical_int(lines[4]), key)

    def covers(self, t_ns: int) -> bool:
        """Say whether a time lies in the window."""
        return self.not_before <= t_ns // 1_000_000_000 <= self.not_after
