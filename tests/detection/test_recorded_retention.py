"""What was recorded goes when its time is over, or its room: each file by itself, and each is on record."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

from proxy.adapters.samples import delete
from proxy.app.recording import Recording
from proxy.record import Event, InputsRecorded, Position
from tests.gateway.simulators import StillClock

DAY = 86_400.0
NOW = 1_577_836_800.0 + 10 * DAY  # 2020-01-11


def file(directory: Path, model: str, day: int, size: int = 10) -> Path:
    path = directory / f"inputs.{model}.202001{day:02}T000000Z-{day:012x}.sealed"
    path.write_bytes(b"x" * size)
    return path


def left(directory: Path) -> list[str]:
    return sorted(path.name.split("T")[0].removeprefix("inputs.") for path in directory.iterdir())


def test_each_model_keeps_as_long_as_the_policy_says(tmp_path: Path) -> None:
    for model in ("cats", "dogs"):
        for day in (1, 8, 10):
            file(tmp_path, model, day)
    (tmp_path / "notes.txt").touch()
    gone, stays = delete(tmp_path, NOW, {"cats": 4 * DAY}, 9 * DAY, 1 << 30)
    assert ([(one.model, one.begun) for one in gone], stays) == (
        [("cats", NOW - 10 * DAY), ("dogs", NOW - 10 * DAY)],
        "",
    )
    assert left(tmp_path) == ["cats.20200108", "cats.20200110", "dogs.20200108", "dogs.20200110", "notes.txt"]


def test_the_oldest_make_room(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        file(tmp_path, "cats", day)
    delete(tmp_path, NOW, {}, 30 * DAY, 25)
    assert left(tmp_path) == ["cats.20200102", "cats.20200103"]


class Journal:
    def __init__(self) -> None:
        self.events: list[Event] = []

    async def append(self, event: Event) -> Position:
        self.events.append(event)
        return Position("stream", len(self.events), "00")


async def test_one_that_cannot_be_deleted_holds_up_no_other(tmp_path: Path) -> None:
    """And those that went are on record all the same; the operator hears of the one that stays."""
    for day in (1, 3):
        file(tmp_path, "cats", day)
    file(tmp_path, "cats", 2).unlink()
    (tmp_path / f"inputs.cats.20200102T000000Z-{2:012x}.sealed").mkdir()  # no unlink takes it away
    journal, policy, stop = Journal(), SimpleNamespace(models={}), asyncio.Event()
    recording = Recording(tmp_path, 1 << 30, lambda: policy, journal, StillClock())  # type: ignore[arg-type, return-value]
    following = asyncio.ensure_future(recording.follow(stop))
    while not recording.stays or len(journal.events) < 2:
        await asyncio.sleep(0.001)
    stop.set()
    await following
    assert left(tmp_path) == ["cats.20200102"]
    told = [event.file for event in journal.events if isinstance(event, InputsRecorded) and event.effect == "deleted"]
    assert [name.split("T")[0] for name in told] == ["inputs.cats.20200101", "inputs.cats.20200103"]
    ((_, check),) = recording.checks()
    assert "20200102" in check.detail
