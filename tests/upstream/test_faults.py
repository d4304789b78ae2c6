"""Every way in which an upstream can be wrong: what we make of it, and whether its connection serves again."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass

import pytest
from raw_upstream import FINE, INFER, Answer, Step, Trickle, client, listening, ok, raw_upstream, upstream

from proxy.errors import UpstreamFault, UpstreamTimeout
from proxy.exchange import Outbound
from proxy.reasons import Reason

MB = 1 << 20
P = Reason.UPSTREAM_PROTOCOL
DOWN = Reason.UPSTREAM_UNREACHABLE
LATE = Reason.UPSTREAM_TIMEOUT
LARGE = Reason.UPSTREAM_TOO_LARGE
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
POISON = ok(b'{"for": "somebody else"}')


@dataclass(frozen=True)
class Case:
    name: str
    answer: Answer
    expect: bytes | Reason  # the body of a 200, or the reason of the fault
    after: str  # "pooled": the connection carries the next request; "closed": it does not


CASES = [
    # clean
    Case("plain", [ok(b"{}")], b"{}", "pooled"),
    Case("empty body", [ok(b"")], b"", "pooled"),
    Case("chunked", [CHUNKED, b"2\r\n{}\r\n0\r\n\r\n"], b"{}", "pooled"),
    Case("chunked, extensions and trailers", [CHUNKED, b'2;a="b"\r\n{}\r\n0;x\r\nx-t: 1\r\n\r\n'], b"{}", "pooled"),
    Case("byte by byte", [Trickle(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")], b"abc", "pooled"),
    Case("no reason phrase", [b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}"], b"{}", "pooled"),
    Case("no content type", [HEAD + b"content-length: 2\r\n\r\n{}"], b"{}", "pooled"),
    Case("early hints", [b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", ok(b"{}")], b"{}", "pooled"),
    Case("continue unasked", [b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"{}")], b"{}", "pooled"),
    Case("gzip is left as it is", [ok(b"\x1f\x8b\x08", b"content-encoding: gzip\r\n")], b"\x1f\x8b\x08", "pooled"),
    Case("obs-text in a value", [ok(b"{}", b"x-name: caf\xe9\r\n")], b"{}", "pooled"),
    # clean, and the last of its connection
    Case("connection: close", [ok(b"{}", b"connection: close\r\n")], b"{}", "closed"),
    Case("close among options", [ok(b"{}", b"connection: x, Close\r\n")], b"{}", "closed"),
    Case("close in a second field", [ok(b"{}", b"connection: x\r\nconnection: close\r\n")], b"{}", "closed"),
    Case("HTTP/1.0", [b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}"], b"{}", "closed"),
    Case(
        "1.0 keep-alive", [b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}"], b"{}", "closed"
    ),
    Case("ended by close", [HEAD + b"\r\n{}", Step.CLOSE], b"{}", "closed"),
    Case("ended by close, half", [HEAD + b"\r\n{", b"}", Step.END, Step.HANG], b"{}", "closed"),
    Case("closed behind the answer", [ok(b"{}"), Step.CLOSE], b"{}", "closed"),
    Case("reset behind the answer", [ok(b"{}"), Step.RESET], b"{}", "closed"),
    # clean, and something more: it must never be the next one's answer
    Case("a second response", [ok(b"{}") + POISON], b"{}", "closed"),
    Case("a second response behind chunks", [CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + POISON], b"{}", "closed"),
    Case("response splitting", [ok(b"{}", b"x: 1\r\n") + b"\r\n\r\n" + POISON], b"{}", "closed"),
    Case("one byte too many", [ok(b"{}") + b"\n"], b"{}", "closed"),
    Case("an empty line too many", [CHUNKED + b"0\r\n\r\n\r\n"], b"", "closed"),
    Case("a body where none may be", [b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n{}"], b"", "closed"),
    # no answer
    Case("closes at once", [Step.CLOSE], DOWN, "closed"),
    Case("resets at once", [Step.RESET], DOWN, "closed"),
    Case("says nothing", [Step.HANG], LATE, "closed"),
    # half an answer
    Case("slow head", [b"HTTP/1.1 200 O", Step.HANG], LATE, "closed"),
    Case("interim only", [b"HTTP/1.1 100 Continue\r\n\r\n", Step.HANG], LATE, "closed"),
    Case("stalled body", [HEAD + b"content-length: 9\r\n\r\n{", Step.HANG], LATE, "closed"),
    Case("stalled chunk", [CHUNKED + b"9\r\n{", Step.HANG], LATE, "closed"),
    Case("a body that only a close would end", [HEAD + b"\r\n{", Step.HANG], LATE, "closed"),
    Case("reset in the head", [b"HTTP/1.1 2", Step.RESET], DOWN, "closed"),
    Case("reset in the body", [HEAD + b"content-length: 9\r\n\r\n{", Step.RESET], DOWN, "closed"),
    Case("reset where a close would end", [HEAD + b"\r\n{}", Step.RESET], DOWN, "closed"),
    Case("closes in the head", [b"HTTP/1.1 200 OK\r\nx: ", Step.CLOSE], P, "closed"),
    Case("body too short", [HEAD + b"content-length: 9\r\n\r\n{}", Step.CLOSE], P, "closed"),
    Case("chunks without an end", [CHUNKED + b"2\r\n{}\r\n", Step.CLOSE], P, "closed"),
    Case("a chunk without its end", [CHUNKED + b"2\r\n{}\r\n0\r\n", Step.CLOSE], P, "closed"),
    # not an answer
    Case("not HTTP", [b"220 mail.example ESMTP\r\n"], P, "closed"),
    Case("HTTP/0.9", [b"{}", Step.CLOSE], P, "closed"),
    Case("HTTP/2", [b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n"], P, "closed"),
    Case("status of two digits", [b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n"], P, "closed"),
    Case("status 600", [b"HTTP/1.1 600 OK\r\ncontent-length: 0\r\n\r\n"], P, "closed"),
    Case("bare LF", [b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}", Step.CLOSE], P, "closed"),
    Case("bare LF in a field", [ok(b"{}", b"x: 1\ny: 2\r\n")], P, "closed"),
    Case("bare CR in a field", [ok(b"{}", b"x: 1\ry: 2\r\n")], P, "closed"),
    Case("NUL in a field", [ok(b"{}", b"x: \0\r\n")], P, "closed"),
    Case("space before the colon", [ok(b"{}", b"x : 1\r\n")], P, "closed"),
    Case("no colon", [ok(b"{}", b"x\r\n")], P, "closed"),
    Case("no name", [ok(b"{}", b": 1\r\n")], P, "closed"),
    Case("obs-fold", [ok(b"{}", b"x: 1\r\n 2\r\n")], P, "closed"),
    # where the body ends
    Case("two lengths", [ok(b"{}", b"content-length: 3\r\n")], P, "closed"),
    Case("two equal lengths", [ok(b"{}", b"content-length: 2\r\n")], P, "closed"),
    Case("a list of lengths", [HEAD + b"content-length: 2, 2\r\n\r\n{}"], P, "closed"),
    Case("negative length", [HEAD + b"content-length: -2\r\n\r\n{}"], P, "closed"),
    Case("signed length", [HEAD + b"content-length: +2\r\n\r\n{}"], P, "closed"),
    Case("empty length", [HEAD + b"content-length:\r\n\r\n{}"], P, "closed"),
    Case("length in other digits", [HEAD + b"content-length: \xb2\r\n\r\n{}"], P, "closed"),
    Case("length and chunked", [ok(b"{}", b"transfer-encoding: chunked\r\n")], P, "closed"),
    Case("chunked twice", [HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n"], P, "closed"),
    Case("gzip, chunked", [HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n"], P, "closed"),
    Case("identity", [HEAD + b"transfer-encoding: identity\r\n\r\n"], P, "closed"),
    Case("chunked in HTTP/1.0", [b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"], P, "closed"),
    Case("204 with a body", [b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n{}"], P, "closed"),
    Case("chunk size not hexadecimal", [CHUNKED + b"2x\r\n{}\r\n0\r\n\r\n"], P, "closed"),
    Case("chunk size with a prefix", [CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n"], P, "closed"),
    Case("chunk longer than its size", [CHUNKED + b"1\r\n{}\r\n0\r\n\r\n"], P, "closed"),
    Case("chunk size with bare LF", [CHUNKED + b"2\n{}\r\n0\r\n\r\n"], P, "closed"),
    Case("chunk line of 300 bytes", [CHUNKED + b"2;" + b"x" * 300 + b"\r\n{}\r\n0\r\n\r\n"], P, "closed"),
    Case("invalid trailer", [CHUNKED + b"0\r\nx\r\n\r\n"], P, "closed"),
    # too much
    Case("1xx flood", [b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + ok(b"{}")], P, "closed"),
    Case("1xx with a body", [b"HTTP/1.1 100 Continue\r\ncontent-length: 2\r\n\r\n{}" + ok(b"{}")], P, "closed"),
    Case("switching protocols", [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n" + ok(b"{}")], P, "closed"),
    Case("300 fields", [ok(b"{}", b"".join(b"x-%d: 1\r\n" % n for n in range(300)))], P, "closed"),
    Case("a field of 100 kB", [ok(b"{}", b"x: " + b"a" * 100_000 + b"\r\n")], P, "closed"),
    Case("a head without an end", [b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000], P, "closed"),
    Case("trailers of 16 kB", [CHUNKED + b"0\r\n" + b"x: yyyyyyy\r\n" * 2000 + b"\r\n"], P, "closed"),
    Case("too many tiny chunks", [CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n"], P, "closed"),
    Case("100 MB announced", [HEAD + b"content-length: 104857600\r\n\r\n", b"x" * MB, Step.HANG], LARGE, "closed"),
    Case("100 MB in one chunk", [CHUNKED + b"6400000\r\n", b"x" * MB, Step.HANG], LARGE, "closed"),
    Case("100 MB in chunks", [CHUNKED, *[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 1600], LARGE, "closed"),
    Case("100 MB until close", [HEAD + b"\r\n", *[b"x" * MB] * 100, Step.CLOSE], LARGE, "closed"),
    Case("exactly the cap", [ok(b"x" * MB)], b"x" * MB, "pooled"),
    Case("one above the cap", [ok(b"x" * (MB + 1))], LARGE, "closed"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_fault(case: Case) -> None:
    """One answer, what we make of it, and then a second request that must not notice anything."""
    async with raw_upstream([case.answer]) as server, client() as sending:
        # an upstream that is waited for in vain gets little time; the others more than they need
        to = upstream(server.port, timeout=0.15 if case.expect is LATE else 20.0)
        if isinstance(case.expect, bytes):
            assert (await sending.send(to, INFER)).body == case.expect
        else:
            with pytest.raises((UpstreamFault, UpstreamTimeout)) as caught:
                await sending.send(to, INFER)
            assert caught.value.reason is case.expect
            assert isinstance(caught.value, UpstreamTimeout) is (case.expect is LATE)
        if case.after == "closed":
            await server.until(left=1)
        reply = await sending.send(to, INFER)
        assert ok(reply.body) == FINE[0]
        assert server.connections == ([1, 1] if case.after == "pooled" else [1, 2])


async def test_a_refused_connection_is_unreachable() -> None:
    with socket.socket() as bound:  # bound, not listening
        bound.bind(("127.0.0.1", 0))
        async with client() as sending:
            with pytest.raises(UpstreamFault) as caught:
                await sending.send(upstream(bound.getsockname()[1]), INFER)
    assert caught.value.reason is DOWN


async def test_a_connection_that_is_never_accepted_is_unreachable() -> None:
    """A full backlog drops our SYN: the connect deadline, not the request's, ends the wait."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with client() as sending:
            with pytest.raises(UpstreamFault) as caught:
                await sending.send(upstream(full.getsockname()[1], connect_timeout=0.15), INFER)
        for filler in fillers:
            filler.close()
    assert caught.value.reason is DOWN


async def test_an_unknown_name_is_unreachable() -> None:
    async with client() as sending:
        with pytest.raises(UpstreamFault) as caught:
            await sending.send(upstream(1, host="name.invalid"), INFER)
    assert caught.value.reason is DOWN


async def test_an_upstream_that_does_not_read_is_late() -> None:
    """A request of 16 MB fits into no socket buffer: the write has its deadline, too."""
    hold = asyncio.Event()

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await hold.wait()

    async with listening(never_read) as port, client() as sending:
        with pytest.raises(UpstreamTimeout):
            await sending.send(upstream(port, timeout=0.3), Outbound("POST", "/", (), b"x" * (16 * MB)))
        hold.set()


async def test_a_large_request_is_written_in_its_time_and_answered_in_its_own() -> None:
    """Slow to read, then quick to answer: the connection is clean and serves again."""
    body = b"x" * (16 * MB)

    async def slow_start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)  # the socket buffers are full by then
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(len(body))
            writer.write(ok(b"{}"))

    async with listening(slow_start) as port, client() as sending:
        for _ in range(2):
            assert (await sending.send(upstream(port), Outbound("POST", "/", (), body))).body == b"{}"
        (route,) = sending._routes.values()
        assert repr(route.transport) == "<UpstreamTransport: 1 open, 1 idle, 0 waiting>"


async def test_an_answer_before_the_request_is_out_is_taken_and_the_connection_is_not() -> None:
    """413 while we still write: the answer counts, the rest of the request must not become another request."""
    connections = 0

    async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
        with suppress(ConnectionError):
            while await reader.read(MB):
                pass

    async with listening(too_large) as port, client() as sending:
        for expected in (1, 2):
            reply = await sending.send(upstream(port), Outbound("POST", "/", (), b"x" * (16 * MB)))
            assert (reply.status, connections) == (413, expected)


async def test_an_errors_detail_has_none_of_the_upstreams_words() -> None:
    async with raw_upstream([[b"HTTP/1.1 200 OK\r\nsecret word: x\r\n\r\n"]]) as server, client() as sending:
        with pytest.raises(UpstreamFault) as caught:
            await sending.send(upstream(server.port), INFER)
    assert caught.value.detail == "upstream u: an invalid header field"
