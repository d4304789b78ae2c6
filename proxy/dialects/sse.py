"""Server-sent events, piece by piece: where an event ends and what its data is. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

Comments, `id`, `event` and `retry` are read and left behind: what is not data does not leave. A line that is none of
these is refused, since a reader of another make might show it; so is a byte order mark, which no server sends. Not
guaranteed: what the data is; that is its dialect's.
"""

import re

from proxy.errors import UpstreamFault
from proxy.reasons import Reason

MAX_EVENT = 1 << 20  # bytes that are held until an event is whole

# An event ends with an empty line, and each line with LF, CR LF or CR.
_END = re.compile(rb"\r\n\r\n|\r\n\r(?!\n)|\r\n\n|\n\r\n|\n\r(?!\n)|\n\n|\r\r\n|\r\r(?!\n)")
_LINE = re.compile(rb"\r\n|\n|\r")
_LEFT_BEHIND = frozenset({b"", b"event", b"id", b"retry"})


class Events:
    """Cuts a stream into the data of its events."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of every event that is whole now. Raise UpstreamFault for what is no event."""
        if not self._held and (data := _lone(piece)) is not None:
            return [data]
        seen = max(0, len(self._held) - 3)  # an event's end is at most four bytes long
        self._held += piece
        found: list[bytes] = []
        begin = 0
        for match in _END.finditer(self._held, seen):
            # A lone CR at the very end may be the first half of a CR LF that is still coming.
            if match.end() == len(self._held) and match[0].endswith(b"\r"):
                break
            data = _data(bytes(self._held[begin : match.start()]))
            begin = match.end()
            if data is not None:
                found.append(data)
        del self._held[:begin]
        if len(self._held) > MAX_EVENT:
            raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "an event that does not end")
        return found

    def end(self) -> list[bytes]:
        """Return the data of an event that the stream's end has completed: some servers forget the empty line."""
        data = _data(bytes(self._held))
        self._held.clear()
        return [] if data is None else [data]


def event(data: bytes) -> bytes:
    """Return an event. `data` is of one line."""
    return b"data: " + data + b"\n\n"


def _lone(piece: bytes) -> bytes | None:
    """Return the data of a piece that is one event of one line, as most servers write them; None: it may be more."""
    if piece.startswith(b"data: ") and piece.find(b"\n") == len(piece) - 2 and piece.endswith(b"\n\n"):
        return None if b"\r" in piece else piece[6:-2]
    return None


def _data(block: bytes) -> bytes | None:
    lines: list[bytes] = []
    for line in _LINE.split(block):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
        elif name not in _LEFT_BEHIND:
            raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, "a line that is not of an event")
    return b"\n".join(lines) if lines else None
