"""Query sequences behind their port, in this process's memory: one watch for each detector file, kept over reloads.

A large batch is looked through a slice at a time, so that other requests are served in between. Not guaranteed: what
another worker sees: where there are several, `proxy.adapters.valkey_sequences` stands here.
"""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from proxy.detection.sequence import SequenceWatch
from proxy.exchange import SequenceFinding, SequenceUse, Sightings

SLICE_ROWS = 256  # looked through before it is somebody else's turn: about 5 ms


class MemorySequences:
    """Implements `proxy.ports.Sequences`."""

    def __init__(self) -> None:
        self._watches: dict[str, SequenceWatch] = {}
        self._forgotten = 0  # clients that the watches that are gone had forgotten

    def retain(self, detectors: Collection[str]) -> None:
        """Keep what was seen by the detectors of these digests, and nothing else."""
        for digest in self._watches.keys() - set(detectors):
            self._forgotten += self._watches.pop(digest).evicted

    @property
    def forgotten(self) -> int:
        """How many clients were forgotten for lack of room."""
        return self._forgotten + sum(watch.evicted for watch in self._watches.values())

    async def observe(
        self, account: str, detector: str, sightings: Sightings, use: SequenceUse, now: float
    ) -> SequenceFinding | None:
        """Take note of a request's rows, and say what the caller's rows show."""
        watch = self._watches.get(detector)
        if watch is None:
            watch = self._watches[detector] = SequenceWatch(sightings.tau)
        found: SequenceFinding | None = None
        for at in range(0, len(sightings.identities), SLICE_ROWS):
            if at:
                await asyncio.sleep(0)
            finding = watch.observe(account, sightings.part(at, at + SLICE_ROWS), use, now)
            if finding is not None and (found is None or use.rung(finding).height > use.rung(found).height):
                found = replace(finding, row=at + finding.row)
        return found
