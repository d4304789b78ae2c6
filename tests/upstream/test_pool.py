"""The pool: who gets a connection, when, and what of one request another can ever see (nothing)."""

import asyncio
import gc

import httpx
import pytest
from raw_upstream import INFER, READY, Step, client, listening, ok, raw_upstream, upstream

from proxy.adapters.connection import Limits
from proxy.adapters.dial import Destination
from proxy.adapters.transport import Pieces, PoolFull, UpstreamTransport
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.errors import UpstreamFault
from proxy.exchange import Outbound
from proxy.reasons import Reason


def limits(**other: float) -> Limits:
    fields: dict[str, float] = {
        "max_connections": 4,
        "max_body": 1000,
        "connect": 5,
        "total": 5,
        "write": 5,
        "first_byte": 5,
        "stall": 5,
    }
    return Limits(**{**fields, **other})  # type: ignore[arg-type]


def transport(port: int, **other: float) -> UpstreamTransport:
    return UpstreamTransport(Destination("127.0.0.1", port), limits(**other))


def post(body: bytes = b"{}") -> httpx.Request:
    return httpx.Request("POST", "http://127.0.0.1/", content=body)


# ── between requests ────────────────────────────────────────────────────────────────────────────────────────────


async def test_bytes_that_come_late_do_not_become_the_next_answer() -> None:
    """A second answer sent while the connection is idle: it is closed, even if our event loop has not seen them yet."""
    late = asyncio.Event()
    script = [[ok(b"mine"), late, ok(b"poison"), Step.HANG]]
    async with raw_upstream(script) as server, client() as sending:
        to = upstream(server.port)
        assert (await sending.send(to, INFER)).body == b"mine"
        late.set()
        await server.until(left=1)  # our side has seen unasked bytes, and gone
        assert (await sending.send(to, INFER)).body == b'{"for": "the next"}'
        assert server.connections == [1, 2]


async def test_bytes_that_nobody_has_read_yet_condemn_the_connection() -> None:
    """The socket is asked before a request is written: what is in the kernel then is no answer to it."""
    wrote = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal wrote
        while await reader.read(1000):
            wrote += 1
            writer.write(ok(b"%d" % wrote))
            if wrote == 1:
                first.set_result(writer)

    first: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    async with listening(handle) as port, client() as sending:
        assert (await sending.send(upstream(port), INFER)).body == b"1"
        # written and asked for in one step of the loop: no reader can have run between the two
        first.result().write(ok(b"poison"))
        assert (await sending.send(upstream(port), INFER)).body == b"2"


async def test_a_cookie_is_never_kept() -> None:
    script = [[ok(b"{}", b"set-cookie: session=a; path=/\r\n")]]
    async with raw_upstream(script) as server, client() as sending:
        for _ in range(2):
            await sending.send(upstream(server.port), INFER)
        assert server.connections == [1, 1]
        assert b"cookie" not in server.requests[1][1].lower()


async def test_a_redirect_is_an_answer() -> None:
    async with raw_upstream() as target:
        location = b"location: http://127.0.0.1:%d/\r\n" % target.port
        script = [[b"HTTP/1.1 307 Temporary Redirect\r\n" + location + b"content-length: 0\r\n\r\n"]]
        async with raw_upstream(script) as server, client() as sending:
            assert (await sending.send(upstream(server.port), INFER)).status == 307
        assert target.requests == []


async def test_the_environments_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_upstream() as trap, raw_upstream() as server, client() as sending:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
        monkeypatch.setenv("no_proxy", "")
        await sending.send(upstream(server.port), INFER)
        assert (len(server.requests), trap.requests) == (1, [])


async def test_the_target_goes_out_byte_for_byte() -> None:
    async with raw_upstream() as server, client() as sending:
        target = "/v2/models/a%2Fb/..//c/./infer?x=%41&y=/../"
        await sending.send(upstream(server.port, base_path="/base"), Outbound("GET", target, (), b""))
        assert server.requests[0][1].startswith(
            f"GET /base{target} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n".encode()
        )


# ── a second attempt ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, 65_534, 65_535, 300_000])
async def test_what_stands_behind_the_body_follows_it(size: int) -> None:
    """In one message with it, whose length counts both; and the connection serves again."""
    behind = memoryview(b"\n" + bytes(range(256)) * (size // 256 + 1))[1 : size + 1]
    async with raw_upstream([]) as server, client() as sending:
        for _ in range(2):
            await sending.send(upstream(server.port), Outbound("POST", "/", (), b"{}", behind))
        for _, request in server.requests:
            head, _, body = request.partition(b"\r\n\r\n")
            assert b"content-length: %d" % (2 + size) in head.split(b"\r\n")
            assert body == b"{}" + behind
        assert server.connections == [1, 1]


async def test_a_connection_that_closed_while_idle_is_not_used() -> None:
    async with raw_upstream([[ok(b"1"), Step.CLOSE]]) as server, client() as sending:
        await sending.send(upstream(server.port), INFER)
        await server.until(left=1)
        await sending.send(upstream(server.port), INFER)
        assert server.connections == [1, 2]


async def test_a_close_while_idle_is_noticed_at_once() -> None:
    """Not only when the next request looks: a dead connection is no open one."""
    async with raw_upstream([[ok(b"1"), Step.CLOSE]]) as server:
        pool = transport(server.port)
        await pool.handle_async_request(post())
        async with asyncio.timeout(5):
            while pool._live:
                await asyncio.sleep(0)
        assert repr(pool) == "<UpstreamTransport: 0 open, 0 idle, 0 waiting>"
        await pool.aclose()


@pytest.mark.parametrize("end", [Step.CLOSE, Step.RESET])
async def test_a_post_is_never_repeated(end: Step) -> None:
    """The upstream has read the request and closed: the inference may have been made."""
    async with raw_upstream([[ok(b"1")], [end]]) as server, client() as sending:
        await sending.send(upstream(server.port), INFER)
        with pytest.raises(UpstreamFault) as caught:
            await sending.send(upstream(server.port), INFER)
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert server.connections == [1, 1]


async def test_a_get_is_repeated_once_on_a_fresh_connection() -> None:
    async with raw_upstream([[ok(b"1")], [Step.CLOSE]]) as server, client() as sending:
        await sending.send(upstream(server.port), READY)
        await sending.send(upstream(server.port), READY)
        assert server.connections == [1, 1, 2]


async def test_a_get_is_not_repeated_twice() -> None:
    async with raw_upstream([[ok(b"1")], [Step.CLOSE], [Step.CLOSE]]) as server, client() as sending:
        await sending.send(upstream(server.port), READY)
        with pytest.raises(UpstreamFault):
            await sending.send(upstream(server.port), READY)
        assert server.connections == [1, 1, 2]


async def test_a_get_that_was_half_answered_is_not_repeated() -> None:
    async with raw_upstream([[ok(b"1")], [b"HTTP/1.1 200", Step.CLOSE]]) as server, client() as sending:
        await sending.send(upstream(server.port), READY)
        with pytest.raises(UpstreamFault):
            await sending.send(upstream(server.port), READY)
        assert len(server.requests) == 2


# ── how many ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_never_more_connections_than_allowed() -> None:
    go = asyncio.Event()
    async with raw_upstream([[go, ok(b"%d" % n)] for n in range(8)]) as server, client() as sending:
        to = upstream(server.port, max_connections=2)
        asked = [asyncio.ensure_future(sending.send(to, INFER)) for _ in range(8)]
        await server.until(requests=2)
        assert server.accepted == 2
        go.set()
        bodies = [reply.body for reply in await asyncio.gather(*asked)]
        assert sorted(bodies) == [b"%d" % n for n in range(8)]
        assert server.accepted == 2


async def test_waiting_for_a_connection_has_an_end() -> None:
    """The one connection streams for longer than a request may take in all."""
    over = asyncio.Event()
    endless = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n", over, b"0\r\n\r\n"]
    async with raw_upstream([endless]) as server:
        pool = transport(server.port, max_connections=1, total=0.1)
        streamed = await pool.handle_async_request(httpx.Request("POST", "http://u/", extensions={"stream": True}))
        with pytest.raises(httpx.PoolTimeout):
            await pool.handle_async_request(post())
        over.set()
        assert await streamed.aread() == b"x"
        await streamed.aclose()
        assert len(server.requests) == 1
        await pool.aclose()


async def test_whoever_reads_through_httpx_hears_of_a_broken_stream_in_its_words() -> None:
    """And hears it again, not an end, when asking once more."""
    begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    go = asyncio.Event()
    async with raw_upstream([[begun, go, b"zz\r\n", Step.CLOSE]]) as server:
        pool = transport(server.port)
        reply = await pool.handle_async_request(httpx.Request("POST", "http://u/", extensions={"stream": True}))
        assert isinstance(reply.stream, Pieces)
        go.set()
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(reply.stream)
        await reply.aclose()
        await pool.aclose()


async def test_the_queue_for_a_connection_is_bounded() -> None:
    go = asyncio.Event()
    async with raw_upstream([[go, ok(b"1")]]) as server:
        pool = transport(server.port, max_connections=1, max_waiters=1)
        first = asyncio.ensure_future(pool.handle_async_request(post()))
        await server.until(requests=1)
        second = asyncio.ensure_future(pool.handle_async_request(post()))
        await asyncio.sleep(0)
        with pytest.raises(PoolFull):
            await pool.handle_async_request(post())
        go.set()
        await asyncio.gather(first, second)
        await pool.aclose()


async def test_the_last_used_connection_is_used_first() -> None:
    go = asyncio.Event()
    async with raw_upstream([[go, ok(b"1")], [ok(b"2")]]) as server, client() as sending:
        to = upstream(server.port)
        slow = asyncio.ensure_future(sending.send(to, INFER))
        await server.until(requests=1)
        await sending.send(to, INFER)  # on the second connection
        go.set()
        await slow  # the first is used last now
        for _ in range(3):
            await sending.send(to, INFER)
        assert server.connections == [1, 2, 1, 1, 1]


async def test_an_idle_connection_ends() -> None:
    async with raw_upstream() as server:
        pool = transport(server.port, idle=0.05)
        await pool.handle_async_request(post())
        assert repr(pool) == "<UpstreamTransport: 1 open, 1 idle, 0 waiting>"
        await server.until(left=1)
        await pool.handle_async_request(post())
        assert server.connections == [1, 2]
        await pool.aclose()


async def test_an_old_connection_ends() -> None:
    """However busy it is: its name may lead elsewhere by now."""
    async with raw_upstream() as server:
        pool = transport(server.port, max_age=0)
        for _ in range(2):
            await pool.handle_async_request(post())
        assert server.connections == [1, 2]
        await pool.aclose()


# ── how long ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_byte_has_its_own_deadline() -> None:
    async with raw_upstream([[Step.HANG]]) as server:
        pool = transport(server.port, first_byte=0.1)
        with pytest.raises(httpx.ReadTimeout):
            await pool.handle_async_request(post())
        await pool.aclose()


async def test_an_answer_that_has_begun_has_the_whole_time() -> None:
    rest = asyncio.Event()
    answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", rest, b"}"]
    async with raw_upstream([answer]) as server:
        pool = transport(server.port, first_byte=0.1)
        asked = asyncio.ensure_future(pool.handle_async_request(post()))
        await asyncio.sleep(0.2)  # past the first deadline
        rest.set()
        assert (await (await asked).aread()) == b"{}"
        await pool.aclose()


async def test_writing_has_its_own_deadline() -> None:
    hold = asyncio.Event()

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await hold.wait()

    async with listening(never_read) as port:
        pool = transport(port, write=0.1)
        with pytest.raises(httpx.WriteTimeout):
            await pool.handle_async_request(post(b"x" * (16 << 20)))
        hold.set()
        await pool.aclose()


# ── cancelled, closed, replaced ─────────────────────────────────────────────────────────────────────────────────


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """In the middle of the body: the rest of it must not reach anybody else."""
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"
    async with raw_upstream([[begun, Step.HANG]]) as server, client() as sending:
        to = upstream(server.port, max_connections=1)
        asked = asyncio.ensure_future(sending.send(to, INFER))
        await server.until(requests=1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await sending.send(to, INFER)).body == b'{"for": "the next"}'
        assert server.connections == [1, 2]


async def test_cancelled_when_the_answer_is_here_already() -> None:
    """The finished connection belongs to the pool: a late cancellation must not close it under another request."""
    async with raw_upstream() as server:
        pool = transport(server.port, max_connections=1)
        await pool.handle_async_request(post())
        (connection,) = pool._live
        finished = asyncio.Event()
        freed, connection._freed = connection._freed, lambda one: (freed(one), finished.set())
        asked = asyncio.ensure_future(pool.handle_async_request(post()))
        await finished.wait()
        asked.cancel()
        await asyncio.wait([asked])
        await pool.handle_async_request(post())
        assert server.connections == [1, 1, 1]
        await pool.aclose()


async def test_cancelled_in_the_queue() -> None:
    """A place in the queue that nobody wants any more costs nobody a turn."""
    go = asyncio.Event()
    async with raw_upstream([[go, ok(b"1")]]) as server, client() as sending:
        to = upstream(server.port, max_connections=1)
        first, second, third = (asyncio.ensure_future(sending.send(to, INFER)) for _ in range(3))
        await server.until(requests=1)
        second.cancel()
        go.set()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert server.connections == [1, 1]


async def test_cancelled_while_connecting() -> None:
    """The permit comes back, the socket does not leak."""
    async with raw_upstream() as server, client() as sending:
        to = upstream(server.port, max_connections=1)
        asked = asyncio.ensure_future(sending.send(to, INFER))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        gc.collect()  # an unclosed socket would say so here
        await sending.send(to, INFER)


async def test_an_upstream_that_left_the_policy_ends_in_order() -> None:
    """What is under way is answered; what is idle is closed; nothing new is kept."""
    go = asyncio.Event()
    async with raw_upstream([[ok(b"1")], [go, ok(b"2")]]) as server, client() as sending:
        to = upstream(server.port)
        await sending.send(to, INFER)
        asked = asyncio.ensure_future(sending.send(to, INFER))
        await server.until(requests=2)
        sending.retain([])
        go.set()
        assert (await asked).body == b"2"
        await server.until(left=1)


async def test_an_upstream_that_stays_keeps_its_connections() -> None:
    async with raw_upstream() as server, client() as sending:
        await sending.send(upstream(server.port), INFER)
        sending.retain([upstream(server.port)])  # equal, read again
        await sending.send(upstream(server.port), INFER)
        assert server.connections == [1, 1]


async def test_closing_ends_what_is_under_way() -> None:
    async with raw_upstream([[Step.HANG]]) as server:
        sending = HttpUpstreamClient()
        asked = asyncio.ensure_future(sending.send(upstream(server.port), INFER))
        await server.until(requests=1)
        await sending.close()
        with pytest.raises(UpstreamFault):
            await asked
