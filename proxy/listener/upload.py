"""A large body on its way into memory: TLS decrypts it to where it stays.

The parser shows a body in pieces, each of which is copied four times until the application has it in one. Of a body
with a Content-Length nothing is left for a parser to find: where it ends is known. So while the application waits for
one, the connection's protocol is an `Upload`, which hands the transport the memory to write to. It takes exactly so
many bytes as are missing; what follows them is the parser's again.

Memory follows what has come, not the word of the client: beyond `FIRST` at most `GROWTH` times as much is taken, and
nothing before the application asks for the body. Not guaranteed: that a body of less than `LARGE` bytes, or one in
chunks, comes this way.
"""

import asyncio
import io
from typing import Protocol

LARGE = 1 << 18  # bytes that are missing of a body: below, the pieces cost less than this does
FIRST = LARGE  # bytes that are taken on the word of the client: what is taken is in use, written to or not …
GROWTH = 4  # … and how many times what has come when they are full


class Receiver(Protocol):
    """The connection, as an upload sees it."""

    def uploading(self) -> None:
        """Some bytes have come."""
        ...

    def uploaded(self, body: bytes) -> None:
        """All bytes have come."""
        ...

    def eof_received(self) -> None:
        """asyncio.Protocol."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio.Protocol."""
        ...

    def pause_writing(self) -> None:
        """asyncio.Protocol."""
        ...

    def resume_writing(self) -> None:
        """asyncio.Protocol."""
        ...


class Upload(asyncio.BufferedProtocol):
    """Receives the rest of one body; everything else it leaves to the connection."""

    def __init__(self, receiver: Receiver, begun: bytes, length: int) -> None:
        """`begun` is what the parser has shown already, of a body of `length` bytes."""
        self._receiver = receiver
        self._length = length
        self._memory, self._view = self._take(max(FIRST, GROWTH * len(begun)))
        self._at = len(begun)
        self._view[: self._at] = begun

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature; all that comes is ours
        """asyncio.BufferedProtocol."""
        if self._at == len(self._view):
            full = self._view
            self._memory, self._view = self._take(GROWTH * self._at)
            self._view[: self._at] = full
            full.release()
        return self._view[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio.BufferedProtocol."""
        self._at += nbytes
        self._receiver.uploading()
        if self._at == self._length:
            self._view.release()
            memory, self._memory = self._memory, io.BytesIO()  # uvloop keeps us until it has another one
            self._receiver.uploaded(memory.getvalue())

    def eof_received(self) -> None:
        """asyncio.BufferedProtocol."""
        self._receiver.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio.BufferedProtocol."""
        self._receiver.connection_lost(exc)

    def pause_writing(self) -> None:
        """asyncio.BufferedProtocol."""
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """asyncio.BufferedProtocol."""
        self._receiver.resume_writing()

    def _take(self, size: int) -> tuple[io.BytesIO, memoryview]:
        # Over bytes that nobody else has, so that `getvalue` returns these very bytes; it copies them where the
        # transport still holds a view, as asyncio's does, and uvloop's for a last piece that came by itself.
        memory = io.BytesIO(bytes(min(size, self._length)))
        return memory, memory.getbuffer()
