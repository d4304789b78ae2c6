"""Retention: what is old goes, on record, and pruned is never taken for missing."""

import asyncio
from dataclasses import replace
from pathlib import Path

from stories import QUICK, ManualClock, Place, crash, place, serve

from proxy.adapters.journal import Journal, Retention
from proxy.adapters.journal.anchors import AnchorLog
from proxy.adapters.journal.disk import segment_path, segments
from proxy.adapters.journal.reading import Kept, Verification, stream_lines, verify
from proxy.adapters.journal.retention import INTERVAL, PROFILES, expired
from proxy.audit.chain import read_event, split
from proxy.audit.findings import Status
from proxy.record import Retention as RetentionRecord

DAY = 86_400
KEPT = Retention("eu-ai-act")


def judge(where: Place) -> Verification:
    return verify(where.directory, where.auditor, Kept())


async def pruned(where: Place, clock: ManualClock, **changes: object) -> Journal:
    """Open a journal with retention, and return when the anchor log tells of a deletion."""
    journal = await where.open(clock=clock, retention=KEPT, **changes)
    while not any(known.deleted for known in AnchorLog(where.directory).roster().streams.values()):
        await asyncio.sleep(0.005)
    await asyncio.get_running_loop().run_in_executor(journal._executor, lambda: None)  # the files are gone, too
    return journal


async def test_old_streams_go_and_the_journal_stays_intact(tmp_path: Path) -> None:
    where, clock = place(tmp_path), ManualClock()
    for _ in range(2):
        journal = await where.open(clock=clock)
        await serve(journal, 12)
        await journal.close()
    old = list(segments(where.directory))
    clock.go(PROFILES["eu-ai-act"] * DAY + 1)
    journal = await pruned(where, clock)
    while set(segments(where.directory)) & set(old):
        await asyncio.sleep(0.005)
    await serve(journal, 1)
    await journal.close()
    found = judge(where)
    assert (found.status, len(found.streams)) == (Status.INTACT, 1), found
    (stream,) = segments(where.directory)
    told = [read_event(split(line[:-1])[1]) for line in stream_lines(where.directory, stream)]
    records = [event for event in told if isinstance(event, RetentionRecord)]
    assert {event.stream for event in records} == set(old)
    assert {(event.profile, event.days) for event in records} == {("eu-ai-act", 184)}


async def test_nothing_goes_a_moment_too_early(tmp_path: Path) -> None:
    where, clock = place(tmp_path), ManualClock()
    journal = await where.open(clock=clock)
    await serve(journal, 12)
    await journal.close()
    roster = AnchorLog(where.directory).roster()
    for days, gone in ((183, 0), (184, 1)):
        now_ns = int((clock.seconds + days * DAY) * 1e9) + gone
        assert len(expired(where.directory, roster, now_ns, KEPT, own="")) == gone


async def test_the_beginning_of_a_living_stream_goes(tmp_path: Path) -> None:
    where, clock = place(tmp_path), ManualClock()
    journal = await where.open(clock=clock, retention=KEPT, limits=replace(QUICK, segment_bytes=1 << 20))
    await serve(journal, 3)
    name = journal.status().stream
    clock.go(100 * DAY)  # the key has expired: a new segment
    await serve(journal, 3)
    clock.go(100 * DAY)
    await serve(journal, 3)
    clock.go(INTERVAL + 1)
    while segment_path(where.directory, name, 0).exists():
        await asyncio.sleep(0.005)
    await serve(journal, 2)
    await journal.close()
    found = judge(where)
    assert found.status is Status.INTACT, found
    assert (found.streams[0].pruned, found.streams[0].unpaired) == (1, 0)
    assert found.streams[0].first_seq > 0


async def test_a_removed_segment_that_is_not_on_record_is_tampering(tmp_path: Path) -> None:
    """Also when retention has deleted others: it vouches for what it deleted, and for nothing else."""
    where, clock = place(tmp_path), ManualClock()
    journal = await where.open(clock=clock)
    await serve(journal, 12)
    await journal.close()
    young = segments(where.directory)
    clock.go(100 * DAY)
    journal = await where.open(clock=clock)
    await serve(journal, 12)
    await journal.close()
    clock.go(100 * DAY)
    journal = await pruned(where, clock)
    await journal.close()
    (later, *_) = [stream for stream in segments(where.directory) if stream not in young]
    segment_path(where.directory, later, 0).unlink()
    assert judge(where).status is Status.TAMPERED


async def test_a_crash_between_the_record_and_the_deletion_is_no_alarm(tmp_path: Path) -> None:
    where, clock = place(tmp_path), ManualClock()
    journal = await where.open(clock=clock)
    await serve(journal, 12)
    await journal.close()
    honest = {path: path.read_bytes() for path in where.directory.glob("2*.jsonl")}
    clock.go(200 * DAY)
    journal = await pruned(where, clock)
    await crash(journal)
    for path, data in honest.items():
        path.write_bytes(data)
    (await where.open(clock=clock)).status()
    found = judge(where)
    assert found.status is Status.INCOMPLETE, found  # one is open; nothing is tampered
    journal = await pruned(where, clock)
    while any(path.exists() for path in honest):
        await asyncio.sleep(0.005)
    await journal.close()


async def test_a_recovered_stream_goes_whole(tmp_path: Path) -> None:
    where, clock = place(tmp_path), ManualClock()
    journal = await where.open(clock=clock)
    await serve(journal, 5)
    await crash(journal, torn=b"{")
    clock.go(1)
    await (await where.open(clock=clock)).close()
    clock.go(200 * DAY)
    journal = await pruned(where, clock)
    while len(segments(where.directory)) > 1:
        await asyncio.sleep(0.005)
    await journal.close()
    assert judge(where).status is Status.INTACT
