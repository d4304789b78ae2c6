"""What a supervisor counts of its workers, for Prometheus: who serves, who was started, who ended without being asked.

A worker counts for itself and forgets with itself; this does not, as long as the supervisor lives.
"""

from collections.abc import Collection
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest

Cause = Literal["exit", "signal", "hung", "start"]  # by itself; killed; silent, and killed by us; it never served


class WorkerMetrics:
    """The counters of workers 1 to `workers`. Every series is there from the beginning, so that the first end shows."""

    def __init__(self, workers: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as for the workers' own
        self._registry = registry = CollectorRegistry()
        self._numbers = range(1, workers + 1)
        self._up = Gauge("hip_worker_up", "1 while the worker serves.", ("worker",), registry=registry)
        self._starts = Counter("hip_worker_starts", "Processes that came to serve.", ("worker",), registry=registry)
        self._ends = Counter(
            "hip_worker_ends",
            "Processes that ended without being asked, or never served.",
            ("worker", "cause"),
            registry=registry,
        )
        for number in self._numbers:
            self._starts.labels(number)
            for cause in get_args(Cause):
                self._ends.labels(number, cause)

    def started(self, worker: int) -> None:
        """Count a process that serves."""
        self._starts.labels(worker).inc()

    def ended(self, worker: int, cause: Cause) -> None:
        """Count a process that serves no more, or never has."""
        self._ends.labels(worker, cause).inc()

    def exposition(self, serving: Collection[int]) -> bytes:
        """Return the page, given who serves now."""
        for number in self._numbers:
            self._up.labels(number).set(number in serving)
        return generate_latest(self._registry)
