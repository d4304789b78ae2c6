"""Metrics and spans come after the answer: none is missing, none comes twice, and nobody waits for them."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from stories import exchange

from proxy.adapters.afterwards import Afterwards
from proxy.exchange import Exchange
from proxy.record import Position
from tests.faults.house import config, house, model, policy

DECISION, COMPLETION = Position("s", 4, "a" * 64), Position("s", 5, "b" * 64)
Heard = list[tuple[str, Exchange, Position | None, Position | None]]


class Listener:
    """An observer that remembers."""

    def __init__(self, name: str, heard: Heard, broken: Exchange | None = None) -> None:
        self._name, self._heard, self._broken = name, heard, broken

    def finished(self, exchange: Exchange, decision: Position | None, completion: Position | None) -> None:
        if exchange is self._broken:
            raise ValueError(self._name)
        self._heard.append((self._name, exchange, decision, completion))


async def test_what_is_ready_in_the_next_turn_goes_before_the_observers() -> None:
    heard: Heard = []
    afterwards, story = Afterwards([Listener("one", heard)]), exchange()
    afterwards.finished(story, DECISION, COMPLETION)
    await asyncio.sleep(0)  # an answer that waits for the others of its round
    assert not heard
    for _ in range(3):
        await asyncio.sleep(0)
    assert heard == [("one", story, DECISION, COMPLETION)]


async def test_each_observer_hears_of_all_in_order_and_once() -> None:
    heard: Heard = []
    afterwards = Afterwards([Listener("one", heard), Listener("two", heard)])
    stories = [exchange() for _ in range(3)]
    for story in stories:
        afterwards.finished(story, DECISION, None)
    afterwards.tell()
    expected = [(name, story, DECISION, None) for name in ("one", "two") for story in stories]
    assert heard == expected
    for _ in range(4):
        await asyncio.sleep(0)
    assert heard == expected


async def test_what_finishes_while_they_are_told_is_told_too() -> None:
    heard: Heard = []
    afterwards, stories = Afterwards([Listener("one", heard)]), [exchange() for _ in range(50)]
    for story in stories:
        afterwards.finished(story, None, None)
        await asyncio.sleep(0)
    for _ in range(4):
        await asyncio.sleep(0)
    assert [story for _, story, _, _ in heard] == stories


async def test_an_observer_that_breaks_its_promise_costs_only_what_it_was_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: Heard = []
    stories = [exchange() for _ in range(3)]
    afterwards = Afterwards([Listener("one", heard, broken=stories[1]), Listener("two", heard)])
    for story in stories:
        afterwards.finished(story, None, None)
    afterwards.tell()
    assert [(name, stories.index(story)) for name, story, _, _ in heard] == [
        *(("one", 0), ("one", 2)),
        *(("two", 0), ("two", 1), ("two", 2)),
    ]
    assert "an observer failed" in caplog.text


async def test_who_has_an_answer_finds_it_counted_and_a_stop_loses_no_span(tmp_path: Path) -> None:
    """Through the real socket: the counter stands before a client can ask for it, and the file has them all."""
    requests = 40
    async with model() as server:
        rules, settings = policy(server.url), config("telemetry: {file: spans.jsonl}")
        async with house(tmp_path, rules, settings) as standing:
            connection = await standing.connect()
            for number in range(requests):
                assert (await connection.ask(number)).status == 200
                page = standing.proxy.house.metrics.exposition().decode()
                counted = re.search(r'hip_requests_total\{.*status="200".*\} (\d+)', page)
                assert counted is not None
                assert int(counted[1]) == number + 1
            await connection.close()
        lines = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_bytes().splitlines()]
    made = [span for line in lines for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    assert len({span["traceId"] for span in made}) == requests
    assert len([span for span in made if span["kind"] == 2]) == requests
