"""Observers of finished exchanges, told when the answer is on its way.

Decides when they are told, not what: `finished` only takes note, and two turns of the event loop later they hear of
all that finished meanwhile, one after the other. So no caller waits for a metric or a span, and what counting and
encoding need in the processor's caches is fetched once for several. A process that is killed takes those two turns
with it; what must not be lost is in the journal before the answer leaves.
"""

import asyncio
import logging
from collections.abc import Sequence

from proxy.exchange import Exchange
from proxy.ports import Observer
from proxy.record import Position

_log = logging.getLogger("hip.observers")


class Afterwards:
    """An `Observer` that stands before others. Use it from one event loop."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._finished: list[tuple[Exchange, Position | None, Position | None]] = []
        self._loop = asyncio.get_running_loop()

    def finished(self, exchange: Exchange, decision: Position | None, completion: Position | None) -> None:
        """Take note. It is held, with its bodies, for as long as an answer takes to be written."""
        if not self._finished:
            self._loop.call_soon(self._soon)
        self._finished.append((exchange, decision, completion))

    def _soon(self) -> None:
        self._loop.call_soon(self.tell)  # not at once: answers that are ready leave first

    def tell(self) -> None:
        """Tell the observers of all that finished so far."""
        told, self._finished = self._finished, []
        for observer in self._observers:
            for exchange, decision, completion in told:
                try:
                    observer.finished(exchange, decision, completion)
                except Exception:  # noqa: BLE001 - it promised not to; the others are told all the same
                    _log.exception("an observer failed")
