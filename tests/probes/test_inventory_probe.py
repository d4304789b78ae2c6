"""`hip inventory` beside a proxy that runs: the last answer of a golden probe, and which policy serves."""

import asyncio
import json
from pathlib import Path

from typer.testing import CliRunner

from proxy import __version__
from proxy.cli import app
from tests.probes.changed_models import swapped
from tests.probes.test_probing import world


def inventory(directory: Path) -> dict:
    words = ["inventory", "--config", str(directory / "hip.yaml"), "--profile", "none", "--json"]
    return json.loads(CliRunner().invoke(app, words).output)


async def test_a_model_that_was_replaced_is_a_finding(tmp_path: Path) -> None:
    async with world(tmp_path) as of:
        await of.outcome(lambda probe: probe["outcome"] == "same")
        found = await asyncio.to_thread(inventory, tmp_path)
        (probe,) = found["probes"]
        assert (probe["model"], probe["state"], probe["quarantined"]) == ("digits", "as named", False)
        assert probe["outcome"] == "same"
        assert found["complete"]
        assert found["serving"]["version"] == __version__
        assert found["serving"]["policy"] == found["policy"]

        of.server.load(swapped())
        await of.outcome(lambda probe: probe["outcome"] == "changed")
        found = await asyncio.to_thread(inventory, tmp_path)
        assert found["probes"][0]["quarantined"]
        assert "probe golden found it changed" in found["findings"][0]
        assert "in quarantine" in found["findings"][0]

    with (tmp_path / "policy" / "policy.yaml").open("a") as file:
        file.write("# written, and served by nobody yet\n")
    found = await asyncio.to_thread(inventory, tmp_path)
    assert any("serves another policy" in finding for finding in found["findings"])
