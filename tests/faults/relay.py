"""A TCP relay that breaks what goes through it, as it is told, at any moment: also connections that are open."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum


class Fault(Enum):
    """What happens to bytes."""

    NONE = "they pass"
    BLACKHOLE = "they are taken and never delivered"
    TRICKLE = "they pass one by one, slower than anybody waits"
    CORRUPT = "those of the server have every bit turned"
    RESET = "the connection is reset when they come"


TRICKLE_SECONDS = 0.05  # between two bytes


class Relay:
    """Stands before one port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.fault = Fault.NONE
        self.port = 0

    async def up(self) -> None:
        """Listen; again on the same port after `down`."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections, and reset those that are open."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            _reset(writer)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        other = None
        try:
            inner, other = await asyncio.open_connection("127.0.0.1", self._target)
            self._open |= {writer, other}
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, other, corruptible=False))
                both.create_task(self._pump(inner, writer, corruptible=True))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for one in filter(None, (writer, other)):
                self._open.discard(one)
                one.close()
                with suppress(OSError):
                    await one.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, corruptible: bool) -> None:
        while data := await reader.read(65_536):
            match self.fault:
                case Fault.BLACKHOLE:
                    continue
                case Fault.RESET:
                    _reset(writer)
                    raise ConnectionResetError
                case Fault.TRICKLE:
                    for at in range(len(data)):
                        writer.write(data[at : at + 1])
                        await asyncio.sleep(TRICKLE_SECONDS)
                    continue
                case Fault.CORRUPT if corruptible:
                    data = bytes(byte ^ 0xFF for byte in data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def relay(target: int) -> AsyncIterator[Relay]:
    running = Relay(target)
    await running.up()
    try:
        yield running
    finally:
        await running.down()
