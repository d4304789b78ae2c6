"""A streamed answer, event by event, with or without `[DONE]` at its end."""

from proxy.dialects.loose_json import unreadable
from proxy.dialects.openai.replies import estimated, rebuilt
from proxy.dialects.sse import Events, event
from proxy.exchange import Cost, Headers, Output, Query, Target

DONE = b"[DONE]"


class Chunks:
    """Hardens each chunk like a small answer of its own, and counts what flowed."""

    headers: Headers = ((b"content-type", b"text/event-stream"),)

    def __init__(self, target: Target, query: Query, output: Output) -> None:
        self._target = target
        self._query = query
        self._output = output
        self._events = Events()
        self._said = 0  # bytes of text
        self._chunks = 0  # with text in them
        self._usage: Cost | None = None
        self._done = False

    @property
    def cost(self) -> Cost:
        """What the server's `usage` says, or else what flowed."""
        return self._usage or estimated(self._query, self._said, self._chunks)

    def feed(self, piece: bytes) -> bytes:
        """Return the events that are whole now."""
        found = self._events.feed(piece)
        return self._shown(found[0]) if len(found) == 1 else b"".join(map(self._shown, found))

    def end(self) -> bytes:
        """Return an event that the stream's end completed."""
        return b"".join(map(self._shown, self._events.end()))

    def _shown(self, data: bytes) -> bytes:
        if self._done:
            raise unreadable("an event after the last one")
        if data == DONE:
            self._done = True
            return event(data)
        shown = rebuilt(self._target, self._query, data, self._output, chunk=True)
        self._said += shown.text_bytes
        self._chunks += shown.text_bytes > 0
        self._usage = shown.cost or self._usage
        return event(shown.body)
