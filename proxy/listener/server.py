"""Accepting, admitting, draining: one listener on one socket, as many in a loop as you like.

Not uvicorn's `Server`: that one takes the process's signals, polls, bounds neither handshakes nor its own end, and
learns of a connection only when its handshake is done. Here a connection is counted and timed from accept on, and
the TLS context is asked for anew each time, so that a reloaded certificate or CA needs no restart. Who may stop a
listener, and when, is the application's to say.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from ipaddress import ip_address
from secrets import token_hex
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.errors import ConfigError, Finding
from proxy.exchange import Peer
from proxy.listener.admission import Admission
from proxy.listener.limits import Limits
from proxy.listener.protocol import Connection, Shared
from proxy.listener.rejection import Refused
from proxy.listener.rounds import Rounds
from proxy.reasons import Reason

BACKLOG = 1_024  # connections that the kernel holds for us
ACCEPT_PAUSE = 0.1  # seconds, when the process is out of descriptors or memory
LEAVE = 1.0  # seconds at the start of a drain in which an idle connection may still bring one request
LAST_RECORDS = 5.0  # seconds that cancelled requests have to leave their records

Application = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI, whose messages each framework types for itself

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 lets the kernel choose. `host` is an address, so that nothing is looked up."""
    where = f"{host}:{port}"
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError as exc:
        hint = "write 127.0.0.1 for this machine only, 0.0.0.0 or :: for every interface"
        raise ConfigError([Finding(where, 0, 0, "the host to listen on is not an IP address", hint)]) from exc
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as exc:
        hint = "is another process listening there, and may this one use the port?"
        raise ConfigError([Finding(where, 0, 0, f"cannot listen here: {exc}", hint)]) from exc


def _no_record(_refused: Refused, _peer: Peer) -> None:
    """For a listener whose refusals need no record: the admin listener's."""


@asynccontextmanager
async def serve(
    app: Application,
    *,
    listening: socket.socket,
    limits: Limits,
    drain_seconds: float,
    context: Callable[[], ssl.SSLContext] | None = None,
    state: Mapping[str, object] | None = None,
    on_refused: Callable[[Refused, Peer], None] = _no_record,
) -> AsyncIterator["Listener"]:
    """Serve inside the `async with` block, and drain at its end. The innermost listener drains first."""
    listener = Listener(app, listening, limits, context, state or {}, on_refused)
    try:
        yield listener
    finally:
        await listener.drain(drain_seconds)


class Listener:
    """One listening socket and its connections. Serves from construction on, inside a running loop."""

    def __init__(
        self,
        app: Application,
        listening: socket.socket,
        limits: Limits,
        context: Callable[[], ssl.SSLContext] | None,
        state: Mapping[str, object],
        on_refused: Callable[[Refused, Peer], None],
    ) -> None:
        config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            workers=1,  # else uvicorn reads the environment
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        config.load()
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._listening.setblocking(False)
        self.port = int(listening.getsockname()[1])
        self._limits = limits
        self._context = context
        self._server = ServerState()
        self._shared = Shared(config, self._server, state, limits, on_refused, Rounds())
        self._admission = Admission(limits.connections, limits.connections_per_source)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._draining = False
        self._dismissed: Callable[[Peer], bool] = lambda _: False
        self._tick()
        self._accepting = self._loop.create_task(self._accept())
        self._sweeping = self._loop.create_task(self._sweep())

    @property
    def connections(self) -> int:
        """How many connections are open, handshakes included."""
        return self._admission.open

    def dismiss(self, whom: Callable[[Peer], bool]) -> None:
        """End the connections of these peers, each with the answer that is under way, and those that shake hands."""
        self._dismissed = whom
        for connection in list(self._server.connections):
            if isinstance(connection, Connection) and self._is_dismissed(connection):
                connection.shutdown()

    def _is_dismissed(self, connection: Connection) -> bool:
        return not connection.transport.is_closing() and self._dismissed(connection.peer)

    async def drain(self, seconds: float) -> None:
        """Take no more connections, finish what has begun, and cut what is left after `seconds`."""
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._listening.close()
        await self._take_leave(min(LEAVE, seconds / 2))
        for handshake in list(self._handshakes):
            handshake.cancel()
        for connection in list(self._server.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(seconds):
                await self._finish()
        except TimeoutError:
            _log.warning("cut %d connections after %g seconds of draining", self._admission.open, seconds)
            await self._cut()
        self._sweeping.cancel()
        await asyncio.wait([self._sweeping])

    async def _take_leave(self, seconds: float) -> None:
        """Answer whoever has just connected, or writes on an open connection just now: closing would lose it."""
        self._draining = True
        for connection in list(self._server.connections):
            if isinstance(connection, Connection):
                connection.last_message()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._finish()

    async def _finish(self) -> None:
        while self._admission.open:
            self._empty.clear()
            await self._empty.wait()
        self._shared.rounds.hurry()  # whose client has left meanwhile
        if self._server.tasks:
            await asyncio.wait(self._server.tasks)

    async def _cut(self) -> None:
        for connection in list(self._server.connections):
            connection.transport.abort()
        self._shared.rounds.hurry()
        for task in list(self._server.tasks):
            task.cancel("the listener has drained long enough")
        if self._server.tasks:
            await asyncio.wait(self._server.tasks, timeout=LAST_RECORDS)

    # ── accepting ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _accept(self) -> None:
        while True:
            await asyncio.sleep(
                0
            )  # sock_accept does not yield while the kernel's queue is full: a flood would starve us
            try:
                accepted, address = await self._loop.sock_accept(self._listening)
            except OSError as exc:
                _log.error("cannot accept a connection: %s", exc)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            leave = self._admission.enter(address[0])
            if leave is None:  # before a handshake: the cheapest refusal there is
                accepted.close()
                refused = Refused(token_hex(16), Reason.OVERLOADED, 0, "connections above the limit")
                self._shared.on_refused(refused, Peer(address[0]))
                continue
            # asyncio sets it only on sockets that say they are TCP; without it, a body waits for the head's ACK
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handshake = self._loop.create_task(self._begin(accepted, leave))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _begin(self, accepted: socket.socket, leave: Callable[[], None]) -> None:
        """Shake hands, and leave the connection to itself."""

        def left() -> None:
            leave()
            if not self._admission.open:
                self._empty.set()

        context = self._context() if self._context is not None else None
        secured = context is not None
        try:
            _, connection = await self._loop.connect_accepted_socket(
                lambda: Connection(self._shared, left),
                accepted,
                ssl=context,
                ssl_handshake_timeout=self._limits.handshake if secured else None,
                ssl_shutdown_timeout=self._limits.write_stall if secured else None,
            )
            if self._draining:
                connection.last_message()
            if self._context is not None and self._context() is not context and self._is_dismissed(connection):
                connection.transport.abort()  # it shook hands with what was replaced meanwhile
        except OSError:  # a handshake that fails or lasts too long is the client's affair
            left()
        except BaseException:
            left()
            raise

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._limits.sweep_seconds)
            self._tick()
            now = self._loop.time()
            for connection in list(self._server.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now)

    def _tick(self) -> None:
        """RFC 9110 section 6.6.1: an answer has a date."""
        date = formatdate(time.time(), usegmt=True).encode("ascii")
        self._server.default_headers = [(b"date", date)]
