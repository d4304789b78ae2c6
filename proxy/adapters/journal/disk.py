"""What the journal asks of a disk, and how its files are named. Nothing here knows what a record is.

`Disk` is the seam for tests: a simulator fails, fills up or hangs where a real disk would. It maps no errors: the
journal does, in one place.
"""

import errno
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from proxy.errors import ConfigError, Finding

ANCHOR_FILE = "anchors.jsonl"
PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
TAIL_BYTES = 4 << 20  # enough for the last signed head of a file, which comes at least every 1,000 records
OTHERS = 0o077  # permission bits of group and world

_SEGMENT = re.compile(r"(\d{8}T\d{9}Z-[0-9a-f]{12})\.(\d{6})\.jsonl")


class Disk:
    """The three calls that can fail or hang while serving."""

    def write(self, fd: int, data: bytes) -> None:
        """Give all the bytes to the kernel."""
        view = memoryview(data)
        while view:
            written = os.write(fd, view)
            if not written:
                raise OSError(errno.EIO, "the disk took nothing")
            view = view[written:]

    def sync(self, fd: int) -> None:
        """Return when the bytes are on the medium."""
        os.fdatasync(fd)

    def free(self, directory: Path) -> float:
        """Return the share of the file system that is free for us, 0 to 1."""
        facts = os.statvfs(directory)
        return facts.f_bavail / facts.f_blocks if facts.f_blocks else 1.0


def private_directory(path: Path) -> None:
    """Make a directory that only we can read, or refuse one that others can."""
    if not path.parent.exists():  # mkdir(parents=True) would leave it open to all
        private_directory(path.parent)
    path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    require_private(path, "chmod 700")


def require_private(path: Path, mend: str) -> None:
    """Refuse a file or directory that group or world may read."""
    mode = path.stat().st_mode
    if mode & OTHERS:
        message = f"is accessible to others (mode {mode & 0o777:o})"
        raise ConfigError([Finding(str(path), 0, 0, message, f"{mend} {path}")])


def create(path: Path) -> int:
    """Create a file that must not exist yet, private, for appending."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)


def sync_directory(path: Path) -> None:
    """Make a new file's name durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def segment_path(directory: Path, stream: str, index: int) -> Path:
    """Return where a segment's lines are."""
    return directory / f"{stream}.{index:06d}.jsonl"


def sealed_path(directory: Path, stream: str, index: int) -> Path:
    """Return where the encrypted part of a segment is."""
    return directory / f"{stream}.{index:06d}.sealed"


def lock_path(directory: Path, stream: str) -> Path:
    """Return the file whose lock says that the stream's process lives."""
    return directory / f"{stream}.lock"


def segments(directory: Path) -> Mapping[str, list[int]]:
    """Return the streams of a directory with their segments' numbers, both in order."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for path in sorted(directory.iterdir()):
        match = _SEGMENT.fullmatch(path.name)
        if match is not None:
            found[match[1]].append(int(match[2]))
    return found


def tail(path: Path, cap: int) -> tuple[bytes | None, bytes]:
    """Return a file's last whole line without its newline, and the unfinished bytes after it."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - 2 * cap))
        data = file.read()
    lines, newline, torn = data.rpartition(b"\n")
    return (lines.rpartition(b"\n")[2], torn) if newline else (None, torn)


def tail_lines(path: Path) -> list[bytes]:
    """Return the whole lines near a file's end, without newlines; the first may be cut."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - TAIL_BYTES))
        return file.read().split(b"\n")[:-1]
