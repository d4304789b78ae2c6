"""Streams of the protocol's servers: `/infer_stream` (MLServer) and `/generate_stream` (Triton), event by event."""

from collections.abc import Callable

from proxy.dialects.sse import Events, event
from proxy.exchange import Cost, Headers

HEADERS: Headers = ((b"content-type", b"text/event-stream"),)


class EventHardener:
    """Hardens the data of every event by itself. `worth` says what so many bytes of answers cost, if it is known."""

    headers = HEADERS

    def __init__(self, harden: Callable[[bytes], bytes], worth: Callable[[int], Cost | None]) -> None:
        self._harden = harden
        self._worth = worth
        self._events = Events()
        self._flowed = 0  # bytes

    @property
    def cost(self) -> Cost | None:
        """What flowed so far is worth."""
        return self._worth(self._flowed)

    def feed(self, piece: bytes) -> bytes:
        """Return the events that are whole now."""
        return self._shown(self._events.feed(piece))

    def end(self) -> bytes:
        """Return an event that the stream's end completed."""
        return self._shown(self._events.end())

    def _shown(self, found: list[bytes]) -> bytes:
        shown = [self._harden(data) for data in found]
        self._flowed += sum(map(len, shown))
        return b"".join(map(event, shown))
