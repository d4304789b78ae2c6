"""An ASGI application served on 127.0.0.1, in the running event loop, for as long as the demo or a test needs it.

Plain HTTP/1.1 by uvicorn, without signal handlers: the process belongs to somebody else. Nothing else than loopback
can be bound; that is the one protection these servers have.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"
SHUTDOWN_TIMEOUT = 1  # seconds that open requests get when the server stops


class _Server(uvicorn.Server):
    """A uvicorn server that tells when it listens, and leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class LoopbackServer:
    """One application on one loopback port; 0 takes a free one. `async with` starts and stops it."""

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        self._app = app
        self._port = port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The bound port; 0 until a server that takes a free one has started."""
        return self._port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at its end."""
        if not self._port:
            msg = "the server has no port before start()"
            raise RuntimeError(msg)
        return f"http://{LOOPBACK}:{self._port}"

    async def start(self) -> None:
        """Return when the server listens; OSError when the port is taken."""
        listener = socket.create_server((LOOPBACK, self._port))
        # Inherited by its connections. asyncio sets it only where the socket knows that it is TCP, and this one does
        # not: without it, each answer in two writes waits 40 ms for the acknowledgement of the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([listener]), name=f"loopback:{self._port}")
        await self._server.listening.wait()

    async def stop(self) -> None:
        """End the server; a second call does nothing."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        self._server = self._serving = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
