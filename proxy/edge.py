"""The edge: ASGI on one side, `Call` and `Answer` on the other. It decides nothing.

The listener has already refused what is not one clean HTTP message, and put the `Peer` into `scope["state"]`. Headers
that leave are the gateway's plus two that keep an answer from being cached or guessed at. A stream goes at the pace of
its reader, and ends when its reader leaves.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from proxy.errors import BodyTooLarge, Malformed, RequestError
from proxy.exchange import Call, Headers
from proxy.gateway import Gateway
from proxy.reasons import Reason

Message = MutableMapping[str, Any]  # the ASGI specification's own type
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SLICE = 1 << 18  # bytes that are handed to the connection at once

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
        headers = [*answer.headers, *_ALWAYS]
        if isinstance(answer.body, bytes):
            headers.append((b"content-length", b"%d" % len(answer.body)))
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await _whole(answer.body, send)
        else:
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await _stream(start, answer.body, receive, send)


class _Body:
    """The request body, read when a step asks for it and not before: an unauthenticated upload costs nothing."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit

    async def read(self) -> bytes:
        await asyncio.sleep(0)  # until the others of the round have come as far (`proxy.listener.rounds`)
        whole: io.BytesIO | None = None  # of what comes in pieces: never held twice, as a list and as its join
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Malformed(Reason.CLIENT_GONE)
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                raise BodyTooLarge
            more = message.get("more_body", False)
            if whole is None and not more:
                return chunk
            if whole is None:
                whole = io.BytesIO()
            whole.write(chunk)
            if not more:
                return whole.getvalue()


async def _whole(body: bytes, send: Send) -> None:
    """Send a body: in one piece, or at the pace of its reader where TLS would hold all of it twice more."""
    for at in range(0, len(body) or 1, SLICE):
        more = at + SLICE < len(body)
        await send({"type": "http.response.body", "body": body[at : at + SLICE], "more_body": more})


async def _stream(start: Message, body: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send a stream until it ends or nobody reads it any more; then close it, so that its upstream ends too."""
    flowing = asyncio.ensure_future(_flow(start, body, send))
    gone = asyncio.ensure_future(_hang_up(receive))
    why = Reason.CLIENT_GONE
    try:
        await asyncio.wait({flowing, gone}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:  # by the listener, which has drained long enough
        why = Reason.SHUTTING_DOWN
        raise
    finally:
        for task in (flowing, gone):
            task.cancel(why)
        await asyncio.gather(flowing, gone, return_exceptions=True)
        with suppress(asyncio.CancelledError):  # ours
            await body.athrow(asyncio.CancelledError(why))
    if not flowing.cancelled():
        flowing.result()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] == "http.request":
        pass  # the request has been read to its end: nothing comes any more but the hang-up


async def _flow(start: Message, body: AsyncGenerator[bytes, None], send: Send) -> None:
    await send(start)
    try:
        async for piece in body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except RequestError:
        return  # recorded; without the last chunk the client knows that the stream was cut (RFC 9112 section 7.1)
    await send({"type": "http.response.body", "body": b""})
