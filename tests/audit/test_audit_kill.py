"""kill -9 of a real process under load: nothing that was acknowledged is missing, and the verifier is content."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from stories import place

import proxy
from proxy.adapters.journal.disk import segments
from proxy.adapters.journal.reading import Kept, stream_lines, verify
from proxy.audit.chain import read_event, split
from proxy.audit.findings import Status
from proxy.record import Completion, Decision

SERVING = Path(__file__).with_name("serving.py")


def killed_under_load(root: Path, durability: str, promised: int) -> list[str]:
    """Start the process, kill it after so many promises, return all that it had made."""
    command = [sys.executable, str(SERVING), str(root), durability]
    environment = {"PYTHONPATH": str(Path(proxy.__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(promised)]
        process.kill()
        told += process.stdout.readlines()
    return [line.strip() for line in told if line.endswith("\n")]


async def kill_again_and_again(tmp_path: Path, kills: int, durability: str) -> None:
    where = place(tmp_path)
    chance = random.Random(kills)
    told: list[str] = []
    for _ in range(kills):
        told += killed_under_load(tmp_path, durability, chance.randint(1, 200))
    found = verify(where.directory, where.auditor, Kept())
    assert found.status is Status.INCOMPLETE, found  # the last one has no successor yet
    journal = await where.open()
    await journal.close()
    found = verify(where.directory, where.auditor, Kept())
    assert found.status is Status.INTACT, found
    assert sum(report.ending == "recovered" for report in found.streams) == kills
    written = set()
    for stream in segments(where.directory):
        for line in stream_lines(where.directory, stream):
            if line.endswith(b"\n"):
                event = read_event(split(line[:-1])[1])
                if isinstance(event, Decision | Completion):
                    written.add(f"{'d' if isinstance(event, Decision) else 'c'} {event.event}")
    assert len(told) >= kills
    assert set(told) <= written


@pytest.mark.parametrize(("durability", "kills"), [("group", 16), ("sync", 4)])
async def test_no_acknowledged_record_is_lost(tmp_path: Path, durability: str, kills: int) -> None:
    await kill_again_and_again(tmp_path, kills, durability)


@pytest.mark.slow
@pytest.mark.timeout(3_600)  # two hundred starts of an interpreter: minutes, and more where others want the processor
async def test_no_acknowledged_record_is_lost_in_two_hundred_kills(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 200, "group")
