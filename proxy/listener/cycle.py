"""One message and its answer, as the application sees them: uvicorn's cycle, with an honest end.

`receive()` raises what has ended a body early (Malformed, BodyTooLarge, BodyTimeout), and an answer that precedes the
end of its request is the last on its connection.
"""

from typing import Protocol

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, HTTPRequestEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from proxy.errors import RequestError
from proxy.listener.rejection import INTERNAL, problem


class Conversation(Protocol):
    """The connection, as its messages see it."""

    def ask_for_body(self) -> None:
        """The application wants the body of a message that expects `100 Continue`."""
        ...

    def resume_reading(self) -> None:
        """The application waits for bytes, or for the end of the connection."""
        ...

    def failed(self) -> str:
        """The application has raised, or answered nothing; return the incident id for its answer."""
        ...


class Cycle(RequestResponseCycle):
    """One message and its answer."""

    conversation: Conversation
    fault: RequestError | None = None  # why the rest of the body will not come
    last: bool = False  # nothing follows this answer on its connection

    def fail(self, fault: RequestError) -> None:
        """Tell the application that the body is not worth waiting for."""
        self.fault = fault
        self.last = True
        self.message_event.set()

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
        message: HTTPRequestEvent = {"type": "http.request", "body": bytes(self.body), "more_body": self.more_body}
        self.body = bytearray()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Write a piece of the answer."""
        if self.response_started:
            await super().send(message)
            return
        # Nobody knows whether the client still sends a body that we have not asked for or not waited for, so what
        # comes next must not be read as a message (RFC 9110 section 10.1.1).
        self.last = self.last or self.more_body
        self.keep_alive = not self.last
        await super().send(message)
        self.last = not self.keep_alive
        self.keep_alive = True  # uvicorn would close at once: how a connection ends is the connection's affair

    async def send_500_response(self) -> None:
        """Answer for an application that failed or said nothing."""
        headers, body = problem(INTERNAL, self.conversation.failed())
        await self.send({"type": "http.response.start", "status": INTERNAL.status, "headers": list(headers)})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})
