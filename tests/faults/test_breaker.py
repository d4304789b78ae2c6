"""The circuit breaker, moved by hand; then before a real socket."""

import pytest

from proxy.adapters.breaker import FAILURES, OPEN_SECONDS, Breaker
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.errors import Overloaded, UpstreamFault
from proxy.reasons import Reason
from tests.upstream.raw_upstream import INFER, raw_upstream, upstream


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(time: Time) -> Breaker:
    breaker = Breaker(time)
    for _ in range(FAILURES):
        breaker.enter()
        breaker.failed()
    return breaker


def refused(breaker: Breaker) -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        breaker.enter()
    assert caught.value.reason is Reason.UPSTREAM_OPEN
    return caught.value


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(Time())
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.enter()
            breaker.failed()
        breaker.answered()
    breaker.enter()
    assert not breaker.open


def test_open_it_says_how_long() -> None:
    time = Time()
    breaker = opened(time)
    assert refused(breaker).retry_after == OPEN_SECONDS
    time.now += OPEN_SECONDS - 0.2
    assert refused(breaker).retry_after == 1


@pytest.mark.parametrize("how", ["answered", "failed", "left"])
def test_then_one_tries_for_all(how: str) -> None:
    """Its answer closes the circuit, its failure opens it anew, and a client that leaves gives its turn to the next."""
    time = Time()
    breaker = opened(time)
    time.now += OPEN_SECONDS
    breaker.enter()
    refused(breaker)
    getattr(breaker, how)()
    if how == "failed":
        refused(breaker)
        time.now += OPEN_SECONDS
    breaker.enter()
    assert breaker.open is (how != "answered")


async def test_an_upstream_that_is_down_is_left_alone_until_one_request_gets_through() -> None:
    time = Time()
    async with raw_upstream() as server:
        up = upstream(server.port)
    client = HttpUpstreamClient(monotonic=time)
    for _ in range(FAILURES):
        with pytest.raises(UpstreamFault):
            await client.send(up, INFER)
    assert client.down() == {"u": True}
    with pytest.raises(Overloaded):
        await client.send(up, INFER)
    with pytest.raises(Overloaded):
        async with client.stream(up, INFER):
            pass
    time.now += OPEN_SECONDS
    with pytest.raises(UpstreamFault):
        await client.send(up, INFER)
    await client.close()


async def test_an_answer_is_an_answer_whatever_it_says() -> None:
    """500, and even what is no HTTP: somebody is there."""
    async with raw_upstream([[b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"], [b"220 smtp\r\n"]] * 4) as server:
        client = HttpUpstreamClient()
        for number in range(8):
            if number % 2:
                with pytest.raises(UpstreamFault):
                    await client.send(upstream(server.port), INFER)
            else:
                assert (await client.send(upstream(server.port), INFER)).status == 500
        assert client.down() == {"u": False}
        await client.close()
