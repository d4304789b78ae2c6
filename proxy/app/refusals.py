"""What the listener refuses, on record: each message has its one record, a flood has one a second with its number.

A refusal for want of room costs its caller nothing, and so must not cost us a record each: the first one is written at
once, those of the next second are counted, and the number stands in the next record. The metric counts every one.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from proxy.adapters.metrics import Metrics
from proxy.audit.describe import refused_message
from proxy.audit.pseudonym import Pseudonyms
from proxy.errors import DependencyFault
from proxy.exchange import Peer
from proxy.gateway import Snapshot
from proxy.listener import Refused
from proxy.ports import Clock, Trail
from proxy.reasons import Reason

FLOOD_SECONDS = 1.0  # between two records of refusals for want of room
MAX_WAITING = 1_024  # records that wait for the journal; what comes on top is counted like a flood

_log = logging.getLogger("hip")


class Refusals:
    """Takes note of every refusal; never waits, never raises."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        trail: Trail,
        metrics: Metrics,
        pseudonyms: Pseudonyms,
        clock: Clock,
    ) -> None:
        self._snapshot = snapshot
        self._trail = trail
        self._metrics = metrics
        self._pseudonyms = pseudonyms
        self._clock = clock
        self._waiting: set[asyncio.Task[None]] = set()
        self._last: tuple[Refused, Peer] | None = None  # of the flood, and counted only
        self._counted = 0
        self._recorded_at = float("-inf")

    def refused(self, refused: Refused, peer: Peer) -> None:
        """Leave the one record of a refusal, or count it into the next one."""
        self._metrics.message_refused(refused.reason)
        now = self._clock.monotonic()
        flood = refused.reason is Reason.OVERLOADED and now - self._recorded_at < FLOOD_SECONDS
        if flood or len(self._waiting) >= MAX_WAITING:
            self._last, self._counted = (refused, peer), self._counted + 1
            return
        if refused.reason is Reason.OVERLOADED:
            self._recorded_at = now
        self._begin(refused, peer)

    async def settle(self) -> None:
        """Return when everything is on record."""
        if self._last is not None:
            refused, peer = self._last
            self._counted -= 1
            self._begin(refused, peer)
        if self._waiting:
            await asyncio.wait(self._waiting)

    def _begin(self, refused: Refused, peer: Peer) -> None:
        if self._counted:
            refused = replace(refused, detail=f"{refused.detail}; {self._counted} refusals before it only counted")
        self._last, self._counted = None, 0
        task = asyncio.get_running_loop().create_task(self._record(refused, peer))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _record(self, refused: Refused, peer: Peer) -> None:
        policy = self._snapshot().policy.digest
        event = refused_message(
            refused.incident, refused.reason, refused.status, refused.detail, peer, policy, self._pseudonyms
        )
        try:
            await self._trail.append(event)
        except DependencyFault as error:  # nothing was forwarded, and the journal counts what it refused
            _log.error("a refused message is not in the journal: %s", error.detail)
