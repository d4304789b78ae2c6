"""The ledger of many workers and machines: accounts in a shared store, charged by one script.

Exact by construction: the store runs a script alone. It counts by the store's clock, and only charges or refuses; what
a caller is told is worked out here, from the slices that it returns, by the code that the memory ledger uses. A key is
a digest, so that no subject's name stands in the store and no two accounts can share one.

Everything that the store cannot do is `LEDGER_UNAVAILABLE`: fail closed, and never a second attempt. What a killed,
hung, restarted or flushed store means: docs/adr/0004-budget-ledger.md.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal

import msgspec

from proxy.adapters.valkey import Script, Store, StoreUnavailable
from proxy.budget.account import Account, amounts, differences
from proxy.budget.windows import SLICES, Tally, slice_width
from proxy.errors import DependencyFault
from proxy.exchange import Budget, Charge, Cost, Exhausted
from proxy.reasons import Reason

SERVER_CLOCK: Final = "local time = redis.call('TIME'); local now = time[1] * 1000000 + time[2]\n"

_replies = msgspec.msgpack.Decoder(tuple[bool, int, int, list[list[int]]])


class ValkeyLedger:
    """`proxy.ports.Ledger` on a shared store. `clock` is the line of Lua that sets `now`; tests bring their own."""

    def __init__(self, store: Store, clock: str = SERVER_CLOCK) -> None:
        self._store = store
        body = resources.files(__package__).joinpath("valkey_ledger.lua").read_text(encoding="utf-8")
        self._script = Script.of(clock + body)

    async def charge(self, account: str, budget: Budget, cost: Cost) -> Charge | Exhausted:
        """Charge every window of the budget at once, or none."""
        found = await self._run(account, budget, False, amounts(budget, cost))
        if found.written:
            return found.account.paid(account, budget, cost, found.now)
        return found.account.refused(budget, cost, found.now)

    async def settle(self, charge: Charge, actual: Cost) -> None:
        """Correct an estimated cost after the fact."""
        change = differences(charge, actual)
        if any(change):
            await self._run(charge.account, charge.budget, charge.at, change)

    async def _run(self, account: str, budget: Budget, at: int | Literal[False], units: list[int]) -> "_Found":
        windows = [
            (window.name, slice_width(window.seconds), window.limit, amount)
            for window, amount in zip(budget.windows, units, strict=True)
        ]
        argument = msgspec.msgpack.encode((SLICES, at, windows))
        try:
            reply = await self._store.run(self._script, _key(account, budget), argument)
            return _read(reply, budget)
        except StoreUnavailable as error:
            raise DependencyFault(Reason.LEDGER_UNAVAILABLE, f"shared store: {error}") from error
        except (msgspec.MsgspecError, ValueError) as error:
            detail = "shared store: a reply that is not our script's"
            raise DependencyFault(Reason.LEDGER_UNAVAILABLE, detail) from error


@dataclass(frozen=True, slots=True)
class _Found:
    written: bool
    now: int
    account: Account


def _read(reply: bytes, budget: Budget) -> _Found:
    written, revision, now, packed = _replies.decode(reply)
    tallies = {
        window.name: Tally(window.seconds, zip(numbers[::2], numbers[1::2], strict=True))
        for window, numbers in zip(budget.windows, packed, strict=True)
    }
    return _Found(written, now, Account(revision, tallies))


def _key(account: str, budget: Budget) -> str:
    # Length first: no account and budget name can be cut in another place and give the same text.
    digest = hashlib.blake2b(f"{len(account)}:{account}{budget.name}".encode(), digest_size=20)
    return f"hip:ledger:{digest.hexdigest()}"
