"""Query sequences behind their port."""

import asyncio

import numpy as np

from proxy.adapters.sequences import SLICE_ROWS, MemorySequences
from proxy.detection.sequence import MAX_CLIENTS, identities
from proxy.exchange import Mode, Pattern, SequenceUse, Sightings, Suspicion
from proxy.ports import Sequences

RUNGS = dict.fromkeys(Pattern, (Suspicion.LABEL, Suspicion.REFUSE))
USE = SequenceUse(Mode.ENFORCE, near=True, decay=60.0, rungs=RUNGS)


def seen(*places: float) -> Sightings:
    rows = np.zeros((len(places), 64), np.float32)
    rows[:, 0] = places
    return Sightings(identities(rows), rows, np.zeros(len(rows), np.bool_), 1.0)


async def test_each_detector_has_its_own_memory_and_keeps_it_over_reloads() -> None:
    sequences = MemorySequences()
    port: Sequences = sequences
    assert await port.observe("a", "first", seen(0, 0.5, 1), USE, 0.0) is None
    assert await port.observe("a", "second", seen(1.5), USE, 0.0) is None
    sequences.retain({"first"})
    assert await port.observe("a", "first", seen(1.5), USE, 0.0) is not None
    assert await port.observe("a", "second", seen(1.5, 2, 2.5), USE, 0.0) is None


async def test_a_finding_in_a_large_batch_names_its_row() -> None:
    rows = np.arange(3.0 * SLICE_ROWS) * 10
    near = SLICE_ROWS + 7
    rows[near : near + 4] = rows[near] + np.arange(4) * 0.5
    finding = await MemorySequences().observe("a", "d", seen(*rows), USE, 0.0)
    assert finding is not None
    assert (finding.row, finding.pattern) == (near + 3, Pattern.NEAR_DUPLICATES)


async def test_others_are_served_while_a_large_batch_is_looked_through() -> None:
    sequences, order = MemorySequences(), []

    async def ask(name: str, count: int) -> None:
        await sequences.observe(name, "d", seen(*np.arange(count) * 10.0), USE, 0.0)
        order.append(name)

    await asyncio.gather(ask("large", 4 * SLICE_ROWS), ask("small", 1))
    assert order == ["small", "large"]


async def test_forgotten_callers_are_counted_also_when_their_detector_goes() -> None:
    sequences = MemorySequences()
    for number in range(MAX_CLIENTS + 3):
        await sequences.observe(str(number), "d", seen(0), USE, 0.0)
    assert sequences.forgotten == 3
    sequences.retain(())
    assert sequences.forgotten == 3
