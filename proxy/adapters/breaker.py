"""The circuit breaker of one upstream: who is down is not asked by everybody.

Decides whether a request may try. After `FAILURES` requests in a row that found nobody or no answer in time, nobody
tries for `OPEN_SECONDS`; then one request at a time does, until one is answered. Any answer counts, an error too: what
it means is for others to judge. Single-threaded, no timer, no clock of its own.

Not guaranteed: that an upstream that fails every second request is ever left alone.
"""

from collections.abc import Callable

from proxy.errors import Overloaded
from proxy.reasons import Reason

FAILURES = 5  # in a row
OPEN_SECONDS = 5.0


class Breaker:
    """`monotonic` returns seconds that never go back."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failures = 0
        self._closed_at = 0.0  # when somebody may try again
        self._trying = False  # somebody does

    @property
    def open(self) -> bool:
        """Say whether the upstream counts as down."""
        return self._failures >= FAILURES

    @property
    def admits(self) -> bool:
        """Say whether `enter` would let a request try."""
        return not self.open or not (self._trying or self._closed_at > self._monotonic())

    def enter(self) -> None:
        """Let a request try. Raise Overloaded(UPSTREAM_OPEN), with the time to wait, if it may not."""
        if not self.open:
            return
        wait = self._closed_at - self._monotonic()
        if wait > 0 or self._trying:
            detail = f"{self._failures} requests in a row found the upstream down"
            raise Overloaded(Reason.UPSTREAM_OPEN, detail, retry_after=max(1, round(wait)))
        self._trying = True

    def answered(self) -> None:
        """The upstream has said something."""
        self._failures, self._trying = 0, False

    def failed(self) -> None:
        """Nobody was there, or did not answer in time."""
        self._failures += 1
        self._trying = False
        if self.open:
            self._closed_at = self._monotonic() + OPEN_SECONDS

    def left(self) -> None:
        """The request ended before anybody knew: its client went away, or we had no connection to spare."""
        self._trying = False
