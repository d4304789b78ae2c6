"""The questions of `hip init` have an end, whatever is at the other end of the socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from proxy.adapters.survey import MAX_ANSWER, survey
from proxy.dialects.recognition import HEALTH, PING, QUESTIONS, VERSION, Seen

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"


@asynccontextmanager
async def listening(answer: Answer, heads: list[bytes] | None = None) -> AsyncIterator[str]:
    """A raw server; yield its address. `heads` gets what it was asked."""

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    held = await asyncio.start_server(answered, "127.0.0.1", 0)
    async with held:
        yield f"http://127.0.0.1:{held.sockets[0].getsockname()[1]}"


async def test_a_server_that_never_answers():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side has had enough

    async with listening(silent) as url:
        found = await survey(url, (HEALTH, PING), each=0.05)
        assert (dict(found.answers), bool(found.failure)) == ({}, True)
        found = await survey(url, QUESTIONS, each=5, total=0.05)
        assert found.failure == "not everything was answered within 0.05 s"


async def test_a_server_that_drips():
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with listening(dripping) as url:
        assert (await survey(url, (HEALTH,), each=0.1)).answers == {}


async def test_an_answer_without_an_end_is_not_read_to_it():
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        for _ in range(MAX_ANSWER // 65_536 + 64):
            writer.write(b" " * 65_536)
            await writer.drain()

    async with listening(endless) as url:
        assert (await survey(url, (HEALTH,))).answers == {HEALTH: Seen(200, b"")}


async def test_a_redirect_is_an_answer_and_is_not_followed():
    asked = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(1)
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()

    async with listening(elsewhere) as url:
        found = await survey(url, (HEALTH,))
    assert found.answers == {HEALTH: Seen(302, b"")}
    assert len(asked) == 1


async def test_a_cookie_is_not_brought_back():
    heads = []

    async def bakery(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"set-cookie: sid=1; Path=/\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with listening(bakery, heads) as url:
        await survey(url, (HEALTH, PING))
    assert [b"cookie" in head.lower() for head in heads] == [False, False]


async def test_what_is_no_http_is_no_answer_and_the_next_question_is_asked():
    lines = [b"SSH-2.0-x\r\n", OK + b"content-length: 2\r\n\r\nok"]

    async def two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(lines.pop(0))
        await writer.drain()

    async with listening(two) as url:
        found = await survey(url, (HEALTH, VERSION))
    assert found.answers == {VERSION: Seen(200, b"ok")}
    assert "RemoteProtocolError" in found.failure
