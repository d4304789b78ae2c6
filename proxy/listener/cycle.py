"""One message and its answer, as the application sees them: uvicorn's cycle, with an honest end.

`receive()` raises what has ended a body early (Malformed, BodyTooLarge, BodyTimeout), and an answer that precedes the
end of its request is the last on its connection.
"""

from collections.abc import Mapping
from typing import Protocol

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPRequestEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from proxy.errors import RequestError
from proxy.listener.rejection import INTERNAL, problem

JOINED_BYTES = 65_536  # a body below this is copied behind its head: one TLS record and one write instead of two
MAX_PIECES = 256  # of a body that waits: each costs some 50 bytes beside its own, and a chunk may have a single one


class Conversation(Protocol):
    """The connection, as its messages see it."""

    def ask_for_body(self) -> None:
        """The application wants the body of a message that expects `100 Continue`."""
        ...

    def resume_reading(self) -> None:
        """The application waits for bytes, or for the end of the connection."""
        ...

    def streaming(self) -> None:
        """The answer has begun, and comes in pieces."""
        ...

    def failed(self) -> str:
        """The application has raised, or answered nothing; return the incident id for its answer."""
        ...


class Cycle(RequestResponseCycle):
    """One message and its answer."""

    conversation: Conversation
    fault: RequestError | None = None  # why the rest of the body will not come
    last: bool = False  # nothing follows this answer on its connection
    _pieces: list[bytes] | None = None  # of the body, which the application has not taken …
    _waiting = 0  # … and their bytes
    _held: HTTPResponseStartEvent | None = None  # a head that waits for its body …
    _announced = 0  # … of so many bytes

    def fail(self, fault: RequestError) -> None:
        """Tell the application that the body is not worth waiting for."""
        self.fault = fault
        self.last = True
        self.message_event.set()

    def hold(self, piece: bytes) -> int:
        """Keep a piece of the body for the application; return how many bytes wait for it."""
        if self._pieces is None:
            self._pieces = [piece]
        else:
            self._pieces.append(piece)
            if len(self._pieces) > MAX_PIECES:
                self._pieces = [b"".join(self._pieces)]
        self._waiting += len(piece)
        self.message_event.set()
        return self._waiting

    def give_up(self) -> bytes:
        """Return what waits of the body, to whoever brings all of it."""
        self.message_event.clear()
        return self._take()

    def _take(self) -> bytes:
        pieces, self._pieces, self._waiting = self._pieces or (), None, 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next piece of the body; raise the fault that has ended it."""
        if self.waiting_for_100_continue:
            self.waiting_for_100_continue = False
            self.conversation.ask_for_body()
        if not (self.disconnected or self.response_complete or self.fault):
            self.conversation.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        if self.fault is not None:
            raise self.fault
        message: HTTPRequestEvent = {"type": "http.request", "body": self._take(), "more_body": self.more_body}
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Write a piece of the answer. A head whose whole small body comes next waits for it: one write, not two."""
        if self.response_started:
            if not self._writes_chunk(message):
                await super().send(message)
        elif message["type"] == "http.response.start":
            fields = dict(message.get("headers", ()))
            if self._announces_small_body(fields):
                self._held = message
            elif self._announces_stream(message, fields):
                self._begin_stream(message)
            else:
                await self._begin(message)
        elif self._held is None or message["type"] != "http.response.body":
            await self._begin(message)  # uvicorn knows what to say to an application out of turn
        elif message.get("more_body") or len(message["body"]) != self._announced:
            await self._begin(self._held)
            await super().send(message)
        else:
            await self._write_whole(self._held, message["body"])

    def _writes_chunk(self, message: ASGISendEvent) -> bool:
        """Write a piece of a stream as uvicorn would, which looks at everything each time; the rest is left to it."""
        if not self.chunked_encoding or self.response_complete or message["type"] != "http.response.body":
            return False
        body = message["body"]
        if not body or not message.get("more_body") or self.disconnected or self.flow.write_paused:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def _announces_stream(self, head: HTTPResponseStartEvent, fields: Mapping[bytes, bytes]) -> bool:
        framed = b"content-length" in fields or b"transfer-encoding" in fields or b"connection" in fields
        blocked = self.flow.write_paused or self.disconnected or self.scope["method"] == "HEAD"
        return not framed and not blocked and head["status"] == 200

    def _begin_stream(self, head: HTTPResponseStartEvent) -> None:
        # At once: held until the first piece comes, it saves a write, but its reader wakes up that much later.
        self._judge_end()
        self.transport.write(self._head(head, (b"transfer-encoding", b"chunked")))
        self.keep_alive = self.response_started = self.chunked_encoding = True
        self.waiting_for_100_continue = False
        self.conversation.streaming()

    def _announces_small_body(self, fields: Mapping[bytes, bytes]) -> bool:
        if self.scope["method"] == "HEAD":
            return False
        self._announced = int(fields.get(b"content-length", JOINED_BYTES))
        return self._announced < JOINED_BYTES and b"connection" not in fields

    async def _write_whole(self, head: HTTPResponseStartEvent, body: bytes) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self._judge_end()
        self.transport.write(self._head(head) + body)
        self.keep_alive = self.response_started = self.response_complete = True
        self.message_event.set()
        self.on_response()

    def _head(self, head: HTTPResponseStartEvent, *framing: tuple[bytes, bytes]) -> bytes:
        fields = [*self.default_headers, *head["headers"], *framing]
        if self.last:
            fields.append((b"connection", b"close"))
        block = b"".join([name + b": " + value + b"\r\n" for name, value in fields])
        if not block.count(b"\n") == block.count(b"\r") == len(fields) or b"\0" in block:
            raise RuntimeError("a header field with invalid bytes")
        return b"".join((STATUS_LINE[head["status"]], block, b"\r\n"))

    async def _begin(self, message: ASGISendEvent) -> None:
        """Write the head as uvicorn does, which looks into its fields."""
        self._judge_end()
        await super().send(message)
        self.last = not self.keep_alive
        self.keep_alive = True  # uvicorn would close at once: how a connection ends is the connection's affair

    def _judge_end(self) -> None:
        # Nobody knows whether the client still sends a body that we have not asked for or not waited for, so what
        # comes next must not be read as a message (RFC 9110 section 10.1.1).
        self.last = self.last or self.more_body
        self.keep_alive = not self.last

    async def send_500_response(self) -> None:
        """Answer for an application that failed or said nothing."""
        headers, body = problem(INTERNAL, self.conversation.failed())
        await self.send({"type": "http.response.start", "status": INTERNAL.status, "headers": list(headers)})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})
