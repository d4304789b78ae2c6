"""Asks replicas whether they are well, each on its own schedule and on a connection of its own.

A check is one GET on a new connection with the replica's own TLS settings; 2xx within its time is well, anything else
is not. A new connection each time, because a server that accepts none any more may still answer on an old one.

Not guaranteed: that a replica which says it is well answers well. Golden probes look at answers.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx

from proxy.adapters.connection import Limits
from proxy.adapters.dial import Destination
from proxy.adapters.replicas import Replica
from proxy.adapters.transport import UpstreamTransport
from proxy.exchange import HealthCheck

MAX_BODY = 64 * 1024  # bytes of an answer that nobody reads
HEADERS = ((b"accept", b"*/*"), (b"accept-encoding", b"identity"))


class HealthChecks:
    """Follows the replicas that `replicas` yields; `destination` returns where one is, or None: no longer anywhere."""

    def __init__(
        self, replicas: Callable[[], Iterator[Replica]], destination: Callable[[Replica], Destination | None]
    ) -> None:
        self._replicas = replicas
        self._destination = destination
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Look at the list of replicas again."""
        self._changed.set()

    async def follow(self, stop: asyncio.Event) -> None:
        """Ask every replica, until `stop`."""
        stopped = asyncio.ensure_future(stop.wait())
        tasks: dict[Replica, asyncio.Task[None]] = {}
        try:
            while not stop.is_set():
                self._changed.clear()
                wanted = {one: one.upstream.health for one in self._replicas()}
                for gone in tasks.keys() - wanted.keys():
                    tasks.pop(gone).cancel()
                for one, check in wanted.items():
                    if check is not None and one not in tasks:
                        tasks[one] = asyncio.create_task(self._watch(one, check))
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({stopped, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            for ending in (stopped, *tasks.values()):
                ending.cancel()
            for ending in tasks.values():
                with suppress(asyncio.CancelledError):
                    await ending

    async def _watch(self, replica: Replica, check: HealthCheck) -> None:
        while True:
            to = self._destination(replica)
            if to is not None:
                replica.note(await ask(to, f"{replica.upstream.base_path}{check.path}", check), check)
            await asyncio.sleep(check.every)


async def ask(to: Destination, path: str, check: HealthCheck) -> str:
    """Return what is wrong with a server, in our words; empty: nothing."""
    seconds = check.timeout
    limits = Limits(
        max_connections=1,
        max_body=MAX_BODY,
        connect=seconds,
        total=seconds,
        write=seconds,
        first_byte=seconds,
        stall=seconds,
    )
    transport = UpstreamTransport(to, limits)
    scheme = "http" if to.context is None else "https"
    url = httpx.URL(scheme=scheme, host=to.host, port=to.port, path="/")
    request = httpx.Request("GET", url, headers=HEADERS, extensions={"target": path.encode("ascii")})
    try:
        response = await transport.handle_async_request(request)
    except httpx.TimeoutException:
        return f"GET {path}: no answer in {seconds:g} s"
    except httpx.TransportError as error:
        return f"GET {path}: {error}"
    finally:
        await transport.aclose()
    return "" if response.is_success else f"GET {path}: answered {response.status_code}"
