"""Asks the golden inputs: at the start, on schedule, and after each change of the policy.

A probe goes to the model server directly, past budgets, detectors and output hardening, as nobody's request; every one
is in the journal. A quarantine begins with an answer that is not the baseline's, and ends with one that is, or with a
policy that names another baseline: somebody put the model back, or said that the new one is right.

Not guaranteed: the moment between a replacement and the next probe. A model that cannot be asked is `failed`, not
`changed`: who can take a model server away must not be able to put it into quarantine, too. Each worker asks for
itself.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from proxy.adapters.metrics import Metrics
from proxy.admin import Check, Health
from proxy.detection.golden import Golden, compare, metadata_digest, outputs
from proxy.errors import DependencyFault, RequestError, UpstreamFault
from proxy.exchange import Headers, Outbound, Upstream
from proxy.gateway import Snapshot
from proxy.policy.model import Probe
from proxy.ports import Clock, Trail, UpstreamClient
from proxy.record import Probed

HEADERS: Headers = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"identity"),
)

_log = logging.getLogger("hip.probes")


@dataclass(slots=True)
class _State:
    """A probe of the policy, and what its last asking came to."""

    probe: Probe
    due: float  # on the monotonic clock
    changed: bool = False
    check: Check | None = None  # None: not asked yet


class Probing:
    """The probes of the policy that stands."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], upstreams: UpstreamClient, trail: Trail, metrics: Metrics, clock: Clock
    ) -> None:
        self._snapshot = snapshot
        self._upstreams = upstreams
        self._trail = trail
        self._metrics = metrics
        self._clock = clock
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
        self._close()
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

    def checks(self) -> Iterator[tuple[str, Check]]:
        """Yield what an operator should know of each probe."""
        for state in self._states.values():
            if state.check is not None:
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
        try:
            event = await self._compared(probe, golden)
        except RequestError as error:
            detail = f"{error.reason}: {error.detail}" if error.detail else str(error.reason)
            event = _event(probe, "failed", detail, quarantined=probe.model in self.quarantined)
        if state is not self._states.get((probe.name, probe.sha256)):
            return
        if event.outcome != "failed":
            state.changed = event.outcome == "changed"
        health = Health.OK if event.outcome == "same" else Health.WARNING
        state.check = Check(health, event.detail or "answers as its baseline says")
        self._close()
        self._metrics.probed(probe.name, event.outcome, changed=state.changed)
        if event.outcome != "same":
            _log.warning("probe %s of %s: %s: %s", probe.name, probe.model, event.outcome, event.detail)
        try:
            await self._trail.append(event)
        except DependencyFault as error:  # the journal says so itself, and nothing is served until it can
            _log.error("a probe is not in the journal: %s", error.detail)

    async def _compared(self, probe: Probe, golden: Golden) -> Probed:
        metadata = metadata_digest(await self._sent(probe.upstream, Outbound("GET", golden.model, HEADERS[1:], b"")))
        begun = self._clock.monotonic()
        body = golden.request.encode()
        answer = await self._sent(probe.upstream, Outbound("POST", f"{golden.model}/infer", HEADERS, body))
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

    def _close(self) -> None:
        """Close the models whose probes say so, and open the others. The set is the gateway's, too: never another."""
        closed = {state.probe.model for state in self._states.values() if state.changed and state.probe.quarantine}
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
