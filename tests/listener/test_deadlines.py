"""Deadlines: what happens when one passes. Outcomes are asserted, never durations."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from proxy.listener import Limits
from proxy.reasons import Reason

SHORT = 0.08  # seconds
GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"", None, id="silence after accept is closed without a word"),
        pytest.param(b"GET /a HT", 408, id="a head that does not end"),
        pytest.param(b"\r\n", 408, id="an empty line and nothing more"),
        pytest.param(GET + b"GET", 408, id="a second head that does not end"),
    ],
)
async def test_head(sent: bytes, status: int | None, recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits(head=SHORT)) as house:
        client = await house.connect()
        await client.feed(sent)
        if sent.startswith(GET):
            assert (await client.answer())[0] == 200
        if status is not None:
            assert (await client.answer())[0] == status
        assert await client.end() == b""
        assert [refused.status for refused, _ in house.refused] == ([] if status is None else [status])


async def test_head_in_drops(recorder: Any, open_house: Any) -> None:
    """A byte now and then does not keep a head alive."""
    async with open_house(recorder, Limits(head=SHORT)) as house:
        client = await house.connect()
        await client.feed(b"GET /a HTTP/1.1\r\nHost: h\r\n")

        async def drip() -> None:
            while True:
                await client.feed(b"X: y\r\n")
                await asyncio.sleep(SHORT / 4)

        dripping = asyncio.create_task(drip())
        assert (await client.answer())[0] == 408
        dripping.cancel()
        assert recorder.hits == []


async def test_keep_alive(recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits(keep_alive=SHORT)) as house:
        client = await house.connect()
        await client.feed(GET)
        assert (await client.answer())[0] == 200
        assert await client.end() == b""
        assert house.refused == []


@pytest.mark.parametrize("limit", ["body_idle", "body_total"])
async def test_body(limit: str, recorder: Any, open_house: Any) -> None:
    """The application is told, and answers: the record of a message that it has begun is its own."""
    async with open_house(recorder, replace(Limits(), **{limit: SHORT})) as house:
        client = await house.connect()
        await client.feed(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na")
        status, headers, body = await client.answer()
        assert (status, headers[b"connection"], body) == (408, b"close", Reason.BODY_TIMEOUT.encode())
        assert await client.end() == b""
        assert house.refused == []


async def test_body_that_is_not_asked_for(recorder: Any, open_house: Any) -> None:
    """While the client waits for 100 Continue, it is the application's turn, however long it takes."""
    recorder.hold = asyncio.Event()
    recorder.reads_body = False
    async with open_house(recorder, Limits(body_idle=SHORT, body_total=SHORT)) as house:
        client = await house.connect()
        await client.feed(b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        await recorder.started.wait()
        await asyncio.sleep(SHORT * 3)  # longer than both deadlines: nothing may happen
        recorder.hold.set()
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (200, b"close")


async def test_slow_application_is_not_the_clients_fault(recorder: Any, open_house: Any) -> None:
    recorder.hold = asyncio.Event()
    limits = Limits(head=SHORT, body_idle=SHORT, body_total=SHORT, keep_alive=SHORT, write_stall=SHORT, close=SHORT)
    async with open_house(recorder, limits) as house:
        client = await house.connect()
        await client.feed(GET)
        await recorder.started.wait()
        await asyncio.sleep(SHORT * 3)  # longer than every deadline
        recorder.hold.set()
        assert (await client.answer())[0] == 200


async def test_slow_reader(recorder: Any, open_house: Any) -> None:
    """A client that takes nothing is cut off, and its place is free again."""
    recorder.answer = b"x" * 32_000_000
    async with open_house(recorder, Limits(write_stall=SHORT)) as house:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", house.listener.port))
        raw.send(GET)
        await recorder.started.wait()
        async with asyncio.timeout(10):
            while house.listener.connections:
                await asyncio.sleep(SHORT / 4)
        raw.close()


async def test_client_that_does_not_close(recorder: Any, open_house: Any) -> None:
    """After our last word the connection ends, also when the client keeps its side open."""
    async with open_house(recorder, Limits(close=SHORT)) as house:
        client = await house.connect()
        await client.feed(b"GET /../a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer())[0] == 400
        async with asyncio.timeout(10):
            while house.listener.connections:
                await asyncio.sleep(SHORT / 4)


def test_a_limit_cannot_be_switched_off() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Limits(head=0)


def test_sweeps_are_often_enough() -> None:
    assert Limits().sweep_seconds == 1.0
    assert Limits(close=0.2).sweep_seconds == pytest.approx(0.05)
