"""Recorded inputs on a disk: files that are sealed as the journal's segments are, and how long they stay.

A file belongs to one model and one process, has a key of its own wrapped to the policy's public key, and can be read by
nobody here (`proxy.audit.sealing`). Its name says of which model it is and when it began: that, and not what a copy or
a restore does to its times, decides when it is deleted. Not guaranteed: that what was deleted is gone from the medium;
destroying the private key is.
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from proxy.adapters.journal.disk import create, private_directory, sync_directory
from proxy.audit.sealing import Opener, Recipient, Sealer, SealError
from proxy.detection.sample import Row, decode, encode
from proxy.errors import ConfigError, Finding

FILE_SECONDS: Final = 86_400.0  # that a file takes rows at most, and an eighth of `keep`
FILE_BYTES: Final = 64 << 20  # of one file, and an eighth of `at_most`
SHARES: Final = 8
MAX_READ: Final = 1 << 30  # bytes of files that a fit reads, the newest first

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"inputs\.([A-Za-z0-9][A-Za-z0-9._-]{0,63})\.(\d{8}T\d{6}Z)-[0-9a-f]{12}\.sealed")


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of recorded inputs."""

    path: Path
    model: str
    begun: float  # UNIX seconds


def kept(directory: Path) -> list[Kept]:
    """Return the files of a directory, the oldest first; a stranger's file is not ours to read or delete."""
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        with suppress(ValueError):  # a 31st of February
            if match is not None:
                begun = datetime.strptime(match[2], _STAMP).replace(tzinfo=UTC).timestamp()
                found.append(Kept(path, match[1], begun))
    return sorted(found, key=lambda one: (one.begun, one.path.name))


class SampleFile:
    """A file that takes rows. Every method may wait for a disk, and raises OSError."""

    def __init__(self, directory: Path, model: str, recipient: Recipient, now: float) -> None:
        self.begun = now
        self.name = f"inputs.{model}.{datetime.fromtimestamp(now, UTC).strftime(_STAMP)}-{secrets.token_hex(6)}"
        self.rows = 0
        self.bytes = 0
        self._path = directory / f"{self.name}.sealed"
        self._recipient = recipient
        self._fd = -1
        self._sealer: Sealer | None = None

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows as one frame, on the medium when this returns. The file appears with its first ones."""
        lines = [encode(row) for row in rows]
        if self._sealer is None:
            self._sealer = Sealer(self.name, 0, self._recipient)
            self._fd = create(self._path)
            sync_directory(self._path.parent)
            self._put(self._sealer.header + b"\n")
        self._put(self._sealer.frame(b"\n".join(lines)))
        os.fdatasync(self._fd)
        self.rows += len(lines)

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.bytes += len(data)

    def full(self, now: float, keep: float, at_most: int) -> bool:
        """Say whether another file should be begun."""
        old = not 0 <= now - self.begun < min(FILE_SECONDS, keep / SHARES)
        return old or self.bytes >= min(FILE_BYTES, at_most // SHARES)

    def taken_away(self) -> bool:
        """Say whether the file was there, and is no longer: another worker deletes what is too much."""
        return self._sealer is not None and not self._path.exists()

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1


def prepare(directory: Path) -> None:
    """Make the directory. Raise ConfigError where there can be none, or where others can read it."""
    try:
        private_directory(directory)
    except OSError as exc:
        hint = "see its owner and disk, or name another at recordings.directory"
        message = f"cannot hold recorded inputs: {exc.strerror}"
        raise ConfigError([Finding(str(directory), 0, 0, message, hint)]) from exc


def delete(
    directory: Path, now: float, keep: Mapping[str, float], otherwise: float, at_most: int
) -> tuple[list[Kept], str]:
    """Delete what is older than `keep` seconds (by model), then the oldest above `at_most` bytes.

    Return what went, and why something stayed that should have gone; empty: nothing did.
    """
    files = kept(directory)
    gone = [one for one in files if now - one.begun > keep.get(one.model, otherwise)]
    left = [one for one in files if one not in gone]
    sizes = {one.path: _size(one.path) for one in left}
    total = sum(sizes.values())
    for one in left:
        if total <= at_most:
            break
        total -= sizes[one.path]
        gone.append(one)
    deleted, stays = [], ""
    for one in gone:
        try:
            if _unlink(one.path):
                deleted.append(one)
        except OSError as exc:  # the others go all the same
            stays = f"{one.path.name}: {exc.strerror}"
    if deleted:
        sync_directory(directory)
    return deleted, stays


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:  # another worker was faster, and says so
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted meanwhile
        return 0


def read_files(directory: Path, models: Iterable[str], opener: Opener) -> Iterator[Iterator[Row]]:
    """Yield the rows of each file of the models, the newest file first, of MAX_READ bytes of files at most.

    Raise ConfigError where the directory or a file cannot be read, or was sealed to another key.
    """
    wanted, left = set(models), MAX_READ
    try:
        files = [one for one in kept(directory) if one.model in wanted]
    except OSError as exc:
        raise _refused(directory, f"cannot be read: {exc.strerror}", "name the directory of `recordings`") from exc
    if not files:
        hint = "name the directory of `recordings`, and the model as in the policy"
        raise _refused(directory, f"holds no recorded inputs of {', '.join(sorted(wanted))}", hint)
    for one in reversed(files):
        left -= _size(one.path)
        if left < 0:
            return
        yield _rows(one.path, opener)


def _rows(path: Path, opener: Opener) -> Iterator[Row]:
    try:
        for line in opener.lines(path.read_bytes(), path.stem, 0):
            yield decode(line)
    except OSError as exc:
        raise _refused(path, f"cannot be read: {exc.strerror}", "it has to be yours to read") from exc
    except SealError as exc:
        raise _refused(path, str(exc), "give the private half of the key that the policy named then") from exc
    except msgspec.DecodeError as exc:
        raise _refused(path, "holds something else than recorded inputs", "it was sealed by somebody else") from exc


def _refused(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])
