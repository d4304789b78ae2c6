"""Reads a policy directory as one consistent whole, and says when it has changed. Knows nothing of what is in it.

Only regular files that end in `.yaml`, directly in the directory, are read; a link may not lead out of it. That holds
for a Kubernetes ConfigMap too, where every file is a link through `..data` to a folder inside the mount, and an update
is one rename of `..data`.

Not guaranteed: that somebody who can write to the directory is honest. Whoever writes it decides what is allowed.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from watchfiles import awatch

from proxy.documents.reading import MAX_BYTES as MAX_FILE_BYTES
from proxy.errors import ConfigError, Finding

MAX_FILES = 256
MAX_TOTAL_BYTES = 16 << 20
MAX_ATTEMPTS = 5  # to read a directory that changes under our eyes

DEBOUNCE = 200  # milliseconds of silence that end a burst of changes
RECHECK = 1000  # milliseconds: file systems without events, and a directory that was itself replaced, are seen too

TESTS = "tests"  # a folder with the policy's tests: not policy

State = tuple[tuple[str, int, int, int, int], ...]  # path, inode, size, modified, changed


def read_directory(directory: Path) -> Mapping[str, bytes]:
    """Return the policy files by name, all from the same moment. Raise ConfigError when that cannot be had."""
    for _ in range(MAX_ATTEMPTS):
        try:
            before = state(directory)
            files = _read(directory)
            if state(directory) == before:
                return files
        except OSError as error:
            if isinstance(error, FileNotFoundError) and directory.is_dir():
                continue  # a file left while we were reading: look again
            raise ConfigError([_unreadable(error, str(directory))]) from error
    raise ConfigError([Finding(str(directory), 0, 0, "keeps changing while it is read", "write it in one step")])


async def changes(directory: Path, stop: asyncio.Event, since: State | None = None) -> AsyncIterator[None]:
    """Yield after each change of anything in the directory, detectors included, once it has settled; end with `stop`.

    What changed is for the reader to find out. A change that happens while it reads is yielded again. `since` is the
    `state` from before the last reading: with it, a change before the first look is seen too.
    """
    seen = since if since is not None else await asyncio.to_thread(state, directory)
    while not stop.is_set():
        if (current := await asyncio.to_thread(state, directory)) != seen:
            seen = current
            yield
        try:
            async for _ in awatch(
                directory,
                watch_filter=None,
                debounce=DEBOUNCE,
                step=DEBOUNCE // 4,
                stop_event=stop,
                rust_timeout=RECHECK,
                yield_on_timeout=True,
            ):
                if (current := await asyncio.to_thread(state, directory)) != seen:
                    seen = current
                    yield
        except (OSError, RuntimeError):  # the directory is not there, or cannot be watched: look again in a while
            await _pause(stop)


def state(directory: Path) -> State:
    """Return what tells one content of the directory from another, without reading it; nothing when it is not there.

    Tests do not count, nor do hidden files, but for those of Kubernetes, whose names begin with two dots.
    """
    try:
        return tuple(sorted(_walk(directory, "")))
    except OSError:
        return ()


def _walk(directory: Path, prefix: str) -> Iterator[tuple[str, int, int, int, int]]:
    with os.scandir(directory) as found:
        entries = list(found)
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if name == TESTS or (entry.name.startswith(".") and not entry.name.startswith("..")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/")
            continue
        facts = entry.stat(follow_symlinks=False)
        yield name, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


async def _pause(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), RECHECK / 1000)
    except TimeoutError:
        return


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(directory: Path) -> dict[str, bytes]:
    root = directory.resolve(strict=True)
    findings: list[Finding] = []
    files: dict[str, bytes] = {}
    for path in sorted(directory.iterdir()):
        name = path.name
        if name.startswith("."):
            continue
        if name.endswith(".yml"):
            findings.append(Finding(name, 0, 0, "would be left out", "rename it: policy files end in .yaml"))
        elif name.endswith(".yaml"):
            content = _content(path, root)
            if isinstance(content, Finding):
                findings.append(content)
            else:
                files[name] = content
        elif name != TESTS and path.is_dir() and any(path.glob("**/*.y*ml")):
            hint = "policy files lie directly in the directory: move them up, or name that one if it is the policy"
            findings.append(Finding(f"{name}/", 0, 0, "has policy files that would be left out", hint))
    if len(files) > MAX_FILES:
        findings.append(Finding(str(directory), 0, 0, f"more than {MAX_FILES} policy files", "merge some"))
    if sum(map(len, files.values())) > MAX_TOTAL_BYTES:
        findings.append(Finding(str(directory), 0, 0, f"more than {MAX_TOTAL_BYTES >> 20} MiB of policy", "shorten it"))
    if findings:
        raise ConfigError(findings)
    return files


def _content(path: Path, root: Path) -> bytes | Finding:
    """Read one file, a byte more than it may have at most, so that the next reader sees that it is too large."""
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root):
            return Finding(path.name, 0, 0, "a link that leads out of the directory", "put the file itself here")
        # O_NONBLOCK: a named pipe must not hold us; O_NOFOLLOW: what was resolved is what is opened
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return Finding(path.name, 0, 0, "not a regular file", "put a file here")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        if not path.is_symlink():
            raise  # gone between two looks
        return Finding(path.name, 0, 0, "a link to nothing", "put the file itself here")
    except RuntimeError:  # what pathlib of Python 3.11 and 3.12 makes of ELOOP
        return Finding(path.name, 0, 0, "a link that goes in a circle", "put the file itself here")
    except OSError as error:
        return _unreadable(error, path.name)


def _unreadable(error: OSError, name: str) -> Finding:
    words = (error.strerror or "cannot be read").lower()
    return Finding(name, 0, 0, words, "it must be there and readable by the user that runs the proxy")
