"""The memory of DPoP proofs in the shared store: a proof is used once by all workers and replicas together.

One key a proof, which the store itself forgets. Needs the extra `[redis]`.
"""

from proxy.adapters.valkey import Script, Store, StoreUnavailable
from proxy.errors import DependencyFault
from proxy.ports import Replays
from proxy.reasons import Reason

# Setting and asking in one step: of two workers with the same proof, one is first.
_FIRST = Script.of("if redis.call('SET', KEYS[1], '', 'NX', 'EX', ARGV[1]) then return 'new' else return 'seen' end")


class ValkeyReplays(Replays):
    """A `Replays` on a shared store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def first(self, proof: bytes, seconds: int) -> bool:
        """Remember a proof; say whether it was new. Raise DependencyFault(PROOFS_UNAVAILABLE)."""
        try:
            return await self._store.run(_FIRST, f"hip:proof:{proof.hex()}", b"%d" % seconds) == b"new"
        except StoreUnavailable as error:
            raise DependencyFault(Reason.PROOFS_UNAVAILABLE, str(error)) from error
