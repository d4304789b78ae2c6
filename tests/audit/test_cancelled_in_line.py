"""A request that is cancelled while its decision waits for the medium: it has one decision, and its completion."""

import asyncio
import threading
from pathlib import Path

import pytest
from stories import Place, place

from proxy.adapters.journal import Disk, Durability
from proxy.adapters.journal.disk import segments
from proxy.adapters.journal.reading import stream_lines
from proxy.audit.chain import read_event, split
from proxy.reasons import Reason
from proxy.record import AnyEvent, Completion, Decision
from tests.gateway.simulators import House, call, principal

PATHS = ("/v2/models/iris/infer", "/v2/models/iris/infer_stream")


class SlowDisk(Disk):
    """A disk whose medium takes its time."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.ready.set()

    def sync(self, fd: int) -> None:
        self.ready.wait()
        super().sync(fd)


def told(where: Place) -> list[AnyEvent]:
    return [
        read_event(split(line[:-1])[1])
        for stream in segments(where.directory)
        for line in stream_lines(where.directory, stream)
        if line.endswith(b"\n")
    ]


@pytest.mark.parametrize("path", PATHS, ids=["whole", "stream"])
async def test_a_cancelled_request_has_one_decision_and_its_completion(tmp_path: Path, path: str) -> None:
    where, disk = place(tmp_path), SlowDisk()
    journal = await where.open(durability=Durability.SYNC, disk=disk)
    home = House(trail=journal)  # type: ignore[arg-type]
    home.authenticator.who = principal("analyst", "streamer")
    disk.ready.clear()
    asking = asyncio.ensure_future(home.gateway.handle(call(path=path)))
    while not any(isinstance(one, Decision) for one in told(where)):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0)
    disk.ready.set()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert home.upstream.sent == []
    await journal.close()
    decision, completion = [one for one in told(where) if isinstance(one, Decision | Completion)]
    assert (type(decision), type(completion)) == (Decision, Completion)
    assert (decision.effect, completion.event, completion.reason) == ("allow", decision.event, Reason.SHUTTING_DOWN)
