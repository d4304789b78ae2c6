"""The journal while it serves: what an acknowledgement promises, and what happens when the disk does not."""

import asyncio
import errno
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stories import QUICK, ManualClock, Place, crash, place, plain_decision, serve

from proxy.adapters.journal import Disk, Durability, Failure, Journal, State, ensure_keys
from proxy.adapters.journal.disk import ANCHOR_FILE, segments
from proxy.adapters.journal.reading import Kept, stream_lines, verify
from proxy.adapters.journal.second_place import FilePlace, SecondPlace
from proxy.audit.chain import MAX_LINE, read_event, split
from proxy.audit.findings import Status
from proxy.errors import ConfigError, DependencyFault
from proxy.reasons import Reason
from proxy.record import AnyEvent, Decision, Gap, Recovered, Segment, Start, Stop

IMPATIENT = replace(QUICK, stuck_seconds=0.3)


class FaultyDisk(Disk):
    """A disk that fails, fills up or hangs when a test says so. It counts its calls."""

    def __init__(self) -> None:
        self.write_error = self.sync_error = 0  # errno
        self.short = False  # a failing write leaves half of its bytes
        self.free_share = 1.0
        self.writes: list[bytes] = []
        self.syncs = 0
        self.hang = threading.Event()
        self.hang.set()

    def write(self, fd: int, data: bytes) -> None:
        if self.write_error:
            if self.short:
                super().write(fd, data[: len(data) // 2])
            raise OSError(self.write_error, os.strerror(self.write_error))
        self.writes.append(data)
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        self.hang.wait()
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        self.syncs += 1
        super().sync(fd)

    def free(self, directory: Path) -> float:
        return self.free_share


@pytest.fixture
def where(tmp_path: Path) -> Place:
    return place(tmp_path)


def events(where: Place) -> list[AnyEvent]:
    return [
        read_event(split(line[:-1])[1])
        for stream in segments(where.directory)
        for line in stream_lines(where.directory, stream)
        if line.endswith(b"\n")
    ]


def check(where: Place) -> Status:
    return verify(where.directory, where.auditor, Kept()).status


async def until(journal: Journal, state: State) -> None:
    """Wait for a state, for as long as the test runner allows."""
    while journal.status().state is not state:
        await asyncio.sleep(0.005)


async def refused(journal: Journal) -> str:
    with pytest.raises(DependencyFault) as caught:
        await journal.append(plain_decision("r" * 32))
    assert caught.value.reason is Reason.AUDIT_UNWRITABLE
    return caught.value.detail


# ── acknowledged means written ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("durability", list(Durability))
async def test_records_come_back_as_they_were(where: Place, durability: Durability) -> None:
    journal = await where.open(durability=durability)
    told = await serve(journal, 5, refused=1)
    await journal.close()
    written = [event for event in events(where) if isinstance(event, Decision)]
    assert [event.event for event in written] == told
    assert check(where) is Status.INTACT


async def test_a_position_points_to_its_line(where: Place) -> None:
    journal = await where.open()
    position = await journal.append(plain_decision("a" * 32))
    lines = list(stream_lines(where.directory, position.stream))
    assert b"a" * 32 in lines[position.seq]
    following = await journal.append(plain_decision("b" * 32))
    assert (following.stream, following.seq) == (position.stream, position.seq + 1)
    lines = list(stream_lines(where.directory, position.stream))
    assert split(lines[following.seq][:-1])[0].prev == position.hash
    await journal.close()


async def test_records_of_one_turn_are_one_write(where: Place) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk, limits=replace(QUICK, checkpoint_records=10_000, segment_bytes=1 << 20))
    before = len(disk.writes)
    await asyncio.gather(*(journal.append(plain_decision(f"{number:032x}")) for number in range(50)))
    assert [data.count(b'"type":"decision"') for data in disk.writes[before:] if b'"decision"' in data] == [50]
    await journal.close()


async def test_sync_waits_for_the_medium(where: Place) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk, durability=Durability.SYNC, limits=replace(QUICK, stuck_seconds=60))
    disk.hang.clear()
    waiting = [asyncio.create_task(journal.append(plain_decision(f"{number:032x}", "deny"))) for number in range(20)]
    await asyncio.wait(waiting, timeout=0.05)
    assert not any(task.done() for task in waiting)
    disk.hang.set()
    await asyncio.gather(*waiting)
    await journal.close()
    assert check(where) is Status.INTACT


async def test_a_cancelled_waiter_loses_and_doubles_nothing(where: Place) -> None:
    journal = await where.open()
    tasks = [asyncio.create_task(journal.append(plain_decision(f"{number:032x}"))) for number in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in done] == [True, False] * 5
    await journal.close()
    written = [event.event for event in events(where) if isinstance(event, Decision)]
    assert written == [f"{number:032x}" for number in range(10)]


async def test_a_record_that_cannot_be_encoded_is_refused_alone(where: Place) -> None:
    journal = await where.open()
    for bad in (plain_decision("a", model="\ud800"), plain_decision("a", detail="x" * MAX_LINE)):
        with pytest.raises(DependencyFault, match="cannot be encoded"):
            await journal.append(bad)
    await serve(journal, 1)
    await journal.close()
    assert check(where) is Status.INTACT


async def test_after_the_close_everything_is_refused(where: Place) -> None:
    journal = await where.open()
    await journal.close()
    await journal.close()
    assert "closed" in await refused(journal)


# ── files, keys, lifecycle ──────────────────────────────────────────────────────────────────────────────────────────


async def test_files_are_private(where: Place) -> None:
    journal = await where.open()
    await serve(journal, 1)
    assert stat.S_IMODE(where.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in where.directory.iterdir()} == {0o600}
    await journal.close()


async def test_a_directory_that_others_can_read_is_refused(where: Place) -> None:
    where.directory.mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        await where.open()


@pytest.mark.parametrize("content", [b"nonsense\n", b'{"v":1}\n'])
async def test_a_damaged_anchor_log_stops_the_start(where: Place, content: bytes) -> None:
    await (await where.open()).close()
    (where.directory / ANCHOR_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match="hip audit verify"):
        await where.open()


async def test_a_directory_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file")
    with pytest.raises(ConfigError):
        await place(tmp_path).open()


async def test_the_life_of_a_stream_is_on_record(where: Place) -> None:
    first = await where.open()
    await serve(first, 2)
    await crash(first, torn=b'{"v"')
    second = await where.open()
    await second.close()
    kinds = [type(event) for event in events(where)]
    assert kinds.count(Start) == 2
    assert kinds.count(Stop) == 1
    (found,) = [event for event in events(where) if isinstance(event, Recovered)]
    assert (found.torn_bytes, found.size) == (4, first._writer.stream.size)
    assert check(where) is Status.INTACT


async def test_a_living_worker_is_not_taken_for_dead(where: Place) -> None:
    workers = [await where.open() for _ in range(3)]
    for worker in workers:
        await serve(worker, 2)
    assert not [event for event in events(where) if isinstance(event, Recovered)]
    for worker in workers:
        await worker.close()
    assert check(where) is Status.INTACT
    assert len(segments(where.directory)) == 3


async def test_rotation_by_size_gives_every_file_its_own_key(where: Place) -> None:
    journal = await where.open()
    await serve(journal, 30)
    await journal.close()
    heads = [event for event in events(where) if isinstance(event, Segment)]
    assert [event.index for event in heads] == list(range(len(heads)))
    assert len(heads) > 2
    assert len({event.certificate for event in heads}) == len(heads)


@pytest.mark.parametrize("step", [-7 * 86_400, 7 * 86_400])
async def test_a_clock_that_steps_starts_a_new_segment_and_no_alarm(where: Place, step: float) -> None:
    clock = ManualClock()
    journal = await where.open(clock=clock)
    await serve(journal, 1)
    clock.seconds += step
    await serve(journal, 1)
    await journal.close()
    assert check(where) is Status.INTACT
    assert sum(isinstance(event, Segment) for event in events(where)) > 1


async def test_an_idle_journal_shows_that_it_lives(where: Place) -> None:
    clock = ManualClock()
    journal = await where.open(clock=clock)
    before = journal.status().records
    clock.go(QUICK.heartbeat_seconds + 0.01)
    while journal.status().records == before:
        await asyncio.sleep(0.005)
    await journal.close()
    assert check(where) is Status.INTACT


async def test_heads_go_to_a_second_place_and_its_loss_stops_nothing(where: Place, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere.jsonl"
    journal = await where.open(second_place=SecondPlace(FilePlace(other)))
    await serve(journal, 1)
    await journal.close()
    assert other.read_bytes() == (where.directory / ANCHOR_FILE).read_bytes()
    lost = await where.open(second_place=SecondPlace(FilePlace(tmp_path / "missing" / "heads.jsonl")))
    while "missing" not in lost.status().second_place_error:
        await asyncio.sleep(0.005)
    await serve(lost, 1)
    await lost.close()
    assert check(where) is Status.INTACT


# ── the disk fails ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("short", [False, True])
async def test_a_failed_write_refuses_until_a_new_stream_could_be_started(where: Place, code: int, short: bool) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk)
    told = await serve(journal, 2)
    disk.write_error, disk.short = code, short
    assert errno.errorcode[code] in await refused(journal)
    assert errno.errorcode[code] in await refused(journal)
    assert journal.status().state is State.FAILED
    disk.write_error = 0
    await until(journal, State.OK)
    told += await serve(journal, 2)
    await journal.close()
    written = [event.event for event in events(where) if isinstance(event, Decision)]
    assert set(told) <= set(written)
    (gap,) = [event for event in events(where) if isinstance(event, Gap)]
    assert errno.errorcode[code] in gap.cause
    assert gap.refused == 2
    assert check(where) is Status.INTACT


async def test_a_failed_sync_is_never_repeated_on_the_same_file(where: Place) -> None:
    """After one failed fdatasync the kernel may have dropped the pages: a second one would lie."""
    disk = FaultyDisk()
    journal = await where.open(disk=disk, durability=Durability.SYNC)
    disk.sync_error = errno.EIO
    assert "EIO" in await refused(journal)
    stream = journal.status().stream
    disk.sync_error = 0
    await until(journal, State.OK)
    assert journal.status().stream != stream
    await serve(journal, 1)
    await journal.close()
    assert check(where) is Status.INTACT


async def test_a_full_device_behind_a_real_descriptor(where: Place) -> None:
    """/dev/full in the place of the file: the kernel's own ENOSPC."""
    journal = await where.open()
    await serve(journal, 1)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._writer.stream._fd)
    os.close(full)
    assert "ENOSPC" in await refused(journal)
    await until(journal, State.OK)
    await serve(journal, 1)
    await journal.close()
    assert check(where) is Status.INTACT


async def test_every_waiter_of_a_failed_write_is_refused(where: Place) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk)
    disk.write_error = errno.EIO
    tasks = [journal.append(plain_decision(f"{number:032x}")) for number in range(10)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {DependencyFault}
    disk.write_error = 0
    await journal.close()


async def test_low_space_refuses_while_it_lasts(where: Place) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk, limits=replace(QUICK, deny_free=0.05, warn_free=0.20))
    disk.free_share = 0.1
    while not journal.status().disk_warning:
        await asyncio.sleep(0.005)
    await serve(journal, 1)
    disk.free_share = 0.01
    await until(journal, State.DISK_LOW)
    assert "1.0% of the file system" in await refused(journal)
    disk.free_share = 0.5
    await until(journal, State.OK)
    await serve(journal, 1)
    await journal.close()
    assert [event.refused for event in events(where) if isinstance(event, Gap)] == [1]
    assert check(where) is Status.INTACT


async def test_the_reserve_is_enough_for_an_orderly_end(where: Place) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk, limits=replace(QUICK, deny_free=0.05))
    disk.free_share = 0.01
    await until(journal, State.DISK_LOW)
    await journal.close()
    assert check(where) is Status.INTACT


@pytest.mark.parametrize("durability", [Durability.GROUP, Durability.SYNC])
async def test_a_sync_that_hangs_refuses_and_shows(where: Place, durability: Durability) -> None:
    disk = FaultyDisk()
    journal = await where.open(disk=disk, durability=durability, limits=IMPATIENT)
    disk.hang.clear()
    await until(journal, State.STUCK)
    assert "does not return" in await refused(journal)
    disk.hang.set()
    await until(journal, State.OK)
    await serve(journal, 1)
    await journal.close()
    assert check(where) is Status.INTACT


def test_a_write_that_hangs_shows_from_outside(where: Place) -> None:
    """A full pipe in the place of the file: the loop hangs in write(), and the state is still visible."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(65_536))
    except BlockingIOError:
        os.set_blocking(writer, True)
    opened: list[Journal] = []
    ready, results = threading.Event(), []

    async def hang() -> None:
        journal = await where.open(limits=replace(IMPATIENT, tick_seconds=60, sync_seconds=60))
        opened.append(journal)
        os.dup2(writer, journal._writer.stream._fd)
        ready.set()
        results.append(await journal.append(plain_decision("a" * 32)))
        await crash(journal)

    thread = threading.Thread(target=asyncio.run, args=(hang(),))
    thread.start()
    ready.wait()
    while opened[0].status().state is not State.STUCK:
        pass
    assert not results
    while thread.is_alive():  # drain: now the write returns
        os.read(reader, 65_536) if results == [] else None
        thread.join(0.01)
    os.close(reader)
    os.close(writer)
    assert len(results) == 1


@pytest.mark.parametrize("failure", list(Failure))
async def test_a_fault_in_the_background_work_fails_closed(where: Place, failure: Failure) -> None:
    class Broken(FaultyDisk):
        def free(self, directory: Path) -> float:
            raise RuntimeError("a bug")

    journal = await where.open(disk=Broken(), failure=failure)
    await until(journal, State.FAILED)
    assert "background" in await refused(journal)
    await journal.close()


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    first = ensure_keys(tmp_path / "deep" / "keys")
    again = ensure_keys(tmp_path / "deep" / "keys")
    assert (first.public, first.pseudonym_secret) == (again.public, again.pseudonym_secret)
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep" / "keys").iterdir()} == {0o600}
    assert (tmp_path / "deep" / "keys" / "audit.pub").read_text() == first.public + "\n"


def test_two_workers_that_start_together_share_the_keys(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(ensure_keys(tmp_path / "k").public)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def _chmod(path: Path) -> None:
    path.chmod(0o644)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("audit-signing.pem", _chmod),
        ("audit-signing.pem", _empty),
        ("audit-signing.pem", _remove),
        ("audit-pseudonym.hex", _chmod),
        ("audit-pseudonym.hex", _empty),
        ("audit.pub", _empty),
    ],
)
def test_keys_that_cannot_be_trusted_stop_the_start(tmp_path: Path, name: str, damage: Any) -> None:
    ensure_keys(tmp_path / "keys")
    damage(tmp_path / "keys" / name)
    with pytest.raises(ConfigError):
        ensure_keys(tmp_path / "keys")
