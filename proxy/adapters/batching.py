"""Rows of several requests in one run of a detector: those that come in the same turn of the event loop.

A run costs about as much for ten rows as for one, and under load a turn has several requests. Nobody waits for others
to come: the run is made when the turn ends. Requests share the run and nothing else: each gets its own rows' results,
and what is said about them (also that they are no numbers) is said about them alone. Not guaranteed: the last bits of
a result, which may differ with the number of rows that were multiplied together.
"""

import asyncio
from collections.abc import Callable

import numpy as np

from proxy.detection.facts import Floats
from proxy.exchange import Features

Results = tuple[Floats, Floats]  # per row: the statistic; the sketch


class Batching:
    """Gathers rows for `run`; use it from one event loop."""

    def __init__(self, run: Callable[[Features], Results]) -> None:
        self._run = run
        self._waiting: list[tuple[Features, asyncio.Future[Results]]] = []

    async def run(self, rows: Features) -> Results:
        """Return the results of these rows. Raise DependencyFault as `run` does."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._run_all)
        future: asyncio.Future[Results] = loop.create_future()
        self._waiting.append((rows, future))
        return await future

    def _run_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            statistics, sketches = self._run(
                waiting[0][0] if len(waiting) == 1 else np.concatenate([rows for rows, _ in waiting])
            )
        except Exception as fault:  # noqa: BLE001 - whatever it is, whoever waits must hear of it
            for _, future in waiting:
                if not future.done():
                    future.set_exception(fault)
            return
        start = 0
        for rows, future in waiting:
            end = start + len(rows)
            if not future.done():  # cancelled: nobody wants to know any more
                future.set_result((statistics[start:end], sketches[start:end]))
            start = end
