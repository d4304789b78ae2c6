"""Large bodies over TLS, which go past the parser: what arrives, what follows it, and how it may end."""

import asyncio
import ssl
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from proxy.adapters.mint import Minted, mint
from proxy.listener import Limits
from proxy.listener.upload import FIRST, GROWTH, LARGE, Upload
from proxy.reasons import Reason
from tests.listener.conftest import PATIENCE
from tests.listener.test_tls import server_tls

SHORT = 0.1  # seconds: a deadline
AROUND = [LARGE - 1, LARGE, LARGE + 70_000, 6 * LARGE + 1, GROWTH * FIRST + 1, GROWTH**2 * FIRST, 10_000_000]


@pytest.fixture(scope="module")
def minted(tmp_path_factory: pytest.TempPathFactory) -> Minted:
    return mint(tmp_path_factory.mktemp("certs") / "ours", ["localhost", "127.0.0.1"], ["analyst"])


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def post(size: int, more: bytes = b"") -> bytes:
    return b"POST /a HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n" % (more, size)


async def connected(house: Any, minted: Minted) -> Any:
    context = ssl.create_default_context(cafile=minted.ca.certificate)
    return await house.connect(ssl=context, server_hostname="localhost")


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the bodies that went past the parser."""
    seen: list[int] = []

    class Counted(Upload):
        def __init__(self, receiver: Any, begun: bytes, length: int) -> None:
            seen.append(length)
            super().__init__(receiver, begun, length)

    monkeypatch.setattr("proxy.listener.protocol.Upload", Counted)
    return seen


@pytest.mark.parametrize("size", AROUND)
async def test_it_arrives_whole_and_the_next_message_is_read(
    size: int, minted: Minted, recorder: Any, open_house: Any, uploads: list[int]
) -> None:
    """Also one that was sent behind it, in the same record or not."""
    async with open_house(recorder, Limits(), context=server_tls(minted).context) as house:
        client = await connected(house, minted)
        for _ in range(2):
            await client.feed(post(size) + content(size) + b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
            assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
        assert [(hit.method, hit.target, len(hit.body)) for hit in recorder.hits] == [
            ("POST", b"/a", size),
            ("GET", b"/b", 0),
        ] * 2
        assert recorder.hits[0].body == recorder.hits[2].body == content(size)
        assert (
            uploads == [size] * 2 if size >= 10 * LARGE else set(uploads) <= {size}
        )  # or it was here when it was asked for
        assert house.refused == []


async def test_after_100_continue(minted: Minted, recorder: Any, open_house: Any, uploads: list[int]) -> None:
    size = 2 * FIRST
    async with open_house(recorder, Limits(), context=server_tls(minted).context) as house:
        client = await connected(house, minted)
        await client.feed(post(size, b"Expect: 100-continue\r\n"))
        async with asyncio.timeout(PATIENCE):
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.feed(content(size))
        assert (await client.answer())[0] == 200
        assert recorder.hits[0].body == content(size)
        assert uploads == [size]


async def test_one_in_chunks_stays_the_parsers(
    minted: Minted, recorder: Any, open_house: Any, uploads: list[int]
) -> None:
    body = content(2 * FIRST)
    async with open_house(recorder, Limits(), context=server_tls(minted).context) as house:
        client = await connected(house, minted)
        head = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.feed(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert (await client.answer())[0] == 200
        assert recorder.hits[0].body == body
        assert uploads == []


async def test_a_client_that_leaves_is_told_to_the_application(
    minted: Minted, recorder: Any, open_house: Any, uploads: list[int]
) -> None:
    async with open_house(recorder, Limits(), context=server_tls(minted).context) as house:
        client = await connected(house, minted)
        await client.feed(post(8 * FIRST) + content(FIRST))
        while not uploads:
            await asyncio.sleep(0.01)
        client.writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            await recorder.disconnected.wait()
            while house.listener.connections:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("limit", ["body_idle", "body_total"])
async def test_one_that_does_not_end_in_time(
    limit: str, minted: Minted, recorder: Any, open_house: Any, uploads: list[int]
) -> None:
    """The application is told; what still comes is read by nobody."""
    limits = replace(Limits(), **{limit: SHORT, "close": SHORT})
    async with open_house(recorder, limits, context=server_tls(minted).context) as house:
        client = await connected(house, minted)
        await client.feed(post(8 * FIRST) + content(FIRST))
        status, headers, body = await client.answer()
        assert (status, headers[b"connection"], body) == (408, b"close", Reason.BODY_TIMEOUT.encode())
        await client.feed(content(7 * FIRST) + b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await client.end() == b""
        assert len(recorder.hits) == len(uploads) == 1


async def test_one_that_comes_slowly_is_in_time(minted: Minted, recorder: Any, open_house: Any) -> None:
    """Every byte counts: the idle deadline begins anew with each."""
    size = 2 * LARGE
    async with open_house(recorder, Limits(body_idle=0.5), context=server_tls(minted).context) as house:
        client = await connected(house, minted)
        await client.feed(post(size))
        for at in range(0, size, size // 8):
            await client.feed(content(size)[at : at + size // 8])
            await asyncio.sleep(0.1)
        assert (await client.answer())[0] == 200
        assert recorder.hits[0].body == content(size)


async def test_nothing_is_taken_for_a_body_that_nobody_asked_for(
    minted: Minted, recorder: Any, open_house: Any, uploads: list[int]
) -> None:
    recorder.reads_body = False
    async with open_house(recorder, Limits(close=0.2), context=server_tls(minted).context) as house:
        client = await connected(house, minted)
        await client.feed(post(8 * FIRST) + content(FIRST))
        assert (await client.answer())[1][b"connection"] == b"close"
        assert uploads == []


class Nobody:
    """A connection that only takes the body."""

    body = b""

    def uploading(self) -> None:
        pass

    def uploaded(self, body: bytes) -> None:
        self.body = body

    def eof_received(self) -> None:
        raise AssertionError

    def connection_lost(self, exc: Exception | None) -> None:
        raise AssertionError

    def pause_writing(self) -> None:
        raise AssertionError

    def resume_writing(self) -> None:
        raise AssertionError


def test_memory_follows_what_has_come() -> None:
    """Whatever a client announces; and the whole is handed over as it lies there."""
    size, step, receiver = 16 * FIRST, FIRST // 8, Nobody()
    tracemalloc.start()
    try:
        upload = Upload(receiver, b"", size)
        most = 0
        for come in range(step, size + 1, step):
            room = upload.get_buffer(-1)
            assert len(room) >= step
            room[:step] = bytes([come // step % 251]) * step
            del room
            upload.buffer_updated(step)
            held, _ = tracemalloc.get_traced_memory()
            assert held < max(FIRST, GROWTH * come) + step
            most = max(most, held)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size + step
    assert peak < size + size // 2 + 2 * step, "the step before the last one, copied"
    assert receiver.body == b"".join(bytes([number % 251]) * step for number in range(1, size // step + 1))
