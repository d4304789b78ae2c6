"""Requests that arrive while others are worked on begin together; nobody waits alone, or for ever."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.listener import Limits
from proxy.listener.rounds import TURNS, WIDTH, Rounds

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


class Begun:
    """Who has begun, in order, and in which turn of the loop."""

    def __init__(self) -> None:
        self.turn = 0
        self.names: list[str] = []
        self.turns: list[int] = []

    def named(self, name: str) -> Callable[[], None]:
        def request() -> None:
            self.names.append(name)
            self.turns.append(self.turn)

        return request

    async def pass_turns(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
            self.turn += 1


@pytest.fixture
def begun() -> Begun:
    return Begun()


async def test_a_lone_request_begins_at_once(begun: Begun) -> None:
    Rounds().begin(begun.named("alone"), under_way=0)
    assert begun.names == ["alone"]


async def test_those_who_come_meanwhile_begin_together_in_their_order(begun: Begun) -> None:
    rounds = Rounds()
    rounds.begin(begun.named("first"), under_way=5)
    await begun.pass_turns(2)
    rounds.begin(begun.named("second"), under_way=6)
    rounds.begin(begun.named("third"), under_way=0)  # the others are done, and who has waited longer goes first
    assert begun.names == []
    await begun.pass_turns(TURNS)
    assert begun.names == ["first", "second", "third"]
    assert len(set(begun.turns)) == 1


@pytest.mark.parametrize(("others", "turns"), [(1, 1), (3, 3), (TURNS, TURNS), (10 * TURNS, TURNS)])
async def test_few_others_are_waited_for_briefly_and_many_not_for_ever(begun: Begun, others: int, turns: int) -> None:
    Rounds().begin(begun.named("patient"), under_way=others)
    await begun.pass_turns(turns - 1)
    assert begun.names == []
    await begun.pass_turns(2)
    assert begun.names == ["patient"]


async def test_streams_are_no_company(begun: Begun) -> None:
    rounds = Rounds()
    rounds.streams |= {"one", "another"}
    rounds.begin(begun.named("alone"), under_way=2)
    assert begun.names == ["alone"]
    rounds.begin(begun.named("late"), under_way=3)
    assert begun.names == ["alone"]


async def test_a_round_has_its_width(begun: Begun) -> None:
    rounds = Rounds()
    for number in range(2 * WIDTH + 1):
        rounds.begin(begun.named(str(number)), under_way=TURNS)
    for begins in (WIDTH, 2 * WIDTH, 2 * WIDTH + 1):
        await begun.pass_turns(TURNS)
        assert len(begun.names) == begins
    assert begun.names == [str(number) for number in range(2 * WIDTH + 1)]


async def test_the_end_of_the_listener_waits_for_no_round(begun: Begun) -> None:
    rounds = Rounds()
    rounds.begin(begun.named("last"), under_way=TURNS)
    rounds.hurry()
    assert begun.names == ["last"]
    await begun.pass_turns(TURNS + 1)
    assert begun.names == ["last"]


async def test_one_who_is_kept_waiting_keeps_nobody(recorder: Any, open_house: Any) -> None:
    """Through sockets: the first request hangs in the application, and all others are answered."""
    recorder.hold = asyncio.Event()
    async with open_house(recorder, Limits()) as house:
        slow = await house.connect()
        await slow.feed(GET)
        while not recorder.hits:
            await asyncio.sleep(0.01)
        held, recorder.hold = recorder.hold, None
        clients = [await house.connect() for _ in range(2 * WIDTH)]
        for client in clients:
            await client.feed(GET)
        assert [(await client.answer())[0] for client in clients] == [200] * len(clients)
        held.set()
        assert (await slow.answer())[0] == 200


async def test_a_stream_counts_until_it_ends_or_its_reader_leaves(open_house: Any) -> None:
    ends = asyncio.Event()

    async def stream(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        await ends.wait()
        await send({"type": "http.response.body", "body": b""})

    async with open_house(stream, Limits()) as house:
        streams = house.listener._shared.rounds.streams
        clients = [await house.connect() for _ in range(2)]
        for client in clients:
            await client.feed(GET)
            await client.reader.readuntil(b"piece\r\n")
        assert len(streams) == 2
        clients[0].writer.transport.abort()
        while len(streams) == 2:
            await asyncio.sleep(0.01)
        ends.set()
        await clients[1].reader.readuntil(b"0\r\n\r\n")
        assert not streams


async def test_a_request_whose_client_leaves_before_its_round_is_worked_on(recorder: Any, open_house: Any) -> None:
    recorder.hold = asyncio.Event()
    async with open_house(recorder, Limits(), drain_seconds=5.0) as house:
        slow, gone = await house.connect(), await house.connect()
        await slow.feed(GET)
        while not recorder.hits:
            await asyncio.sleep(0.01)
        await gone.feed(GET)
        gone.writer.transport.abort()
        recorder.hold.set()
        assert (await slow.answer())[0] == 200
    assert len(recorder.hits) == 2
