"""The edge: ASGI on one side, `Call` and `Answer` on the other. It decides nothing.

The listener has already refused what is not one clean HTTP message, and put the `Peer` into `scope["state"]`. Headers
that leave are the gateway's plus three that keep an answer from being cached or guessed at.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from proxy.errors import BodyTooLarge, Malformed
from proxy.exchange import Answer, Call, Headers
from proxy.gateway import Gateway
from proxy.reasons import Reason

Message = MutableMapping[str, Any]  # the ASGI specification's own type
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ALWAYS: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class Edge:
    """The data path's ASGI application; raw, because each layer in between costs and hides."""

    def __init__(self, gateway: Gateway, max_body_bytes: int) -> None:
        self._gateway = gateway
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            msg = f"the data path serves http only, not {scope['type']}"
            raise RuntimeError(msg)
        body = _Body(receive, self._max_body_bytes)
        call = Call(
            method=scope["method"],
            path=scope["raw_path"].decode("ascii"),
            query=scope["query_string"].decode("ascii"),
            headers=tuple(scope["headers"]),
            peer=scope["state"]["peer"],
            read_body=body.read,
        )
        answer = await self._gateway.handle(call)
        await _send(answer, send)


class _Body:
    """The request body, read when a step asks for it and not before: an unauthenticated upload costs nothing."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit

    async def read(self) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Malformed(Reason.CLIENT_GONE)
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                raise BodyTooLarge
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _send(answer: Answer, send: Send) -> None:
    headers = [*answer.headers, *_ALWAYS]
    if isinstance(answer.body, bytes):
        headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for chunk in answer.body:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
