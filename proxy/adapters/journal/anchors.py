"""The anchor log on disk: all workers of a directory append to it, under a lock.

An unfinished last line, left by a crash, is removed by the next writer, which says so in its own line: no reader had
been promised it. Lines can also go to a second place, for a head that does not share the journal's fate.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from proxy.adapters.journal.disk import ANCHOR_FILE, PRIVATE_FILE, tail
from proxy.adapters.journal.second_place import SecondPlace
from proxy.audit.anchor import ANCHOR_VERSION, Anchor, Deleted, Found, line_hash, unverified, write
from proxy.audit.chain import GENESIS
from proxy.audit.note import Signer
from proxy.audit.roster import Roster

MAX_ANCHOR = 16 * 1024  # bytes of one line; ours have about 800


@dataclass(frozen=True, slots=True)
class Head:
    """How far a stream has come, and the key that may say so."""

    stream: str
    size: int
    root: str
    t_ns: int
    certificate: str
    signer: Signer


class AnchorLog:
    """The file, and the second place if there is one."""

    def __init__(self, directory: Path, second_place: SecondPlace | None = None) -> None:
        self._path = directory / ANCHOR_FILE
        self._second_place = second_place

    @property
    def second_place_error(self) -> str:
        """Return why heads do not reach the second place; empty when they do."""
        return "" if self._second_place is None else self._second_place.error

    def close(self) -> None:
        """Let the second place have what waits. Blocks for a few seconds at most."""
        if self._second_place is not None:
            self._second_place.close()

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the log against the other workers; yields its descriptor."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def roster(self) -> Roster:
        """Read the whole log; raise AnchorError when it does not make one story."""
        roster = Roster()
        with self._path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    roster.add(line[:-1], unverified(line[:-1]))
        return roster

    def append(
        self,
        fd: int,
        kind: Literal["start", "head", "end", "recovered", "retention"],
        head: Head,
        *,
        found: Found | None = None,
        deleted: Deleted | None = None,
    ) -> None:
        """Append one line and make it durable."""
        last, torn = tail(self._path, MAX_ANCHOR)
        if torn:
            os.ftruncate(fd, os.fstat(fd).st_size - len(torn))
        anchor = Anchor(
            v=ANCHOR_VERSION,
            n=0 if last is None else unverified(last).n + 1,
            prev=GENESIS if last is None else line_hash(last),
            kind=kind,
            stream=head.stream,
            t_ns=head.t_ns,
            size=head.size,
            root=head.root,
            certificate=head.certificate,
            found=found,
            deleted=deleted,
            torn_bytes=len(torn),
        )
        line = write(anchor, head.signer) + b"\n"
        if os.write(fd, line) != len(line):
            raise OSError("the anchor line was not written whole")
        os.fdatasync(fd)
        if self._second_place is not None:
            self._second_place.send(line[:-1])
