"""Checkpoints: a stream's signed head (C2SP tlog-checkpoint: origin, size, root, and one line with our time).

Decides which bytes a segment's key signs. A checkpoint proves what the first `size` records were; it does NOT prove
that there were no more, nor that they told the truth.
"""

import base64
from dataclasses import dataclass

from proxy.audit.note import NoteError, decode_base64

ORIGIN = "hip-audit/"
ROOT_BYTES = 32


def origin(stream: str) -> str:
    """Return the name under which a stream's checkpoints are signed: one log, one origin."""
    return ORIGIN + stream


def canonical_int(text: str) -> int:
    """Read a decimal number in its one spelling."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and len(text) > 1):
        raise NoteError("not a decimal number without leading zeros")
    return int(text)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a stream. Times in nanoseconds: UNIX and monotonic, those of the record that carries it."""

    origin: str
    size: int
    root: bytes
    t_ns: int
    mono_ns: int

    def text(self) -> str:
        """Return the body that is signed."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\ntime {self.t_ns} {self.mono_ns}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a body; what `text()` would spell differently is refused."""
        lines = text.split("\n")
        if len(lines) != 5 or lines[4] or not lines[0]:
            raise NoteError("not a checkpoint of ours: origin, size, root, time")
        clock = lines[3].split(" ")
        if len(clock) != 3 or clock[0] != "time":
            raise NoteError("a checkpoint without its time line")
        root = decode_base64(lines[2])
        if len(root) != ROOT_BYTES:
            raise NoteError("not a SHA-256 root")
        return cls(lines[0], canonical_int(lines[1]), root, canonical_int(clock[1]), canonical_int(clock[2]))
