"""The roster: which streams a directory has, how far each had grown at the latest, and how it ended.

Decides whether the anchor lines make one story, so that a removed stream or a cut tail shows; the last line is the
head that an auditor keeps. It does NOT show that the log was rolled back together with the streams: only a head that
is kept elsewhere does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from proxy.audit.anchor import ANCHOR_VERSION, Anchor, AnchorError, Deleted, Found, line_hash, read
from proxy.audit.chain import GENESIS
from proxy.audit.findings import Fault, Status
from proxy.audit.note import Verifier

ANCHORS = "anchors"  # how faults name the log


@dataclass(slots=True)
class Known:
    """What the anchor log says of one stream: its greatest signed size, and how it ended."""

    size: int
    root: str
    ended: bool = False
    found: Found | None = None
    deleted: Deleted | None = None  # what retention removed of its beginning

    @property
    def final_size(self) -> int:
        """How many records the stream had when it was last vouched for."""
        return self.size if self.found is None else self.found.size

    @property
    def closed(self) -> bool:
        """Say whether nothing may follow."""
        return self.ended or self.found is not None

    @property
    def all_deleted(self) -> bool:
        """Say whether retention removed the whole stream, so that nothing of it is missed."""
        return self.closed and self.deleted is not None and self.deleted.size == self.final_size

    def admits(self, found: Found) -> bool:
        """Say whether what was found can be the end of this stream."""
        if self.closed or found.size < self.size:
            return False
        return found.size > self.size or found.root == self.root


@dataclass(slots=True)
class Roster:
    """The streams of a directory, as far as the anchor log tells: memory grows with streams, not with lines."""

    count: int = 0
    last: str = GENESIS  # hash of the last line
    torn_bytes: int = 0  # of unfinished lines that crashes left and later writers removed
    streams: dict[str, Known] = field(default_factory=dict)

    def add(self, line: bytes, anchor: Anchor) -> None:
        """Take the next line; raise AnchorError when it does not follow."""
        if anchor.v != ANCHOR_VERSION or anchor.n != self.count or anchor.prev != self.last:
            message = f"anchor line {self.count} does not follow the line before it"
            raise AnchorError(message)
        known = self.streams.get(anchor.stream)
        if (known is None) != (anchor.kind == "start"):
            message = f"anchor line {anchor.n}: a stream starts once, and first"
            raise AnchorError(message)
        if known is None:
            known = self.streams[anchor.stream] = Known(anchor.size, anchor.root)
        if known.closed or anchor.size < known.size:
            message = f"anchor line {anchor.n} contradicts an earlier one"
            raise AnchorError(message)
        known.size, known.root, known.ended = anchor.size, anchor.root, anchor.kind == "end"
        if anchor.found is not None:
            self._bury(anchor.found, anchor.n)
        if anchor.deleted is not None:
            self._prune(anchor.deleted, anchor.n)
        self.count += 1
        self.last = line_hash(line)
        self.torn_bytes += anchor.torn_bytes

    def _bury(self, found: Found, n: int) -> None:
        dead = self.streams.setdefault(found.stream, Known(0, GENESIS))
        if not dead.admits(found):
            message = f"anchor line {n}: the recovered stream {found.stream} was another one before"
            raise AnchorError(message)
        dead.found = found  # beside the last signed head, not over it: both must fit the records

    def _prune(self, deleted: Deleted, n: int) -> None:
        known = self.streams.get(deleted.stream)
        before = 0 if known is None or known.deleted is None else known.deleted.size
        if known is None or not before < deleted.size <= known.final_size:
            message = f"anchor line {n}: retention tells of records that {deleted.stream} did not have"
            raise AnchorError(message)
        known.deleted = deleted


class RosterCheck:
    """One pass over the anchor log. `kept` holds the lines that an auditor kept elsewhere, by their number."""

    def __init__(self, auditor: Verifier, kept: Mapping[int, str] | None = None) -> None:
        self.roster = Roster()
        self.faults: list[Fault] = []
        self.head = ""  # the last line: what to keep
        self._auditor = auditor
        self._kept = dict(kept or {})

    def feed(self, line: bytes) -> None:
        """Take the next line, with its newline."""
        if self.faults:
            return
        if not line.endswith(b"\n"):
            self._fault(Status.INCOMPLETE, "an unfinished last line: a crash, or the log is being written")
            return
        line = line[:-1]
        try:
            anchor = read(line, self._auditor)
            self.roster.add(line, anchor)
        except AnchorError as error:
            self._fault(Status.TAMPERED, str(error))
            return
        self.head = line.decode()
        kept = self._kept.pop(anchor.n, None)
        if kept is not None and kept != self.roster.last:
            self._fault(Status.TAMPERED, f"line {anchor.n} is not the head that was kept")

    def finish(self, present: Collection[str]) -> Roster:
        """Compare with the streams that are there."""
        if any(fault.status is Status.TAMPERED for fault in self.faults):
            return self.roster
        if self._kept:
            self._fault(Status.TAMPERED, f"rolled back: the head that was kept has number {max(self._kept)}")
        for stream in self.roster.streams.keys() - set(present):
            if not self.roster.streams[stream].all_deleted:
                self.faults.append(Fault(Status.TAMPERED, stream, None, "removed: the anchor log knows it"))
        return self.roster

    def _fault(self, status: Status, what: str) -> None:
        self.faults.append(Fault(status, ANCHORS, self.roster.count, what))
