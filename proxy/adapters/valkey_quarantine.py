"""What golden probes found, in the shared store: a model that one worker found changed is closed for all of them.

A finding has a mark, anew each time. "As it should be" takes away only the mark that its finder knew before it asked:
an answer from before the change cannot open the model again. Nothing here ends by itself. Needs the extra `[redis]`.
"""

import msgspec

from proxy.adapters.valkey import Script, Store, StoreUnavailable
from proxy.adapters.valkey_ledger import SERVER_CLOCK

_KEY = "hip:quarantine"
# ARGV[1]: nothing, or {probe, the mark that was known, whether it answers otherwise}. Returns {probe, mark, …}.
_SCRIPT = Script.of(
    SERVER_CLOCK
    + """
if ARGV[1] ~= '' then
  local probe, known, changed = unpack(cmsgpack.unpack(ARGV[1]))
  if changed then
    redis.call('HSET', KEYS[1], probe, string.format('%.0f', now))
  elseif known ~= '' and redis.call('HGET', KEYS[1], probe) == known then
    redis.call('HDEL', KEYS[1], probe)
  end
end
return cmsgpack.pack(redis.call('HGETALL', KEYS[1]))
"""
)
_reply = msgspec.msgpack.Decoder(list[str])


class SharedQuarantine:
    """The marks as this worker last read them. A store that is away changes nothing: what was closed stays closed.

    `error` is why they were not read last time; empty when they were.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: dict[str, str] = {}
        self.error = ""

    def mark(self, probe: str) -> str:
        """Return the mark of a probe whose model was found changed, or nothing."""
        return self._marks.get(probe, "")

    async def look(self) -> None:
        """Read what other workers found."""
        await self._run(b"")

    async def tell(self, probe: str, known: str, *, changed: bool) -> bool:
        """Say what a probe found; `known` is its mark from before it asked. Return whether the store has heard it."""
        return await self._run(msgspec.msgpack.encode((probe, known, changed)))

    async def _run(self, argument: bytes) -> bool:
        try:
            words = _reply.decode(await self._store.run(_SCRIPT, _KEY, argument))
        except StoreUnavailable as error:
            self.error = str(error)
            return False
        except msgspec.MsgspecError:
            self.error = f"what the store keeps under {_KEY} is not ours"
            return False
        self.error = ""
        self._marks = dict(zip(words[::2], words[1::2], strict=False))
        return True
