"""Query sequences in a shared store: a caller is one caller on every worker and replica, and after a restart.

One round trip for a request of up to SLICE_ROWS rows: a script appends its rows to the caller's record and to
everybody's, and returns those that this worker has not heard of. A key is a digest: no subject's name stands in the
store. The store keeps MAX_CLIENTS callers a detector for as long as their rows count, about 0.1 MB each when their
windows are full, and forgets the least recent.

Fail closed: what the store cannot do is `SEQUENCES_UNAVAILABLE`. A script that was not answered may have run; its rows
are news the next time. Why: docs/adr/0010-shared-sequences.md. Needs the extra `[redis]`.
"""

import hashlib
import struct
from collections.abc import Collection
from dataclasses import replace
from importlib import resources

import numpy as np

from proxy.adapters.sequences import SLICE_ROWS
from proxy.adapters.valkey import Script, Store, StoreUnavailable
from proxy.adapters.valkey_ledger import SERVER_CLOCK
from proxy.detection.facts import SKETCH
from proxy.detection.sequence import MAX_CLIENTS, NEAR_WINDOW, SHARED_WINDOW
from proxy.detection.shared_sequence import ROW, SHARED_ROW, STRANGE, Caller, News, SharedWatch, Told
from proxy.errors import DependencyFault
from proxy.exchange import SequenceFinding, SequenceUse, Sightings
from proxy.reasons import Reason

_ASKED = np.dtype([("flags", "u1"), ("identity", "<u8"), ("sketch", "<f4", SKETCH)])
_QUESTION = struct.Struct("<32sddddddddd")
_HEAD = struct.Struct("<dddddddd")


class ValkeySequences:
    """`proxy.ports.Sequences` on a shared store. `clock` is the line of Lua that sets `now`; tests bring their own."""

    def __init__(self, store: Store, clock: str = SERVER_CLOCK, *, callers: int = MAX_CLIENTS) -> None:
        self._store = store
        self._callers = callers
        body = resources.files(__package__).joinpath("valkey_sequences.lua").read_text(encoding="utf-8")
        self._script = Script.of(clock + body)
        self._watches: dict[str, SharedWatch] = {}
        self.forgotten = 0  # callers that the store forgot for lack of room when this worker asked

    def retain(self, detectors: Collection[str]) -> None:
        """Keep what was seen by the detectors of these digests; the store forgets the others' by itself."""
        for digest in self._watches.keys() - set(detectors):
            del self._watches[digest]

    async def observe(
        self, account: str, detector: str, sightings: Sightings, use: SequenceUse, now: float
    ) -> SequenceFinding | None:
        """Take note of a request's rows, and say what the caller's rows show."""
        del now  # the store's clock counts: replicas have several
        watch = self._watches.get(detector)
        if watch is None:
            watch = self._watches[detector] = SharedWatch(sightings.tau)
        name = hashlib.blake2b(account.encode(), digest_size=16).hexdigest()
        key = f"hip:sequence:{{{detector[:32]}}}"
        found: SequenceFinding | None = None
        for at in range(0, len(sightings.identities), SLICE_ROWS):
            part, caller = sightings.part(at, at + SLICE_ROWS), watch.caller(account)
            reply = await self._run(key, self._question(name, caller, watch, part, use))
            told = self._told(reply, len(part.identities))
            finding = watch.fold(caller, part, told, use)
            if finding is not None and (found is None or use.rung(finding).height > use.rung(found).height):
                found = replace(finding, row=at + finding.row)
        return found

    async def _run(self, key: str, question: bytes) -> bytes:
        try:
            return await self._store.run(self._script, key, question)
        except StoreUnavailable as error:
            raise DependencyFault(Reason.SEQUENCES_UNAVAILABLE, f"shared store: {error}") from error

    def _question(self, name: str, caller: Caller, watch: SharedWatch, part: Sightings, use: SequenceUse) -> bytes:
        rows = np.empty(len(part.identities), _ASKED)
        rows["flags"] = np.where(part.suspicious, STRANGE, 0)
        rows["identity"], rows["sketch"] = part.identities, part.sketches
        own, everybody = caller.cursor, watch.cursor
        known = (own.born, own.count, everybody.born, everybody.count)
        limits = (NEAR_WINDOW, SHARED_WINDOW, self._callers, max(1.0, use.decay * 1000))
        return _QUESTION.pack(name.encode(), *known, *limits, float(use.near)) + rows.tobytes()

    def _told(self, reply: bytes, asked: int) -> Told:
        try:
            now, forgotten, born, first, rows, all_born, all_first, all_rows = _HEAD.unpack_from(reply)
            taken = np.frombuffer(reply, np.uint8, asked, _HEAD.size)
            at = _HEAD.size + asked
            own = np.frombuffer(reply[at : at + ROW.itemsize * int(rows)], ROW)
            everybody = np.frombuffer(reply[at + own.nbytes :], SHARED_ROW)
        except (struct.error, ValueError, OverflowError) as error:
            raise _foreign() from error
        if (len(own), len(everybody)) != (rows, all_rows):
            raise _foreign()
        self.forgotten += int(forgotten)
        return Told(now, News(born, int(first), own), News(all_born, int(all_first), everybody), taken)


def _foreign() -> DependencyFault:
    return DependencyFault(Reason.SEQUENCES_UNAVAILABLE, "shared store: a reply that is not our script's")
