"""The memory of DPoP proofs, in this process: for one worker, and bounded.

When it is full of proofs that still count, nobody's proof is taken, because nobody's could be known to be new. Only
proofs of valid tokens get here, so that it takes thousands of requests a second from our own clients to fill it.

Not guaranteed: memory over a restart or between workers; `proxy.adapters.valkey_replay` has the latter.
"""

from typing import Final

from proxy.errors import DependencyFault
from proxy.ports import Clock
from proxy.reasons import Reason

CAPACITY: Final = 131_072  # proofs; about 20 MiB


class MemoryReplays:
    """A `Replays`. Every proof is to be remembered for the same time, so that the oldest is the first to go."""

    def __init__(self, clock: Clock, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._until: dict[bytes, float] = {}  # monotonic seconds, in order

    async def first(self, proof: bytes, seconds: int) -> bool:
        """Remember a proof; say whether it was new. Raise DependencyFault(PROOFS_UNAVAILABLE) when full."""
        now = self._clock.monotonic()
        while self._until and next(iter(self._until.values())) <= now:
            del self._until[next(iter(self._until))]
        if proof in self._until:
            return False
        if len(self._until) >= self._capacity:
            raise DependencyFault(Reason.PROOFS_UNAVAILABLE, f"{self._capacity} proofs in memory, all still good")
        self._until[proof] = now + seconds
        return True
