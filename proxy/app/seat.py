"""Which of how many workers this process is, and its pulse: what it tells its supervisor twice a second.

A pulse is the worker's whole state: its readiness and its metrics page. The supervisor asks nothing, so that a worker
whose loop hangs shows by its silence.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from proxy.admin import Readiness

PULSE_SECONDS = 0.5
MAX_PULSE_BYTES = 16 << 20

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Seat:
    """One of `workers`. `listening` comes from the supervisor, who then has the admin listener."""

    worker: int = 0
    workers: int = 1
    listening: socket.socket | None = None


ALONE = Seat()


class Pulse(msgspec.Struct, frozen=True):
    """The state of a worker."""

    readiness: Readiness
    metrics: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Pulse).decode


async def tell(line: socket.socket, pulse: Callable[[], Pulse]) -> None:
    """Tell the supervisor now and then; return when it is gone."""
    _, writer = await asyncio.open_connection(sock=line)
    try:
        while True:
            body = _encode(pulse())
            writer.write(_LENGTH.pack(len(body)) + body)
            await writer.drain()
            await asyncio.sleep(PULSE_SECONDS)
    except OSError:
        return
    finally:
        writer.close()


async def hear(line: socket.socket, heard: Callable[[Pulse], None]) -> None:
    """Hand out every pulse of a worker; return when it says no more, or something else."""
    reader, writer = await asyncio.open_connection(sock=line)
    try:
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > MAX_PULSE_BYTES:
                return
            heard(_decode(await reader.readexactly(length)))
    except (OSError, EOFError, msgspec.MsgspecError):
        return
    finally:
        writer.close()
