"""Asks the golden inputs: at the start, on schedule, and after each change of the policy.

A probe goes to the model server directly, past budgets, detectors and output hardening, as nobody's request; every one
is in the journal. Of several replicas each is asked, and the worst answer is the model's. A quarantine begins with an
answer that is not the baseline's, and ends when every server answers as it says, or with a policy that names another
baseline: somebody put the model back, or said that the new one is right.

Not guaranteed: the moment between a replacement and the next probe. A model that cannot be asked is `failed`, not
`changed`: who can take a model server away must not be able to put it into quarantine, too. Each worker asks for
itself; where workers share a store, what one finds changed is closed for all of them LOOK_SECONDS later.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from proxy.adapters.metrics import Metrics
from proxy.admin import Check, Health
from proxy.detection.golden import Golden, compare, metadata_digest, outputs
from proxy.errors import DependencyFault, RequestError, UpstreamFault
from proxy.exchange import Headers, Outbound, Upstream
from proxy.gateway import Snapshot
from proxy.policy.model import Probe
from proxy.ports import Clock, Trail, UpstreamClient
from proxy.record import Probed

if TYPE_CHECKING:
    from proxy.adapters.valkey_quarantine import SharedQuarantine

LOOK_SECONDS = 0.5  # between two looks at what other workers found
HEADERS: Headers = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"identity"),
)

_WORST = ("changed", "failed", "same")

_log = logging.getLogger("hip.probes")


@dataclass(slots=True)
class _State:
    """A probe of the policy, and what its last asking came to."""

    probe: Probe
    due: float  # on the monotonic clock
    changed: bool = False
    check: Check | None = None  # None: not asked yet
    mark: str = ""  # of another worker's finding, or of this one's, in the shared store
    unsaid: str | None = None  # the mark from before it asked, as long as the store has not heard what it found

    @property
    def name(self) -> str:
        """What the store calls it: another server or baseline has another name."""
        words = [self.probe.name, self.probe.model, self.probe.sha256]
        for where in self.probe.upstream.replicas or (self.probe.upstream,):
            words += [where.scheme, where.host, str(where.port), where.base_path]
        return hashlib.blake2b("\0".join(words).encode(), digest_size=20).hexdigest()


class Probing:
    """The probes of the policy that stands."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        upstreams: UpstreamClient,
        trail: Trail,
        metrics: Metrics,
        clock: Clock,
        shared: "SharedQuarantine | None" = None,
    ) -> None:
        self._snapshot = snapshot
        self._upstreams = upstreams
        self._trail = trail
        self._metrics = metrics
        self._clock = clock
        self._shared = shared
        self._states: dict[tuple[str, str], _State] = {}
        self._changed = asyncio.Event()
        self.quarantined: set[str] = set()

    def policy_changed(self) -> None:
        """Ask every probe again, now. What a probe found stays while its baseline does."""
        now, before = self._clock.monotonic(), self._states
        self._states = {}
        for probe in self._snapshot().policy.probes:
            old = before.get((probe.name, probe.sha256))
            state = _State(probe, now, old is not None and old.changed, None if old is None else old.check)
            self._states[probe.name, probe.sha256] = state
        self._read_marks()
        self._changed.set()

    async def follow(self, stop: asyncio.Event) -> None:
        """Ask, until `stop`."""
        while not stop.is_set():
            self._changed.clear()
            for state in list(self._states.values()):
                if state.due <= self._clock.monotonic():
                    await self._ask(state)
            soonest = min((state.due for state in self._states.values()), default=None)
            await self._wait(stop, None if soonest is None else max(0.0, soonest - self._clock.monotonic()))

    async def listen(self, stop: asyncio.Event) -> None:
        """Hear of what other workers find, until `stop`."""
        while self._shared is not None and not stop.is_set():
            if self._states:
                await self._shared.look()
                for state in list(self._states.values()):
                    if state.unsaid is not None:
                        await self._say(state, state.unsaid)
                self._read_marks()
            try:
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    def checks(self) -> Iterator[tuple[str, Check]]:
        """Yield what an operator should know of each probe."""
        if self._states and self._shared is not None and self._shared.error:
            yield "probes", Check(Health.WARNING, f"what other workers find is not heard of: {self._shared.error}")
        for state in self._states.values():
            if state.mark and not state.changed:
                yield f"probe:{state.probe.name}", Check(Health.WARNING, "changed, as another worker found")
            elif state.check is not None:
                yield f"probe:{state.probe.name}", state.check

    async def _wait(self, stop: asyncio.Event, seconds: float | None) -> None:
        waiting = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._changed.wait())]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    async def _ask(self, state: _State) -> None:
        probe = state.probe
        state.due = self._clock.monotonic() + probe.every
        golden = self._snapshot().golden.get(probe.sha256)
        if golden is None:  # the policy changed under way
            return
        known = state.mark
        event = await self._asked(probe, golden)
        if state is not self._states.get((probe.name, probe.sha256)):
            return
        if event.outcome != "failed":
            state.changed = event.outcome == "changed"
            await self._say(state, known)
        health = Health.OK if event.outcome == "same" else Health.WARNING
        state.check = Check(health, event.detail or "answers as its baseline says")
        self._read_marks()
        self._metrics.probed(probe.name, event.outcome, changed=state.changed)
        if event.outcome != "same":
            _log.warning("probe %s of %s: %s: %s", probe.name, probe.model, event.outcome, event.detail)
        try:
            await self._trail.append(event)
        except DependencyFault as error:  # the journal says so itself, and nothing is served until it can
            _log.error("a probe is not in the journal: %s", error.detail)

    async def _say(self, state: _State, known: str) -> None:
        """Tell other workers; what the store does not hear now it hears at the next look."""
        state.unsaid = None
        if self._shared is not None and not await self._shared.tell(state.name, known, changed=state.changed):
            state.unsaid = known

    async def _asked(self, probe: Probe, golden: Golden) -> Probed:
        """Ask every server of the model. One that answers otherwise is enough, and the others do not excuse it."""
        servers = probe.upstream.replicas
        if not servers:
            return await self._one(probe, golden, probe.upstream)
        found = await asyncio.gather(*(self._one(probe, golden, server) for server in servers))
        told = [f"{server.address}: {one.detail}" for server, one in zip(servers, found, strict=True) if one.detail]
        measured = {
            name: max(values)
            for name in ("flips", "shift", "ms")
            if (values := [value for one in found if (value := getattr(one, name)) is not None])
        }
        return replace(min(found, key=lambda one: _WORST.index(one.outcome)), detail="; ".join(told), **measured)

    async def _one(self, probe: Probe, golden: Golden, server: Upstream) -> Probed:
        try:
            return await self._compared(probe, golden, server)
        except RequestError as error:
            detail = f"{error.reason}: {error.detail}" if error.detail else str(error.reason)
            return _event(probe, "failed", detail, quarantined=probe.model in self.quarantined)

    async def _compared(self, probe: Probe, golden: Golden, server: Upstream) -> Probed:
        metadata = metadata_digest(await self._sent(server, Outbound("GET", golden.model, HEADERS[1:], b"")))
        begun = self._clock.monotonic()
        body = golden.request.encode()
        answer = await self._sent(server, Outbound("POST", f"{golden.model}/infer", HEADERS, body))
        seconds = self._clock.monotonic() - begun
        delta = compare(golden, outputs(answer), metadata, seconds)
        beyond = delta.beyond(probe.tolerance)
        return _event(
            probe,
            "changed" if beyond else "same",
            "; ".join(beyond),
            quarantined=bool(beyond) and probe.quarantine,
            flips=delta.flips,
            shift=delta.shift,
            ms=round(seconds * 1e3, 3),
        )

    async def _sent(self, upstream: Upstream, request: Outbound) -> bytes:
        reply = await self._upstreams.send(upstream, request)
        if reply.status != 200:
            raise UpstreamFault(detail=f"{request.method} answered {reply.status}")
        return reply.body

    def _read_marks(self) -> None:
        for state in self._states.values():
            mark = "" if self._shared is None else self._shared.mark(state.name)
            if state.changed and state.mark and not mark:  # another worker found it as it should be: see for ourselves
                state.due = self._clock.monotonic()
                self._changed.set()
            state.mark = mark
        self._close()

    def _close(self) -> None:
        """Close the models whose probes say so, and open the others. The set is the gateway's, too: never another."""
        closed = {
            state.probe.model
            for state in self._states.values()
            if (state.changed or state.mark) and state.probe.quarantine
        }
        self.quarantined.intersection_update(closed)
        self.quarantined.update(closed)
        self._metrics.quarantined(closed)


def _event(
    probe: Probe, outcome: Literal["same", "changed", "failed"], detail: str, *, quarantined: bool, **measured: float
) -> Probed:
    return Probed(
        probe=probe.name,
        model=probe.model,
        baseline=probe.sha256,
        outcome=outcome,
        quarantined=quarantined,
        detail=detail,
        **measured,
    )
