"""The lists that `hip revoke` writes: the file and the shared one, as the configuration has them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from proxy.adapters.revocations import append_revocation, read_revocations
from proxy.config import State
from proxy.identity.revocation import Revocation

if TYPE_CHECKING:
    from proxy.adapters.valkey import Store

STORE_SECONDS = 5.0  # for one command: an operator may be far from the store

T = TypeVar("T")


class Done(StrEnum):
    """What has become of a list."""

    NEW = "new"
    ALREADY = "already"  # it had the line


class StoreAway(Exception):
    """The shared list could not be asked, in words for an operator."""


@dataclass(frozen=True, slots=True)
class SharedList:
    """The list in the store."""

    state: State
    here: Path

    def add(self, revocation: Revocation, now: float) -> Done:
        """Append a line. Raise StoreAway and ConfigError."""

        async def add(store: "Store") -> Done:
            from proxy.adapters.valkey_revocations import share

            return Done.NEW if await share(store, revocation, now) else Done.ALREADY

        return asyncio.run(self._asked(add))

    def read(self) -> tuple[Revocation, ...]:
        """Return the lines. Raise StoreAway and ConfigError."""

        async def read(store: "Store") -> tuple[Revocation, ...]:
            from proxy.adapters.valkey_revocations import shared_list

            return await shared_list(store)

        return asyncio.run(self._asked(read))

    def take_back(self, revocation: Revocation) -> int:
        """Take back what revokes the same; return how many lines. Raise StoreAway and ConfigError."""

        async def take(store: "Store") -> int:
            from proxy.adapters.valkey_revocations import take_back

            return await take_back(store, revocation)

        return asyncio.run(self._asked(take))

    async def _asked(self, question: "Callable[[Store], Awaitable[T]]") -> T:
        from proxy.app import SystemClock
        from proxy.app.shared import open_store

        store = open_store(self.state, self.here, SystemClock(), STORE_SECONDS)  # says so where the extra is missing
        from proxy.adapters.valkey import StoreUnavailable

        try:
            return await question(store)
        except StoreUnavailable as error:
            raise StoreAway(str(error)) from error
        finally:
            await store.close()


@dataclass(frozen=True, slots=True)
class FileList:
    """The list in a file."""

    path: Path

    def add(self, revocation: Revocation) -> Done:
        """Append a line. Raise ConfigError."""
        return Done.NEW if append_revocation(self.path, revocation) else Done.ALREADY

    def read(self) -> tuple[Revocation, ...]:
        """Return the lines. Raise ConfigError."""
        return read_revocations(self.path)

    def same(self, revocation: Revocation) -> int:
        """Return how many lines revoke the same. Raise ConfigError."""
        wanted = replace(revocation, until=None).same
        return sum(replace(one, until=None).same == wanted for one in self.read()) if self.path.exists() else 0
