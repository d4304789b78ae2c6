"""One stream: the lines of one worker process, from its first segment to its orderly or sudden end.

Knows files, keys and the chain; knows nothing of waiting requests (`writer` does). Every segment has a key of its own,
made here, certified by the long-term key for a window of time and forgotten with the segment.
"""

import fcntl
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy.adapters.journal import disk as files
from proxy.adapters.journal.anchors import AnchorLog, Head
from proxy.audit.anchor import Found
from proxy.audit.certificate import Certificate
from proxy.audit.chain import GENESIS, MAX_LINE, NO_SALT, SALT_BYTES, Chain, LineError, read_event, split
from proxy.audit.checkpoint import Checkpoint, origin
from proxy.audit.merkle import Tree, leaf_hash
from proxy.audit.note import Signer
from proxy.audit.roster import Known, Roster
from proxy.audit.sealing import Recipient, Sealer
from proxy.audit.withheld import is_private, is_withheld, read_withheld, withhold
from proxy.ports import Clock
from proxy.record import Checkpoint as CheckpointRecord
from proxy.record import Event, Position, Recovered, Segment

CERTIFICATE_SLACK = 3_600  # seconds that the clock may step, or a rotation be late, before a new segment begins
SALT_POOL = 256  # salts drawn from the kernel at once


class Stream:
    """A stream that this process writes. `begin` starts one; a failed one is abandoned, never repaired."""

    def __init__(
        self,
        directory: Path,
        authority: Signer,
        clock: Clock,
        disk: files.Disk,
        segment_seconds: float,
        recipient: Recipient | None,
    ) -> None:
        stamp = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]  # to the millisecond
        self.name = f"{stamp}Z-{secrets.token_hex(6)}"
        self._directory = directory
        self._authority = authority
        self._clock = clock
        self._disk = disk
        self._segment_seconds = segment_seconds
        self._recipient = recipient
        self._sealer: Sealer | None = None
        self._sealed_fd = -1
        self._written = 0  # records: the `seq` of the next line to write
        self._chain = Chain(self.name)
        self._salts: list[str] = []
        self._index = -1
        self._anchor = GENESIS
        self._fd = -1
        self._lock = -1
        self._retired: list[int] = []
        self.bytes = 0  # in the current segment
        self.sealed = 0  # records under the last signed head
        self.sealed_at = 0.0  # monotonic
        self.segment_since = 0.0  # monotonic

    @classmethod
    def begin(
        cls,
        directory: Path,
        authority: Signer,
        clock: Clock,
        disk: files.Disk,
        log: AnchorLog,
        facts: Event,
        segment_seconds: float,
        recipient: Recipient | None = None,
    ) -> "Stream":
        """Start a stream, and say what was found of streams that ended without order."""
        files.private_directory(directory)
        with log.locked() as anchors:
            roster = log.roster()
            stream = cls(directory, authority, clock, disk, segment_seconds, recipient)
            try:
                stream._start(roster, log, anchors, facts)
            except BaseException:
                stream.abandon()
                raise
            return stream

    def _start(self, roster: Roster, log: AnchorLog, anchors: int, facts: Event) -> None:
        self._anchor = roster.last
        self._lock = files.create(files.lock_path(self._directory, self.name))
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        dead = _dead_streams(self._directory, roster, self.name)
        lines = [self._next_segment(), self.record(facts)[0]]
        lines += [
            self.record(
                Recovered(
                    stream=found.stream,
                    size=found.size,
                    root=found.root,
                    torn_bytes=found.torn_bytes,
                    torn_digest=found.torn_digest,
                )
            )[0]
            for found in dead
        ]
        self.write(b"".join([*lines, self.checkpoint()]))
        self.syncing()()
        head = self.head()
        log.append(anchors, "start", head)  # after the stream is durable: an anchor never promises what is not there
        for found in dead:
            if roster.streams.get(found.stream, Known(0, GENESIS)).admits(found):
                log.append(anchors, "recovered", head, found=found)
            with suppress(FileNotFoundError):
                files.lock_path(self._directory, found.stream).unlink()

    # ── lines: made in order, written by `write` in the same order ──────────────────────────────────────────────

    @property
    def size(self) -> int:
        """How many records have been made."""
        return self._chain.size

    def record(self, event: Event) -> tuple[bytes, Position]:
        """Make the next line."""
        if not self._salts:
            pool = os.urandom(SALT_BYTES * SALT_POOL).hex()
            self._salts = [pool[at : at + len(NO_SALT)] for at in range(0, len(pool), len(NO_SALT))]
        line, position = self._chain.add(event, self._salts.pop(), *self._times())
        self.bytes += len(line)
        return line, position

    def checkpoint(self) -> bytes:
        """Make a line that signs all lines before it."""
        t_ns, mono_ns = self._times()
        event = CheckpointRecord(note=self._note(t_ns, mono_ns))
        line, _ = self._chain.add(event, NO_SALT, t_ns, mono_ns)
        self.bytes += len(line)
        self.sealed, self.sealed_at = self._chain.size, self._clock.monotonic()
        return line

    def _note(self, t_ns: int, mono_ns: int) -> str:
        tree = self._chain.tree
        return self._signer.note(Checkpoint(origin(self.name), tree.size, tree.root(), t_ns, mono_ns).text())

    def _times(self) -> tuple[int, int]:
        return int(self._clock.now() * 1e9), int(self._clock.monotonic() * 1e9)

    @property
    def key_expired(self) -> bool:
        """Say whether the wall clock has left the segment key's window: then it must sign nothing more."""
        return not self._certificate.not_before <= self._clock.now() <= self._certificate.not_after

    def head(self) -> Head:
        """Return how far the stream has come."""
        chain = self._chain
        return Head(
            self.name, chain.size, chain.tree.root().hex(), self._times()[0], self._certificate_note, self._signer
        )

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, data: bytes) -> None:
        """Give lines to the kernel. After an OSError nothing more may be written: abandon the stream."""
        if self._sealer is None:
            self._disk.write(self._fd, data)
            return
        hidden, clear = self._parted(data)
        if hidden:  # first: a clear line must never stand for one that is nowhere
            self._disk.write(self._sealed_fd, self._sealer.frame(hidden))
        self._disk.write(self._fd, clear)

    def _parted(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the lines to seal, and all lines with hashes in the place of those."""
        hidden, clear = [], []
        for line in data.splitlines(keepends=True):
            if is_private(line):
                hidden.append(line)
                line = withhold(self._written, leaf_hash(line[:-1])) + b"\n"
            clear.append(line)
            self._written += 1
        return b"".join(hidden), b"".join(clear)

    def rotate(self) -> None:
        """Close this segment with a signed head, and begin the next one."""
        if not self.key_expired:
            self.write(self.checkpoint())
        self._retired += [fd for fd in (self._sealed_fd, self._fd) if fd >= 0]
        self.write(self._next_segment())

    def _next_segment(self) -> bytes:
        """Open the next segment's file with a key of its own; returns its first line, which must be written next."""
        t_ns, mono_ns = self._times()
        self._index += 1
        self._fd = files.create(files.segment_path(self._directory, self.name, self._index))
        if self._recipient is not None:
            self._sealer = Sealer(self.name, self._index, self._recipient)
            self._sealed_fd = files.create(files.sealed_path(self._directory, self.name, self._index))
            self._disk.write(self._sealed_fd, self._sealer.header + b"\n")
        files.sync_directory(self._directory)
        self._signer = Signer(origin(self.name), Ed25519PrivateKey.generate())
        seconds = t_ns // 1_000_000_000
        until = seconds + int(self._segment_seconds) + CERTIFICATE_SLACK
        self._certificate = Certificate(
            self.name, self._index, seconds - CERTIFICATE_SLACK, until, self._signer.verifier
        )
        self._certificate_note = self._certificate.issue(self._authority)
        self.bytes, self.segment_since = 0, self._clock.monotonic()
        line, _ = self.record(
            Segment(
                index=self._index,
                certificate=self._certificate_note,
                checkpoint=self._note(t_ns, mono_ns),
                peaks=tuple(peak.hex() for peak in self._chain.tree.peaks),
                anchor=self._anchor,
            )
        )
        return line

    def syncing(self) -> Callable[[], None]:
        """Return the work, for a thread, that puts everything written until now on the medium.

        What it works on is decided here, on the loop: a rotation meanwhile must not close the file under it.
        """
        retired, self._retired = self._retired, []
        current = [fd for fd in (self._sealed_fd, self._fd) if fd >= 0]

        def work() -> None:
            try:
                for fd in retired:
                    self._disk.sync(fd)
            finally:
                for fd in retired:
                    os.close(fd)
            for fd in current:
                self._disk.sync(fd)

        return work

    def release(self) -> None:
        """Close after an orderly end."""
        self.abandon()
        with suppress(FileNotFoundError):
            files.lock_path(self._directory, self.name).unlink()

    def abandon(self) -> None:
        """Let go of every file and of the lock; whoever starts next finds the stream dead and says so."""
        for fd in (*self._retired, self._sealed_fd, self._fd, self._lock):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self._retired, self._sealed_fd, self._fd, self._lock = [], -1, -1, -1


def _dead_streams(directory: Path, roster: Roster, own: str) -> list[Found]:
    """Return what is left of streams that have no end and whose process is gone."""
    found = []
    for stream, indices in files.segments(directory).items():
        known = roster.streams.get(stream)
        if stream == own or (known is not None and known.closed) or _alive(directory, stream):
            continue
        remains = _remains(directory, stream, indices)
        if remains is not None:
            found.append(remains)
    return found


def _alive(directory: Path, stream: str) -> bool:
    try:
        fd = os.open(files.lock_path(directory, stream), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _remains(directory: Path, stream: str, indices: list[int]) -> Found | None:
    """Return how far a dead stream is whole, and what is left of an unfinished record; None for a stranger's file."""
    torn = b""
    for index in reversed(indices):
        line, rest = files.tail(files.segment_path(directory, stream, index), MAX_LINE)
        torn = rest + torn
        if line is not None:
            try:
                tree = _tree(files.segment_path(directory, stream, index))
            except (LineError, ValueError):
                return None
            return Found(stream, tree.size, tree.root().hex(), len(torn), sha256(torn).hexdigest())
    return Found(stream, 0, GENESIS, len(torn), sha256(torn).hexdigest())


def _tree(segment: Path) -> Tree:
    """Return the tree over a stream up to the last whole line of a segment, which tells of all before itself."""
    with segment.open("rb") as file:
        first = file.readline(MAX_LINE + 1)
        envelope, body = split(first.rstrip(b"\n"))
        event = read_event(body, envelope.v)
        if not isinstance(event, Segment):
            raise LineError("a file that does not begin with a segment record")
        tree = Tree(envelope.seq, [bytes.fromhex(peak) for peak in event.peaks])
        tree.add(leaf_hash(first[:-1]))
        while (line := file.readline(MAX_LINE + 1)).endswith(b"\n"):
            tree.add(read_withheld(line[:-1])[1] if is_withheld(line) else leaf_hash(line[:-1]))
    return tree
