"""What is counted: in this process's memory, or in the store that workers and replicas share."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.adapters.ledger import MemoryLedger
from proxy.adapters.replay import MemoryReplays
from proxy.adapters.sequences import MemorySequences
from proxy.admin import Check, Health
from proxy.config import State
from proxy.errors import ConfigError, Finding
from proxy.ports import Clock, Ledger, Replays

if TYPE_CHECKING:
    from proxy.adapters.valkey import ValkeyStore
    from proxy.adapters.valkey_quarantine import SharedQuarantine
    from proxy.adapters.valkey_revocations import SharedRevocations
    from proxy.adapters.valkey_sequences import ValkeySequences

LOOK_SECONDS = 1.0  # between two looks at the store


@dataclass(slots=True)
class Shared:
    """The ledger, the memories of proofs and of what callers asked, and how the store under them is."""

    ledger: Ledger
    replays: Replays
    sequences: "MemorySequences | ValkeySequences"
    check: Check | None = None  # None: there is no store
    revocations: "SharedRevocations | None" = None
    quarantine: "SharedQuarantine | None" = None
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
    """Return what workers share. Raise ConfigError."""
    if state is None:
        return Shared(MemoryLedger(clock), MemoryReplays(clock), MemorySequences())
    store = open_store(state, here, clock)
    from proxy.adapters.valkey_ledger import ValkeyLedger
    from proxy.adapters.valkey_quarantine import SharedQuarantine
    from proxy.adapters.valkey_replay import ValkeyReplays
    from proxy.adapters.valkey_revocations import SharedRevocations
    from proxy.adapters.valkey_sequences import ValkeySequences

    stack.push_async_callback(store.close)
    revocations = SharedRevocations(store, clock)
    quarantine = SharedQuarantine(store)
    shared = Shared(
        ValkeyLedger(store),
        ValkeyReplays(store),
        ValkeySequences(store),
        revocations=revocations,
        quarantine=quarantine,
        _store=store,
    )
    await shared.look()
    await revocations.look()
    await quarantine.look()  # what was closed is closed from the first request on
    return shared


def open_store(state: State, here: Path, clock: Clock, deadline: float | None = None) -> "ValkeyStore":
    """Return the store, not asked yet. Its client is an optional extra, imported only where it is asked for."""
    try:
        from proxy.adapters.valkey import DEADLINE, ValkeyStore
    except ImportError as exc:
        hint = "pip install 'hardened-inference-proxy[redis]'"
        raise ConfigError([Finding("state", 0, 0, "the client of the shared store is not installed", hint)]) from exc
    ca_file = here / state.ca_file if state.ca_file is not None else None
    if ca_file is not None and not ca_file.is_file():
        raise ConfigError([Finding(str(ca_file), 0, 0, "the store's CA is not there", "a PEM file of CA certificates")])
    password_file = here / state.password_file if state.password_file is not None else None
    return ValkeyStore(
        state.url,
        clock,
        ca_file=str(ca_file) if ca_file is not None else None,
        password_file=password_file,
        deadline=DEADLINE if deadline is None else deadline,
    )
