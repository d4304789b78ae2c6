"""How many requests may be under way, and how many of them one source may have: early, cheap 503s before anything else.

One rule: a source may have as many as places are free. Alone it gets half of all, two get a third each, and whoever
comes next finds a place, because those who are here can never take them all (dynamic thresholds: Choudhury and Hahne,
IEEE/ACM Transactions on Networking 6(2), 1998). A source is an address; the admin listener is not counted here.

Not guaranteed: fairness between clients behind one address (`proxy.adapters.places` has it, after authentication).
"""

from collections.abc import Awaitable, Callable, MutableMapping
from secrets import token_hex
from typing import Any

from proxy.errors import Overloaded
from proxy.exchange import Peer
from proxy.listener.admission import source_of
from proxy.listener.rejection import Refused
from proxy.listener.server import Application
from proxy.problem import public_answer

Message = MutableMapping[str, Any]  # the ASGI specification's own type
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Capacity:
    """An ASGI application before another one."""

    def __init__(self, app: Application, requests: int, on_refused: Callable[[Refused, Peer], None]) -> None:
        self._app = app
        self._requests = requests
        self._on_refused = on_refused
        self._sources: dict[object, int] = {}  # requests under way, by source
        self.under_way = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that there is no room."""
        peer: Peer = scope["state"]["peer"]
        source = source_of(peer.address)
        of_source = self._sources.get(source, 0)
        if of_source >= self._requests - self.under_way:
            await self._refuse(peer, send)
            return
        self.under_way += 1
        self._sources[source] = of_source + 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.under_way -= 1
            of_source = self._sources.pop(source) - 1
            if of_source:
                self._sources[source] = of_source

    async def _refuse(self, peer: Peer, send: Send) -> None:
        """The connection stays where the request is read to its end: a new handshake would cost more than this."""
        error = Overloaded(detail="requests under way above the limit")
        incident = token_hex(16)
        answer = public_answer(error, incident)
        assert isinstance(answer.body, bytes)  # noqa: S101 - for mypy: problems do not stream
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        self._on_refused(Refused(incident, error.reason, answer.status, error.detail), peer)
