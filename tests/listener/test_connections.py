"""What holds between messages and between connections: caps, order, Expect, disconnects, draining, failures."""

import asyncio
import logging
from typing import Any

import pytest

from proxy.errors import ConfigError
from proxy.exchange import Peer
from proxy.listener import Limits, bind
from proxy.listener.admission import Admission
from proxy.reasons import Reason

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
EXPECT = b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"


async def test_peer_and_date(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        _, headers, _ = await client.answer()
        assert recorder.hits[0].peer == Peer("127.0.0.1")
        assert headers[b"date"].endswith(b"GMT")
        assert b"server" not in headers


async def test_forwarded_headers_change_nothing(recorder: Any, open_house: Any) -> None:
    """uvicorn believes X-Forwarded-For from loopback unless told not to."""
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(b"GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n")
        await client.answer()
        assert recorder.hits[0].peer.address == "127.0.0.1"


async def test_refusal_is_a_problem_that_names_no_software(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(b"GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n")
        status, headers, body = await client.answer()
        refused, peer = house.refused[0]
        assert status == refused.status == 400
        assert headers[b"content-type"] == b"application/problem+json"
        assert refused.incident.encode() in body
        assert (refused.reason, peer.address) == (Reason.MALFORMED_MESSAGE, "127.0.0.1")
        told = (body + b"".join(headers.values())).lower()
        assert not any(word in told for word in (b"uvicorn", b"httptools", b"python", b"llhttp", b"hip/"))


async def test_a_length_of_five_thousand_zeros_is_unclean_and_no_fault_of_ours(
    recorder: Any, open_house: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"0" * 5_000 + b"5\r\n\r\nhello")
        assert (await client.answer())[0] == 400
        assert house.refused[0][0].reason is Reason.MALFORMED_MESSAGE
    assert not recorder.hits
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# ── caps ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_requests_per_connection(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits(requests_per_connection=2)) as house:
        client = await house.connect()
        await client.feed(GET * 3)
        assert b"connection" not in (await client.answer())[1]
        assert (await client.answer())[1][b"connection"] == b"close"
        assert await client.end() == b""
        assert len(recorder.hits) == 2


async def test_pipelined_messages_are_bounded(recorder: Any, open_house: Any) -> None:
    """What waits behind the message being answered is bounded; the refusal keeps its turn."""
    async with open_house(recorder, Limits(pipelined=2)) as house:
        client = await house.connect()
        await client.feed(GET * 5)
        assert [(await client.answer())[0] for _ in range(4)] == [200, 200, 200, 400]
        assert await client.end() == b""
        assert len(recorder.hits) == 3


async def test_connections_in_all(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits(connections=1)) as house:
        first = await house.connect()
        await first.feed(GET)
        await first.answer()
        second = await house.connect()
        await second.feed(GET)
        assert await second.end() == b""
        assert [(refused.reason, refused.status) for refused, _ in house.refused] == [(Reason.OVERLOADED, 0)]
        await first.feed(GET)
        assert (await first.answer())[0] == 200


async def test_connections_per_source(recorder: Any, open_house: Any) -> None:
    """Another address still gets in, and a place that is left is free again."""
    async with open_house(recorder, Limits(connections_per_source=1)) as house:
        first = await house.connect()
        await first.feed(GET)
        await first.answer()
        refused = await house.connect()
        assert await refused.end() == b""
        other = await house.connect(local_addr=("127.0.0.2", 0))
        await other.feed(GET)
        assert (await other.answer())[0] == 200


def test_admission_counts_a_way_out_once() -> None:
    admission = Admission(connections=2, per_source=1)
    leave = admission.enter("192.0.2.1")
    assert leave is not None
    assert admission.enter("192.0.2.1") is None
    leave()
    leave()
    assert admission.open == 0


def test_admission_takes_an_ipv6_subscriber_for_one_source() -> None:
    admission = Admission(connections=9, per_source=1)
    assert admission.enter("2001:db8::1") is not None
    assert admission.enter("2001:db8::ffff%eth0") is None
    assert admission.enter("2001:db8:0:1::1") is not None


# ── Expect, order, disconnects ──────────────────────────────────────────────────────────────────────────────────


async def test_continue_is_sent_when_the_application_asks(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(EXPECT)
        assert (await client.answer())[0] == 100
        await client.feed(b"abc")
        assert (await client.answer())[0] == 200
        assert recorder.hits[0].body == b"abc"
        await client.feed(GET)
        assert (await client.answer())[0] == 200


async def test_no_continue_and_no_next_message_when_it_does_not(recorder: Any, open_house: Any) -> None:
    """A final answer instead of 100 ends the connection: the body may or may not follow, and could be a message."""
    recorder.reads_body = False
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(EXPECT)
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (200, b"close")
        await client.feed(GET)
        assert await client.end() == b""
        assert len(recorder.hits) == 1


async def test_an_early_answer_is_not_eaten_by_the_body(recorder: Any, open_house: Any) -> None:
    """A client that is still sending reads the answer, not a reset."""
    recorder.reads_body = False
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 8_000_000)
        status, headers, body = await client.answer()
        assert (status, headers[b"connection"], body) == (200, b"close", b"ok")


async def test_large_body_arrives_whole(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        body = bytes(range(256)) * 20_000
        await client.feed(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body + GET)
        assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
        assert recorder.hits[0].body == body


async def test_disconnect_reaches_the_application(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na")
        await recorder.started.wait()
        await client.close()
        await asyncio.wait_for(recorder.disconnected.wait(), 10)


# ── failures of the application ─────────────────────────────────────────────────────────────────────────────────


async def test_an_application_that_raises_is_a_problem_and_a_record(
    open_house: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def raising(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret detail")

    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    async with open_house(raising, Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        status, headers, body = await client.answer()
        assert (status, headers[b"content-type"]) == (500, b"application/problem+json")
        assert b"secret" not in body
        assert house.refused[0][0].reason is Reason.INTERNAL
        assert await client.end() == b""


# ── draining ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_drain_finishes_what_has_begun(recorder: Any, open_house: Any) -> None:
    """Idle connections end at once, the one in flight gets its answer with `close`, new ones are not accepted."""
    recorder.hold = asyncio.Event()
    async with open_house(recorder, Limits(), drain_seconds=10.0) as house:
        idle = await house.connect()
        busy = await house.connect()
        await busy.feed(GET)
        await recorder.started.wait()
        draining = asyncio.create_task(house.listener.drain(10.0))
        assert await idle.end() == b""
        with pytest.raises(ConnectionRefusedError):
            await house.connect()
        recorder.hold.set()
        status, headers, _ = await busy.answer()
        assert (status, headers[b"connection"]) == (200, b"close")
        await busy.close()
        await asyncio.wait_for(draining, 10)


async def test_drain_lets_a_begun_head_finish(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        await client.answer()
        await client.feed(GET[:10])
        while not any(connection._phase.name == "HEAD" for connection in house.listener._server.connections):
            await asyncio.sleep(0)
        draining = asyncio.create_task(house.listener.drain(10.0))
        while not all(connection._draining for connection in house.listener._server.connections):
            await asyncio.sleep(0)
        await client.feed(GET[10:])
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (200, b"close")
        await client.close()
        await asyncio.wait_for(draining, 10)


async def test_drain_cuts_at_the_deadline(recorder: Any, open_house: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    recorder.hold = asyncio.Event()
    async with open_house(recorder, Limits()) as house:
        client = await house.connect()
        await client.feed(GET)
        await recorder.started.wait()
        await asyncio.wait_for(house.listener.drain(0.05), 10)
        assert house.listener.connections == 0
        assert not house.listener._server.tasks


async def test_drain_twice(recorder: Any, open_house: Any) -> None:
    """The application may drain early, and the end of `serve` drains again."""
    async with open_house(recorder, Limits()) as house:
        await house.listener.drain(1.0)


async def test_two_listeners_in_one_loop(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits()) as admin, open_house(recorder, Limits()) as data:
        assert admin.listener.port != data.listener.port
        for house in (admin, data):
            client = await house.connect()
            await client.feed(GET)
            assert (await client.answer())[0] == 200


@pytest.mark.parametrize("host", ["localhost", "", "256.0.0.1"])
def test_bind_wants_an_address(host: str) -> None:
    with pytest.raises(ConfigError, match="not an IP address"):
        bind(host, 0)


def test_bind_says_what_is_in_the_way() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="another process"):
        bind("127.0.0.1", taken.getsockname()[1])
