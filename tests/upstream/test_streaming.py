"""Replies that come piece by piece: at the reader's pace, and gone when the reader goes."""

import asyncio

import pytest
from raw_upstream import INFER, Step, client, listening, raw_upstream, upstream

from proxy.adapters.connection import READ_HIGH_WATER
from proxy.errors import UpstreamFault, UpstreamTimeout
from proxy.reasons import Reason

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_each_piece_is_handed_out_when_it_comes() -> None:
    """The upstream says the next event only when the last one was read."""
    steps = [asyncio.Event() for _ in range(3)]
    answer = [HEAD, b"2\r\na\n\r\n", steps[0], b"2\r\nb\n\r\n", steps[1], b"2\r\nc\n\r\n", steps[2], b"0\r\n\r\n"]
    async with raw_upstream([answer]) as server, client() as sending:
        async with sending.stream(upstream(server.port), INFER) as reply:
            assert (reply.status, reply.headers[0]) == (200, (b"content-type", b"text/event-stream"))
            for expected, step in zip([b"a\n", b"b\n", b"c\n"], steps, strict=True):
                assert await anext(reply.pieces) == expected
                step.set()
            assert [piece async for piece in reply.pieces] == []
        await sending.send(upstream(server.port), INFER)
        assert server.connections == [1, 1]


async def test_a_stream_has_no_total_deadline_but_may_not_stall() -> None:
    steps = [asyncio.Event() for _ in range(4)]
    answer = [HEAD, *[step for event in steps for step in (b"1\r\nx\r\n", event)], Step.HANG]
    async with raw_upstream([answer]) as server, client() as sending:
        to = upstream(server.port, timeout=0.8)
        async with sending.stream(to, INFER) as reply:
            for step in steps:  # four times 0.25 s: more than the time-out in all
                assert await anext(reply.pieces) == b"x"
                await asyncio.sleep(0.25)
                step.set()
            with pytest.raises(UpstreamTimeout):
                await anext(reply.pieces)


async def test_a_slow_reader_stops_the_upstream() -> None:
    """What is not read is not taken from the socket: our memory is bounded, and the upstream notices."""
    sent = 0
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    stuck = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.read(1000)
        writer.write(HEAD)
        try:
            for _ in range(1000):  # 64 MB
                if writer.is_closing():  # uvloop raises no ConnectionError for a write after that
                    return
                writer.write(piece)
                try:
                    await asyncio.wait_for(writer.drain(), 0.1)
                except TimeoutError:
                    stuck.set()
                    await writer.drain()
                sent += 1
        except ConnectionError:
            pass

    async with listening(endless) as port, client() as sending:
        to = upstream(port, max_reply_bytes=1 << 30)
        async with sending.stream(to, INFER) as reply:
            await stuck.wait()
            taken = len(await anext(reply.pieces))
            assert taken <= 2 * READ_HIGH_WATER  # one read of the event loop above the mark
            assert sent < 500
            while taken < 32 * 65536:  # it goes on when we do
                taken += len(await anext(reply.pieces))


async def test_leaving_early_closes_the_connection() -> None:
    async with raw_upstream([[HEAD, b"2\r\na\n\r\n", Step.HANG]]) as server, client() as sending:
        to = upstream(server.port, max_connections=1)
        async with sending.stream(to, INFER) as reply:
            assert await anext(reply.pieces) == b"a\n"
        await server.until(left=1)
        await sending.send(to, INFER)  # the permit is back
        assert server.connections == [1, 2]


async def test_a_cancelled_reader_closes_the_connection() -> None:
    async with raw_upstream([[HEAD, Step.HANG]]) as server, client() as sending:
        to = upstream(server.port, max_connections=1)

        async def read() -> None:
            async with sending.stream(to, INFER) as reply:
                await anext(reply.pieces)

        reading = asyncio.ensure_future(read())
        await server.until(requests=1)
        reading.cancel()
        await asyncio.wait([reading])
        await sending.send(to, INFER)
        assert server.connections == [1, 2]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([HEAD, b"1\r\nx\r\n", Step.CLOSE], Reason.UPSTREAM_PROTOCOL),
        ([HEAD, b"1\r\nx\r\n", Step.RESET], Reason.UPSTREAM_UNREACHABLE),
        ([HEAD, b"1\r\nx\r\n", b"zz\r\n"], Reason.UPSTREAM_PROTOCOL),
        ([HEAD, b"1\r\nx\r\n", b"ffffff\r\n"], Reason.UPSTREAM_TOO_LARGE),
    ],
    ids=["closed", "reset", "unclean", "too large"],
)
async def test_a_broken_stream_says_so(answer: list[bytes | Step], reason: Reason) -> None:
    """A reader can tell a broken stream from one that ended."""
    async with raw_upstream([answer]) as server, client() as sending:
        with pytest.raises(UpstreamFault) as caught:
            async with sending.stream(upstream(server.port), INFER) as reply:
                _ = [piece async for piece in reply.pieces]
        assert caught.value.reason is reason
        await sending.send(upstream(server.port), INFER)
        assert server.connections == [1, 2]
