"""The stopwatch of `hip serve --trace-stages`, over the simulators of the ports."""

from dataclasses import replace
from typing import Any

from proxy.app.stages import Stages
from proxy.edge import Edge
from proxy.exchange import Peer
from proxy.gateway import Gateway
from tests.gateway.simulators import JSON, House, infer_body


async def _ask(stages: Stages, house: House, path: str = "/v2/models/iris/infer") -> list[dict[str, Any]]:
    gateway = Gateway(stages.watching(house.gateway._world))
    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*JSON],
        "state": {"peer": Peer("192.0.2.7")},
    }
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": infer_body(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await stages.timing(Edge(gateway, 1_000_000))(scope, receive, send)
    return said


async def test_every_step_has_a_figure_and_the_answer_is_the_same() -> None:
    stages, house = Stages(), House()
    timed = await _ask(stages, house)
    plain = await House().ask()
    assert (timed[0]["status"], timed[1]["body"]) == (plain.status, plain.body)
    table = stages.table()
    steps = ("classify", "source limit", "authenticate", "authorize", "body", "read", "charge", "detector")
    steps += ("journal", "upstream", "harden", "observers", "send", "all")
    assert set(steps) <= table.keys()
    assert table["journal"]["requests"] == 1  # two records, one figure
    laps = sum(figures["p50"] for name, figures in table.items() if name != "all")
    assert abs(laps - table["all"]["p50"]) < 0.01  # microseconds: nothing is left out, nothing counts twice


async def test_a_refused_request_has_no_figure_for_what_it_did_not_reach() -> None:
    stages = Stages()
    said = await _ask(stages, House(), "/nowhere")
    assert said[0]["status"] == 404
    assert "authenticate" not in stages.table()
    assert stages.table()["all"]["requests"] == 1


async def test_a_reloaded_policy_is_timed_too() -> None:
    stages, house = Stages(), House()
    world = house.gateway._world
    snapshots = [world.snapshot(), replace(world.snapshot())]
    watched = stages.watching(replace(world, snapshot=lambda: snapshots[-1]))
    first = watched.snapshot()
    snapshots.append(replace(snapshots[0]))
    assert watched.snapshot() is not first
    assert watched.snapshot() is watched.snapshot()
