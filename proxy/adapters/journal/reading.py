"""Reading a journal for the verifier and for people: files in the right order, lines one at a time, constant memory.

Works on a copy, an export, or the directory of a proxy that is serving: files only grow, and the anchor log is read
before what it speaks of.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.adapters.journal.disk import ANCHOR_FILE, segment_path, segments
from proxy.audit.chain import MAX_LINE, LineError, split
from proxy.audit.findings import Fault, Status, StreamReport, gravest
from proxy.audit.note import Verifier
from proxy.audit.roster import ANCHORS, Known, Roster, RosterCheck
from proxy.audit.verify import StreamCheck
from proxy.audit.witness import Witness

PROGRESS_BYTES = 1 << 20  # between two calls of `progress`

Progress = Callable[[int], None]


@dataclass(slots=True)
class Kept:
    """Heads that an auditor kept elsewhere."""

    anchors: dict[int, str] = field(default_factory=dict)  # number → hash of the line
    checkpoints: dict[str, dict[int, bytes]] = field(default_factory=dict)  # stream → size → root


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in all."""

    streams: tuple[StreamReport, ...]
    faults: tuple[Fault, ...]  # of the directory; those of a stream stand with it
    head: str  # what to keep for next time; empty for a single file
    removed_bytes: int  # unfinished anchor lines that crashes left and writers removed

    @property
    def status(self) -> Status:
        """The gravest finding of all; nothing to verify is no reason to be content."""
        found = {fault.status for fault in self.faults} | {report.status for report in self.streams}
        return gravest(found) if found else Status.UNKNOWN


def total_bytes(path: Path) -> int:
    """Return how much there is to read."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.glob("*.jsonl"))


def verify(
    path: Path,
    auditor: Verifier,
    kept: Kept,
    progress: Progress = lambda _: None,
    *,
    hash_only: bool = False,
    witness: Callable[[], Witness] | None = None,  # one for each stream
) -> Verification:
    """Verify a directory, or a single segment file that was taken out of one."""
    if path.is_file():
        return _verify_file(path, auditor, kept, progress, hash_only=hash_only)
    check = _read_anchors(path / ANCHOR_FILE, auditor, kept.anchors)
    streams = segments(path)
    roster = check.finish(streams)
    later = roster  # streams that began after the anchor log was read are in its newer lines
    if streams.keys() - roster.streams.keys():
        later = _read_anchors(path / ANCHOR_FILE, auditor, {}).roster
    reports = [
        _check_lines(
            StreamCheck(
                stream,
                auditor,
                _known(stream, roster, later),
                kept.checkpoints.get(stream),
                hash_only=hash_only,
                witness=witness() if witness is not None else None,
            ),
            stream_lines(path, stream, indices[0]),
            progress,
        )
        for stream, indices in streams.items()
    ]
    faults = check.faults + [
        Fault(Status.TAMPERED, stream, None, "removed: a head that was kept speaks of it")
        for stream in kept.checkpoints.keys() - streams.keys()
    ]
    if not (streams or kept.anchors or kept.checkpoints or (path / ANCHOR_FILE).exists()):
        faults = [Fault(Status.UNKNOWN, path.name, None, "no journal: neither an anchor log nor a file of records")]
    return Verification(tuple(reports), tuple(faults), check.head, roster.torn_bytes)


def _known(stream: str, first: Roster, later: Roster) -> Known | None:
    return first.streams.get(stream, later.streams.get(stream))


def _read_anchors(path: Path, auditor: Verifier, kept: Mapping[int, str]) -> RosterCheck:
    check = RosterCheck(auditor, kept)
    if not path.exists():
        check.faults.append(Fault(Status.TAMPERED, ANCHORS, None, "the anchor log is missing"))
        return check
    for line in file_lines(path):
        check.feed(line)
    return check


def _verify_file(path: Path, auditor: Verifier, kept: Kept, progress: Progress, *, hash_only: bool) -> Verification:
    lines = file_lines(path)
    first = next(lines, b"")
    try:
        stream = split(first.rstrip(b"\n"))[0].stream
    except LineError as error:
        return Verification((), (Fault(Status.UNKNOWN, path.name, None, f"not a journal file: {error}"),), "", 0)
    check = StreamCheck(stream, auditor, None, kept.checkpoints.get(stream), whole=False, hash_only=hash_only)
    report = _check_lines(check, file_lines(path), progress)
    return Verification((report,), (), "", 0)


def _check_lines(check: StreamCheck, lines: Iterator[bytes], progress: Progress) -> StreamReport:
    unseen = 0
    for line in lines:
        check.feed(line)
        unseen += len(line)
        if unseen >= PROGRESS_BYTES:
            progress(unseen)
            unseen = 0
    progress(unseen)
    return check.finish()


def file_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines with their newlines; what is too long for a record comes in pieces, and fails as such."""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE + 1):
            yield line


def stream_lines(directory: Path, stream: str, index: int = 0) -> Iterator[bytes]:
    """Yield a stream's lines through all its segments, also while it is being written."""
    while True:
        following = segment_path(directory, stream, index + 1)
        with segment_path(directory, stream, index).open("rb") as file:
            finished = following.exists()  # then this segment grows no more, and its end is an end
            line = b""
            while True:
                line += file.readline(MAX_LINE + 1)
                if line.endswith(b"\n") or len(line) > MAX_LINE:
                    yield line
                    line = b""
                elif not finished and following.exists():  # it was finished while we read: read what was added
                    finished = True
                else:
                    break
            if line:
                yield line
        if not finished:
            return
        index += 1
