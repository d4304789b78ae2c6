"""What is counted: in this process's memory, or in the store that workers and replicas share."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.adapters.ledger import MemoryLedger
from proxy.adapters.replay import MemoryReplays
from proxy.admin import Check, Health
from proxy.config import State
from proxy.errors import ConfigError, Finding
from proxy.ports import Clock, Ledger, Replays

if TYPE_CHECKING:
    from proxy.adapters.valkey import ValkeyStore

LOOK_SECONDS = 1.0  # between two looks at the store


@dataclass(slots=True)
class Shared:
    """The ledger and the memory of proofs, and how the store under them is."""

    ledger: Ledger
    replays: Replays
    check: Check | None = None  # None: there is no store
    _store: "ValkeyStore | None" = None

    async def look(self) -> None:
        """Ask the store how it is."""
        if self._store is None:
            return
        from proxy.adapters.valkey import StoreUnavailable

        try:
            trouble = await self._store.status()
        except StoreUnavailable as error:
            self.check = Check(Health.FAILED, f"the shared store cannot be used: {error}")
        else:
            self.check = Check(Health.WARNING, trouble) if trouble else Check(Health.OK)

    async def follow(self, stop: asyncio.Event) -> None:
        """Look now and then, until `stop`."""
        while not stop.is_set():
            await self.look()
            try:
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue


async def open_shared(state: State | None, here: Path, clock: Clock, stack: AsyncExitStack) -> Shared:
    """Return what workers share. The store's client is an optional extra, imported only where it is asked for."""
    if state is None:
        return Shared(MemoryLedger(clock), MemoryReplays(clock))
    try:
        from proxy.adapters.valkey import ValkeyStore
        from proxy.adapters.valkey_ledger import ValkeyLedger
        from proxy.adapters.valkey_replay import ValkeyReplays
    except ImportError as exc:
        hint = "pip install 'hardened-inference-proxy[redis]'"
        raise ConfigError([Finding("state", 0, 0, "the client of the shared store is not installed", hint)]) from exc
    ca_file = here / state.ca_file if state.ca_file is not None else None
    if ca_file is not None and not ca_file.is_file():
        raise ConfigError([Finding(str(ca_file), 0, 0, "the store's CA is not there", "a PEM file of CA certificates")])
    store = ValkeyStore(state.url, clock, ca_file=str(ca_file) if ca_file is not None else None)
    stack.push_async_callback(store.close)
    shared = Shared(ValkeyLedger(store), ValkeyReplays(store), _store=store)
    await shared.look()
    return shared
