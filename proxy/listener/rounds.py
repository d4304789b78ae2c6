"""Rounds: requests that arrive while others are worked on begin together, and take each step one after the other.

What a step needs, its code above all, lies in the processor's caches for whoever takes the same step next, and is gone
when a whole request has passed in between: in rounds a request costs a quarter less where there are many
(docs/performance.md, ADR 0016). A request that is alone begins at once.

Not promised: that a round stays together. Nobody waits for a request that waits for the world, its upstream or the
rest of its body: the next round begins after so many turns of the event loop, whatever becomes of the last.
"""

import asyncio
from collections.abc import Callable

TURNS = 16  # of the event loop from one round to the next: about what a request takes that nothing keeps waiting
WIDTH = 32  # requests in a round: what more of them have in hand would push each other out of the caches


class Rounds:
    """Of one listener, in one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Callable[[], None]] = []
        self.streams: set[object] = set()  # connections whose answer is one: under way for long, and seldom at work

    def begin(self, request: Callable[[], None], *, under_way: int) -> None:
        """Call it when the next round begins; at once where no others, `streams` apart, are under way."""
        others = under_way - len(self.streams)
        if self._waiting:
            self._waiting.append(request)
        elif others > 0:
            self._waiting.append(request)
            self._loop.call_soon(self._turn, min(others, TURNS))
        else:
            request()

    def hurry(self) -> None:
        """Begin with all who wait, now: the listener is about to end."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            request()

    def _turn(self, left: int) -> None:
        if left > 1:
            self._loop.call_soon(self._turn, left - 1)
            return
        round_, self._waiting = self._waiting[:WIDTH], self._waiting[WIDTH:]
        if self._waiting:
            self._loop.call_soon(self._turn, TURNS)
        for request in round_:
            request()
