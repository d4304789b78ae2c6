"""`failure: open`: requests pass without a record, only where the configuration says so, loudly, counted, on record."""

import asyncio
import errno
import os
import resource
import threading
import time
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from stories import QUICK, Place, place, plain_decision, serve
from test_audit_journal import FaultyDisk, events, refused, until
from test_audit_reconcile import POLICY, Model, report, run

from proxy.adapters.journal import Durability, Failure, State
from proxy.demo.identity import DemoIdentityProvider
from proxy.errors import DependencyFault
from proxy.record import UNRECORDED, Gap
from tests.hip import CONFIG, hip_serve


@pytest.fixture
def where(tmp_path: Path) -> Place:
    return place(tmp_path)


def gaps(where: Place) -> list[Gap]:
    return [event for event in events(where) if isinstance(event, Gap)]


async def test_the_default_is_to_refuse(where: Place) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk)
    disk.write_error = errno.ENOSPC
    await refused(journal)
    assert (journal.status().failure, journal.status().unrecorded) == (Failure.DENY, 0)
    disk.write_error = 0
    await journal.close()


@pytest.mark.parametrize("durability", list(Durability))
async def test_what_passed_without_a_record_is_counted_and_the_count_is_on_record(
    where: Place, durability: Durability, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk, failure=Failure.OPEN, durability=durability)
    await serve(journal, 1)
    disk.write_error = errno.ENOSPC
    told = [await journal.append(plain_decision("e" * 32)) for _ in range(3)]
    await until(journal, State.FAILED)
    told += [await journal.append(plain_decision("f" * 32)) for _ in range(4)]
    missing = sum(one == UNRECORDED for one in told)
    assert missing == (4 if durability is Durability.ASYNC else 7)
    assert journal.status().unrecorded == missing
    assert "passes WITHOUT A RECORD" in caplog.text
    disk.write_error = 0
    await until(journal, State.OK)
    await serve(journal, 1)
    await journal.close()
    (gap,) = gaps(where)
    assert (gap.unrecorded, gap.refused) == (missing, 0)
    assert "ENOSPC" in gap.cause


async def test_a_file_that_cannot_be_followed_by_another_lets_pass_who_waits(where: Place) -> None:
    """The disk is full just when the next file is due: nobody waits for the record that was not taken."""
    disk = FaultyDisk()
    journal = await where.open(disk=disk, failure=Failure.OPEN, limits=replace(QUICK, segment_bytes=1))
    await serve(journal, 1)
    disk.write_error = errno.ENOSPC
    async with asyncio.timeout(20):
        assert await journal.append(plain_decision("e" * 32)) == UNRECORDED
    disk.write_error = 0
    await until(journal, State.OK)
    await journal.close()
    (gap,) = gaps(where)
    assert gap.unrecorded == 1


async def test_a_sync_that_hangs_lets_pass_who_waits(where: Place) -> None:
    disk = FaultyDisk()
    limits = replace(QUICK, stuck_seconds=0.1)
    journal = await where.open(disk=disk, failure=Failure.OPEN, durability=Durability.SYNC, limits=limits)
    disk.hang.clear()
    assert await journal.append(plain_decision("e" * 32)) == UNRECORDED
    assert journal.status().state is State.STUCK
    disk.hang.set()
    await until(journal, State.OK)
    await journal.close()
    (gap,) = gaps(where)
    assert gap.unrecorded == 1


async def test_a_closed_journal_lets_nothing_pass(where: Place) -> None:
    journal = await where.open(failure=Failure.OPEN)
    await journal.close()
    await refused(journal)


async def test_a_record_that_cannot_be_encoded_is_refused_all_the_same(where: Place) -> None:
    journal = await where.open(failure=Failure.OPEN)
    with pytest.raises(DependencyFault, match="unwritable"):
        await journal.append(plain_decision("e" * 32, model=object()))
    await journal.close()


def drain(pipe: Path, file: Path) -> None:
    file.write_bytes(pipe.read_bytes())


@pytest.mark.parametrize("failure", ["deny", "open"])
def test_through_the_socket(tmp_path: Path, failure: str) -> None:
    """A real proxy whose journal's files may grow no more (RLIMIT_FSIZE: the kernel's own EFBIG)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    identity = DemoIdentityProvider(port=1)
    (tmp_path / "jwks.json").write_bytes(identity.jwks())
    config = CONFIG.replace("audit: {directory: audit}", f"audit: {{directory: audit, failure: {failure}}}")
    spans = threading.Thread(target=drain, args=(tmp_path / "spans.fifo", tmp_path / "spans.jsonl"))
    os.mkfifo(tmp_path / "spans.fifo")  # a pipe has no size that could be limited
    spans.start()
    config = config.replace("spans.jsonl", "spans.fifo")
    asked = Model.asked
    try:
        policy = POLICY.format(url=f"http://127.0.0.1:{server.server_address[1]}")
        with hip_serve(tmp_path, policy, config) as hip, httpx.Client(verify=hip.trust(), trust_env=False) as http:
            headers = {"authorization": f"Bearer {identity.token('alice', ['analyst'])}"}
            path = f"{hip.url}/v2/models/digits/ready"
            assert http.get(path, headers=headers).status_code == 200
            pid = hip.process.pid
            before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (100, before[1]))
            answers = [http.get(path, headers=headers).status_code for _ in range(3)]
            ready = http.get(f"{hip.admin_url}/readyz")
            page = http.get(f"{hip.admin_url}/metrics").text
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
            if failure == "deny":
                assert answers == [503] * 3
                assert Model.asked == asked + 1
                assert ready.status_code == 503
                assert "hip_journal_unrecorded 0.0" in page
                return
            assert answers == [200] * 3
            assert Model.asked == asked + 4
            assert (ready.status_code, ready.json()["checks"]["trail"]["health"]) == (200, "warning")
            assert "WITHOUT A RECORD" in ready.json()["checks"]["trail"]["detail"]
            assert "hip_journal_unrecorded 6.0" in page
            trail = ready.json()["checks"]["trail"]["detail"]
            while trail.startswith("requests pass"):
                time.sleep(0.3)  # the admin listener is not there to be asked all the time
                trail = http.get(f"{hip.admin_url}/readyz").json()["checks"]["trail"]["detail"]
            assert trail.startswith("failure: open")
        log = (tmp_path / "hip.log").read_text()
        assert "failure: open" in log
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        spans.join()
    said = report(tmp_path, "--spans", str(tmp_path / "spans.jsonl"))
    assert "3 requests were let pass without a record" in said
    words = (tmp_path / "report.html").read_text()
    for told in ("6 records are missing of requests that were let pass", "FAILURE OPEN", "told to let requests pass"):
        assert told in words, told
    assert run(tmp_path, "verify").exit_code == 0
