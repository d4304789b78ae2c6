"""Records a thinned sample of the inputs of those models whose policy says `record_inputs`, for `hip detector fit`.

An observer: it hears of a request when its completion is on record, keeps at most a few rows a minute in memory, and
writes them, sealed to the policy's public key, from a thread. Only what was answered is kept, and nothing of which the
answer was made coarser: an enforced detector does not learn from what it suspects. Every file is on record in the
journal when it begins, ends and is deleted; what cannot be recorded there is not kept.

Not guaranteed: the rows of the last minute before a crash.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from proxy.adapters.samples import SampleFile, delete
from proxy.admin import Check, Health
from proxy.audit.sealing import Recipient
from proxy.detection.sample import KEEP, MAX_ROW, WINDOW, Reservoir, Row, TooLarge, row_of
from proxy.errors import DependencyFault, Malformed
from proxy.exchange import Exchange, Images, Passed, Texts
from proxy.policy.model import Policy, Recorded
from proxy.ports import Clock, Trail
from proxy.reasons import Reason
from proxy.record import UNRECORDED, InputsRecorded, Position

TICK = 1.0  # seconds between two looks at what is due
LOOK_SECONDS = 600.0  # between two looks at what is too old

_NOWHERE = (None, UNRECORDED)  # where a record stands that is not in the journal

_log = logging.getLogger("hip.recording")


@dataclass(slots=True)
class _Sample:
    """One model's rows in memory, and the file that takes them. `tags` names callers, as long as the file is open."""

    model: str
    terms: Recorded
    due: float  # monotonic
    reservoir: Reservoir
    file: SampleFile | None = None
    tags: bytes = field(default_factory=lambda: secrets.token_bytes(16))


class Recording:
    """An `Observer`, and the files behind it. `counts`: recorded, thinned, unreadable, too_large, lost."""

    def __init__(self, directory: Path, at_most: int, policy: Callable[[], Policy], trail: Trail, clock: Clock) -> None:
        self._directory = directory
        self._at_most = at_most
        self._policy = policy
        self._trail = trail
        self._clock = clock
        self._samples: dict[str, _Sample] = {}
        self._retired: list[_Sample] = []
        self._looked = float("-inf")
        self.counts: Counter[str] = Counter()
        self.error = ""  # why inputs are not recorded
        self.stays = ""  # why old files are not deleted

    def policy_changed(self) -> None:
        """Record what the policy that stands says. Who is no longer recorded gets its file ended."""
        before, self._samples = self._samples, {}
        for name, model in self._policy().models.items():
            if model.recorded is None:
                continue
            known = before.pop(name, None)
            if known is not None and known.terms == model.recorded:
                self._samples[name] = known
                continue
            if known is not None:
                self._retired.append(known)
            due = self._clock.monotonic() + WINDOW
            self._samples[name] = _Sample(name, model.recorded, due, Reservoir(model.recorded.rows_per_minute))
        self._retired += before.values()
        self._looked = float("-inf")

    # ── beside the request ──────────────────────────────────────────────────────────────────────────────────────

    def finished(self, exchange: Exchange, decision: Position | None, completion: Position | None) -> None:
        """Keep a row of the request, if chance says so."""
        target = exchange.target
        sample = self._samples.get(target.model or "") if target is not None else None
        if sample is None or decision in _NOWHERE or completion in _NOWHERE:
            return
        if exchange.status != 200 or exchange.reason is not Reason.ALLOWED:
            return
        if not isinstance(exchange.verdict, Passed) or exchange.query is None or exchange.query.features is None:
            return
        place = sample.reservoir.place(secrets.randbelow)
        if place is None:
            self.counts["thinned"] += 1
            return
        try:
            self._keep(sample, place, exchange)
        except TooLarge:
            self.counts["too_large"] += 1
        except Malformed:
            self.counts["unreadable"] += 1
        except Exception as error:  # noqa: BLE001 - a bug here must not cost a caller its answer
            self.counts["unreadable"] += 1
            _log.error("an input was not recorded: %s", type(error).__name__)

    def _keep(self, sample: _Sample, place: int, exchange: Exchange) -> None:
        query, principal = exchange.query, exchange.principal
        if query is None or query.features is None or principal is None:
            return
        if isinstance(query.features, (Texts, Images)) and len(query.body) + len(query.behind) > MAX_ROW:
            raise TooLarge
        account = principal.account.encode("utf-8", "surrogatepass")
        tag = blake2b(account, digest_size=8, key=sample.tags).hexdigest()
        row = row_of(query.features, int(exchange.started), tag, secrets.randbelow)
        if not sample.reservoir.put(place, row):
            raise TooLarge

    # ── in the background ───────────────────────────────────────────────────────────────────────────────────────

    async def follow(self, stop: asyncio.Event) -> None:
        """Write what is due, and delete what is old, until `stop`."""
        while not stop.is_set():
            now = self._clock.monotonic()
            for sample in [one for one in self._samples.values() if one.due <= now]:
                sample.due = now + WINDOW
                await self._flush(sample)
            await self._retire()
            if now - self._looked >= LOOK_SECONDS:
                self._looked = now
                await self._delete()
            try:
                await asyncio.wait_for(stop.wait(), TICK)
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Write what is left, and end every file."""
        self._retired += self._samples.values()
        self._samples = {}
        await self._retire()

    async def _retire(self) -> None:
        while self._retired:
            sample = self._retired.pop()
            await self._flush(sample)
            await self._end(sample)

    async def _flush(self, sample: _Sample) -> None:
        """Write the rows of a window. A disk or a journal that fails costs these rows, and nothing else."""
        if sample.file is not None and await asyncio.to_thread(sample.file.taken_away):
            await self._end(sample)  # what is written there now is lost
        file, now = sample.file, self._clock.now()
        full = file is not None and await asyncio.to_thread(file.full, now, sample.terms.keep, self._at_most)
        rows = sample.reservoir.take()
        if rows and file is None:
            file = SampleFile(self._directory, sample.model, Recipient(sample.terms.encrypt_to), now)
            if await self._tell(sample, file.name, "begun"):
                sample.file = file
            else:
                self._lost(rows, "the journal cannot say that a file was begun")
                return
        if rows and file is not None:
            try:
                await asyncio.to_thread(file.write, rows)
            except OSError as exc:
                self._lost(rows, exc.strerror or type(exc).__name__)
                full = True  # half a frame may stand there: nothing may come after it
            else:
                self.counts["recorded"] += len(rows)
                self.error = ""
        if full:
            await self._end(sample)

    async def _end(self, sample: _Sample) -> None:
        file, sample.file = sample.file, None
        sample.tags = secrets.token_bytes(16)
        if file is not None:
            file.close()
            await self._tell(sample, file.name, "ended", file.rows)

    async def _delete(self) -> None:
        keep = {name: model.recorded.keep for name, model in self._policy().models.items() if model.recorded}
        now = self._clock.now()
        try:
            gone, stays = await asyncio.to_thread(delete, self._directory, now, keep, KEEP, self._at_most)
        except OSError as exc:
            gone, stays = [], exc.strerror or type(exc).__name__
        self.stays = f"old files stay: {stays}" if stays else ""
        if stays:
            _log.error("recorded inputs cannot be deleted: %s", stays)
        for one in gone:
            await self._record(InputsRecorded(effect="deleted", model=one.model, file=one.path.stem))

    def _lost(self, rows: list[Row], why: str) -> None:
        self.counts["lost"] += len(rows)
        self.error = f"inputs are not recorded: {why}"
        _log.error("%d inputs were not recorded: %s", len(rows), why)

    async def _tell(self, sample: _Sample, file: str, effect: Literal["begun", "ended"], rows: int = 0) -> bool:
        recipient = sample.terms.recipient
        return await self._record(
            InputsRecorded(effect=effect, model=sample.model, file=file, recipient=recipient, rows=rows)
        )

    async def _record(self, event: InputsRecorded) -> bool:
        try:
            position = await self._trail.append(event)
        except DependencyFault as error:  # the journal says so itself
            _log.error("a file of recorded inputs is not in the journal: %s", error.detail)
            return False
        return position is not UNRECORDED

    def checks(self) -> Iterator[tuple[str, Check]]:
        """Yield what an operator should know."""
        if self.error or self.stays:
            yield "recording", Check(Health.WARNING, self.error or self.stays)
        elif self._samples:
            yield "recording", Check(Health.OK, f"inputs of {', '.join(sorted(self._samples))}, encrypted")

    def outcomes(self) -> Mapping[str, int]:
        """Return how many inputs were recorded or not, by outcome."""
        return self.counts
