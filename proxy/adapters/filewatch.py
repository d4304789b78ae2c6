"""Says that files have changed, once they rest: two looks that agree, so that a pair is not read between its halves.

Looks instead of events, as the revocation file does: a look costs microseconds, and works on every file system and
for a Kubernetes secret, whose files are links that change all at once.
"""

from collections.abc import Iterable
from pathlib import Path

LOOK_SECONDS = 0.5

Facts = tuple[tuple[int, int, int, int] | None, ...]  # inode, size, modified, changed; None: not there


def facts(paths: Iterable[Path]) -> Facts:
    """Return what tells one content of the files from another, without reading them."""
    return tuple(map(_facts, paths))


def _facts(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Resting:
    """Remembers the looks at one set of files."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._loaded = self._before = facts(paths)

    def changed(self) -> bool:
        """Look; say once that the files differ from what was loaded, and rest."""
        now, before = facts(self.paths), self._before
        self._before = now
        if now == self._loaded or now != before:
            return False
        self._loaded = now
        return True
