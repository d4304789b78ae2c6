"""How an answer is written: head and small body at once, and nothing that an application could slip between them."""

import asyncio
import tracemalloc
from typing import Any

import pytest

from proxy.listener import Limits
from proxy.listener.cycle import JOINED_BYTES

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}


def _app(*messages: dict[str, Any]) -> Any:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize("size", [0, 2, JOINED_BYTES - 1, JOINED_BYTES, JOINED_BYTES + 1])
async def test_a_body_of_any_size_arrives_whole(recorder: Any, open_house: Any, size: int) -> None:
    recorder.answer = b"x" * size
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        for _ in range(2):  # and the connection lives on
            await client.feed(GET)
            assert (await client.answer())[2] == recorder.answer


async def test_a_body_in_two_pieces_with_a_length_is_one_answer(open_house: Any) -> None:
    pieces = (
        {"type": "http.response.body", "body": b"o", "more_body": True},
        {"type": "http.response.body", "body": b"k"},
    )
    async with open_house(_app(OK, *pieces), Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        assert (await client.answer())[2] == b"ok"


async def test_head_has_no_body(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(GET.replace(b"GET", b"HEAD") + GET)
        assert (await client.answer("HEAD"))[1][b"content-length"] == b"2"
        assert (await client.answer())[2] == b"ok"


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_field_cannot_become_two(open_house: Any, value: bytes) -> None:
    """Response splitting: a value that ends its line is our fault, and leaves as one."""
    head = {**OK, "headers": [*OK["headers"], (b"x", value)]}  # type: ignore[misc]
    async with open_house(_app(head, {"type": "http.response.body", "body": b"ok"}), Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        status, headers, _ = await client.answer()
        assert status == 500
        assert b"set-cookie" not in headers


@pytest.mark.parametrize("body", [b"", b"o", b"oks"])
async def test_a_body_that_is_not_as_long_as_announced_ends_the_connection(open_house: Any, body: bytes) -> None:
    async with open_house(_app(OK, {"type": "http.response.body", "body": body}), Limits()) as house:
        client = await house.connect()
        await client.feed(GET + GET)
        assert (await client.end()).count(b"HTTP/1.1") == 1


async def test_a_head_without_its_body_is_an_answer_of_ours(open_house: Any) -> None:
    async with open_house(_app(OK), Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        assert (await client.answer())[0] == 500


async def test_the_last_answer_of_a_connection_says_so(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits(requests_per_connection=2)) as house:
        client = await house.connect()
        await client.feed(GET + GET)
        assert b"connection" not in (await client.answer())[1]
        assert (await client.answer())[1][b"connection"] == b"close"
        assert await client.end() == b""


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────

STREAM: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"a/b")]}


def _piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class _Writes:
    """A transport that notes what is written at once."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.seen: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.seen.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_each_piece_of_a_stream_is_one_write(open_house: Any) -> None:
    found: list[_Writes] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        cycle = send.__self__
        cycle.transport = writes = _Writes(cycle.transport)
        found.append(writes)
        for message in (STREAM, _piece(b"one"), _piece(b"fifteen letters"), _piece(b"", more=False)):
            await send(message)

    async with open_house(app, Limits()) as house:
        client = await house.connect()
        for _ in range(2):  # and the connection lives on
            await client.feed(GET)
            assert (await client.answer())[1][b"transfer-encoding"] == b"chunked"
            body = await client.reader.readuntil(b"0\r\n\r\n")
            assert body == b"3\r\none\r\nf\r\nfifteen letters\r\n0\r\n\r\n"
    for writes in found:
        head, *rest = writes.seen
        assert (head.startswith(b"HTTP/1.1 200 OK\r\n"), head.endswith(b"\r\n\r\n")) == (True, True)
        assert rest == [b"3\r\none\r\n", b"f\r\nfifteen letters\r\n", b"0\r\n\r\n"]


async def test_the_head_of_a_stream_does_not_wait_for_a_piece_that_is_late(open_house: Any) -> None:
    go = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(STREAM)
        await go.wait()
        await send(_piece(b"late"))
        await send(_piece(b"", more=False))

    async with open_house(app, Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        assert (await client.answer())[0] == 200
        go.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"4\r\nlate\r\n0\r\n\r\n"


@pytest.mark.parametrize("pieces", [(), (b"one",)], ids=["nothing", "a piece"])
async def test_a_stream_without_its_end_has_its_head_and_no_last_chunk(open_house: Any, pieces: tuple[bytes]) -> None:
    async with open_house(_app(STREAM, *map(_piece, pieces), _piece(b"")), Limits()) as house:
        client = await house.connect()
        await client.feed(GET + GET)
        assert (await client.answer())[0] == 200
        assert await client.end() == b"".join(b"3\r\n%b\r\n" % piece for piece in pieces)


async def test_an_empty_stream_is_a_whole_answer(open_house: Any) -> None:
    async with open_house(_app(STREAM, _piece(b"", more=False)), Limits()) as house:
        client = await house.connect()
        await client.feed(GET.replace(b"GET", b"HEAD") + GET)
        assert (await client.answer("HEAD"))[0] == 200
        assert (await client.answer())[0] == 200
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_field_of_a_stream_cannot_become_two(open_house: Any, value: bytes) -> None:
    head = {**STREAM, "headers": [(b"x", value)]}
    async with open_house(_app(head, _piece(b"one"), _piece(b"", more=False)), Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        status, headers, _ = await client.answer()
        assert status == 500
        assert b"set-cookie" not in headers


async def test_the_last_stream_of_a_connection_says_so(open_house: Any) -> None:
    app = _app(STREAM, _piece(b"one"), _piece(b"", more=False))
    async with open_house(app, Limits(requests_per_connection=1)) as house:
        client = await house.connect()
        await client.feed(GET)
        assert (await client.answer())[1][b"connection"] == b"close"
        assert await client.end() == b"3\r\none\r\n0\r\n\r\n"


async def test_a_stream_goes_at_the_pace_of_its_reader(open_house: Any) -> None:
    """As long as nobody reads, the application is kept waiting; then every piece arrives, in order."""
    pieces, sent, all_sent = 400, 0, asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal sent
        await send(STREAM)
        for number in range(pieces):
            await send(_piece(b"%05d" % number * 13_000))
            sent += 1
        await send(_piece(b"", more=False))
        all_sent.set()

    async with open_house(app, Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        await client.answer()
        before = -1
        while before != sent:  # until it stands still
            before = sent
            await asyncio.sleep(0.05)
        assert sent < pieces
        body = await client.reader.readuntil(b"\r\n")
        for number in range(pieces):
            assert body == b"fde8\r\n"
            assert await client.reader.readexactly(65_002) == b"%05d" % number * 13_000 + b"\r\n"
            body = await client.reader.readuntil(b"\r\n")
        assert body == b"0\r\n"
        await all_sent.wait()


async def test_a_body_in_very_small_chunks_does_not_cost_a_multiple_while_it_waits(open_house: Any) -> None:
    content, seen = bytes(range(250)) * 200, bytearray()
    held = 0

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        nonlocal held
        while receive.__self__.more_body:  # until the listener has all of it, and nobody has asked for any
            await asyncio.sleep(0)
        held, _ = tracemalloc.get_traced_memory()
        seen.extend((await receive())["body"])
        await send(OK)
        await send({"type": "http.response.body", "body": b"ok"})

    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"2\r\n%b\r\n" % content[at : at + 2] for at in range(0, len(content), 2))
    async with open_house(app, Limits()) as house:
        client = await house.connect()
        tracemalloc.start()
        try:
            await client.feed(head + chunks + b"0\r\n\r\n")
            assert (await client.answer())[0] == 200
        finally:
            tracemalloc.stop()
    assert bytes(seen) == content
    assert held < 10 * len(content)
