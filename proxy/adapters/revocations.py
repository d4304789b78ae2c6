"""The revocation file: watched while we serve, appended to by `hip revoke`.

A look at the file's facts twice a second is enough to be effective within a second, needs no events of the file
system (a ConfigMap, NFS), and costs a microsecond or two. A file that cannot be read or understood changes nothing:
what was revoked stays revoked, and `status()` says what is wrong. At the start there is no list before, so that a bad
file stops it.

Not guaranteed: that somebody who can write to the file is honest. Whoever empties it gives everything back.
"""

import asyncio
import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import ConfigError, Finding
from proxy.exchange import Certificate, Principal
from proxy.identity.revocation import (
    MAX_BYTES,
    Revocation,
    Revocations,
    parse_revocations,
    revocation_members,
)
from proxy.reasons import Reason

POLL_SECONDS = 0.5

_log = logging.getLogger("hip.revocations")

_Facts = tuple[int, int, int, int]  # inode, size, modified, changed
Tell = Callable[[int], Awaitable[None]]  # hears of every change, with the number of faults that it was rejected for


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """What an operator is told. `error` is why the last change does not count; empty after a good one."""

    entries: int
    error: str
    issuers: frozenset[str] = frozenset()  # that the list names


async def nobody(findings: int) -> None:
    """Tell nobody."""


class RevocationFile:
    """A watched list behind the `RevocationList` port. One per process."""

    def __init__(self, path: Path, *, poll_seconds: float = POLL_SECONDS, now: Callable[[], float] = time.time) -> None:
        """Read the list. Raise ConfigError when it is not there or not good: then nothing may start."""
        self._path = path
        self._now = now
        self._poll_seconds = poll_seconds
        self._error = ""
        self._facts = _facts(path)
        self._listed = read_revocations(path)
        self._current = Revocations.of(self._listed, now())
        self.generation = 0

    def revoked(self, principal: Principal, certificate: Certificate | None) -> Reason | None:
        """Return why the caller is no longer believed, or None."""
        return self._current.revoked(principal, certificate)

    def status(self) -> RevocationStatus:
        """Return what counts, and what is wrong."""
        return RevocationStatus(self._current.entries, self._error, self._current.issuers)

    async def follow(self, stop: asyncio.Event, tell: Tell = nobody) -> None:
        """Read the list again after each change, until `stop`."""
        while not stop.is_set():
            # The facts first: a change while the file is read is a change for the next look.
            facts = await asyncio.to_thread(_facts, self._path)
            if facts != self._facts:
                self._facts = facts
                await tell(await self._reload())
            elif self._current.ends_at <= self._now():
                self._current = await asyncio.to_thread(Revocations.of, self._listed, self._now())
            try:
                await asyncio.wait_for(stop.wait(), self._poll_seconds)
            except TimeoutError:
                continue

    async def _reload(self) -> int:
        """Read the list; return how many faults it has."""
        try:
            self._listed = await asyncio.to_thread(read_revocations, self._path)
        except ConfigError as error:
            self._error = str(error)
            _log.error("the revocations were not read again; those before still count\n%s", error)
            return len(error.findings)
        self._current = await asyncio.to_thread(Revocations.of, self._listed, self._now())
        self.generation += 1
        self._error = ""
        _log.info("%d revocations count from now on", self._current.entries)
        return 0


def read_revocations(path: Path) -> tuple[Revocation, ...]:
    """Read a list from its file. Raise ConfigError."""
    try:
        # O_NONBLOCK: a named pipe must not hold us.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            _insist_on_a_file(path, file.fileno())
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        hint = "an empty file revokes nothing: make one where there is none, readable by the user that runs the proxy"
        raise ConfigError([Finding(str(path), 0, 0, _words(exc), hint)]) from exc
    return parse_revocations(str(path), data)


def append_revocation(path: Path, revocation: Revocation) -> bool:
    """Append one line, on stable storage when this returns; False where the list has it already.

    Raise ConfigError where the list is not good: a line after a bad one would not count. The file is made with mode
    0600 where it is not there.
    """
    line = json.dumps(revocation_members(revocation)).encode("ascii") + b"\n"
    try:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
            _insist_on_a_file(path, file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX)  # of two `hip revoke` one waits for the other
            data = file.read()
            if any(one.same == revocation.same for one in parse_revocations(str(path), data)):
                return False
            start = b"\n" if data and not data.endswith(b"\n") else b""  # an editor's last line
            if len(data) + len(start + line) > MAX_BYTES:
                hint = "delete lines of expired tokens"
                raise ConfigError([Finding(str(path), 0, 0, "the list is full", hint)])
            file.write(start + line)  # one write(2) with O_APPEND: a reader sees the whole line or none of it
            os.fsync(file.fileno())
    except OSError as exc:
        hint = "it must be a file that you may write to"
        raise ConfigError([Finding(str(path), 0, 0, _words(exc), hint)]) from exc
    return True


def _insist_on_a_file(path: Path, handle: int) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise ConfigError([Finding(str(path), 0, 0, "not a regular file", "put a file here")])


def _words(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()


def _facts(path: Path) -> _Facts | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
