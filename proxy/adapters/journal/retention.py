"""Retention: which files are old enough to go, and how they go, so that pruned is never taken for missing.

Whole segments, from the beginning of a stream. A deletion is a record in the journal and a signed line in the anchor
log before a file is removed. It keeps no list of its own: age is that of the records.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.adapters.journal.anchors import AnchorLog, Head
from proxy.adapters.journal.disk import sealed_path, segment_path, segments, sync_directory, tail_lines
from proxy.audit.anchor import Deleted
from proxy.audit.chain import Envelope, LineError, split
from proxy.audit.roster import Roster

PROFILES = {
    "eu-ai-act": 184,  # days: six months, Regulation (EU) 2024/1689 articles 19 and 26(6)
    "pci": 365,  # PCI DSS 4.0.1, requirement 10.5.1
    "hipaa": 2_190,  # six years, 45 CFR 164.316(b)(2)(i)
}
INTERVAL = 3_600  # seconds between two looks
_DAY_NS = 86_400 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long records are kept."""

    profile: str

    @property
    def days(self) -> int:
        """Return it in days."""
        return PROFILES[self.profile]


def expired(directory: Path, roster: Roster, now_ns: int, retention: Retention, own: str) -> list[Deleted]:
    """Return what may go: leading segments whose records are all too old, of streams that the anchor log knows."""
    cutoff = now_ns - retention.days * _DAY_NS
    return [
        deleted
        for stream, indices in segments(directory).items()
        if (deleted := _expired(directory, roster, cutoff, stream, indices, alive=stream == own)) is not None
    ]


def _expired(
    directory: Path, roster: Roster, cutoff: int, stream: str, indices: list[int], *, alive: bool
) -> Deleted | None:
    known = roster.streams.get(stream)
    if known is None:
        return None
    found: Deleted | None = None
    for index in indices:
        last = _last(segment_path(directory, stream, index))
        if last is None or last.t_ns > cutoff:
            break
        if index != indices[-1]:
            head = _first(segment_path(directory, stream, index + 1))
            if head is None:
                break
            found = Deleted(stream, index + 1, head.seq, head.prev)
        elif known.closed and not alive:
            whole = known.root if known.found is None else known.found.root
            found = Deleted(stream, index + 1, known.final_size, whole)
    return _new(found, known.deleted)


def _new(found: Deleted | None, before: Deleted | None) -> Deleted | None:
    """Leave out what is on record already and has no file left to remove."""
    return None if found is None or (before is not None and found.size < before.size) else found


def _first(path: Path) -> Envelope | None:
    with path.open("rb") as file:
        line = file.readline()
    try:
        return split(line.rstrip(b"\n"))[0]
    except LineError:
        return None


def _last(path: Path) -> Envelope | None:
    """Return the envelope of the last line that is there in clear."""
    for line in reversed(tail_lines(path)):
        try:
            return split(line)[0]
        except LineError:
            continue
    return None


def remove(directory: Path, log: AnchorLog, head: Head, deleted: Deleted) -> None:
    """Put a deletion on the anchor log, unless another worker was faster, and remove the files."""
    with log.locked() as fd:
        known = log.roster().streams[deleted.stream]
        if known.deleted is None or known.deleted.size < deleted.size:
            log.append(fd, "retention", head, deleted=deleted)
        for path in _files(directory, deleted):
            path.unlink(missing_ok=True)
        sync_directory(directory)


def _files(directory: Path, deleted: Deleted) -> Iterator[Path]:
    for index in range(deleted.segments):
        yield sealed_path(directory, deleted.stream, index)
        yield segment_path(directory, deleted.stream, index)
