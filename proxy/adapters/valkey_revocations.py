"""The list of revocations that workers and replicas share: appended to by `hip revoke`, followed by everybody.

Asked twice a second for what is new, over the connection that is there anyway: no second way (publish and subscribe)
that could be up while the list is not. What a store loses (a restart without its data, a failover that was behind) is
not given back: whoever still serves writes what it knows into the new list. Only `take_back` gives back.

Fail closed: as long as the list was never read completely, or could not be confirmed for `STALE_SECONDS`, nobody can be
known not to be revoked, and callers get REVOCATIONS_UNAVAILABLE.

Not guaranteed: what was revoked in the moment before the store lost it and nobody had read yet, and anything at all
once store and every worker were gone together. Keep the file beside it, or a store that persists.
"""

import asyncio
import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Final

import msgspec

from proxy.adapters.revocations import POLL_SECONDS, RevocationStatus, Tell, nobody
from proxy.adapters.valkey import Script, Store, StoreUnavailable
from proxy.errors import ConfigError, DependencyFault, Finding
from proxy.exchange import Certificate, Principal
from proxy.identity.revocation import (
    NOTHING_REVOKED,
    Revocation,
    Revocations,
    parse_revocation,
    revocation_members,
)
from proxy.ports import Clock
from proxy.reasons import Reason

KEY: Final = "hip:revocations"
STALE_SECONDS: Final = 5.0  # that a list counts without the store's word that it is still the whole one
PAGE: Final = 500  # lines in one answer of the store, about 100 KiB: budgets are asked over the same connection
MAX_ENTRIES: Final = 100_000
OVER_SECONDS: Final = 86_400.0  # that a line stays in the list after its `until`, in case a clock is wrong

_SCRIPT = Script.of(resources.files(__package__).joinpath("valkey_revocations.lua").read_text(encoding="utf-8"))
_log = logging.getLogger("hip.revocations")


class _Page(msgspec.Struct, array_like=True, frozen=True):
    """The script's answer."""

    name: str
    last: int
    taken: int
    lines: list[str | bool]
    changed: int


_pages = msgspec.msgpack.Decoder(_Page)


@dataclass(slots=True)
class _Held:
    """A list as far as it was read."""

    name: str = ""
    taken: int = 0
    last: int = 0
    tail: str | bool = False  # the line at `last`: another one there is another list
    listed: dict[int, Revocation] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)  # lines that cannot be read

    @property
    def state(self) -> tuple[str, int, int, int, int]:
        """What differs when the list does."""
        return self.name, self.taken, self.last, len(self.listed), len(self.bad)

    def take(self, number: int, line: str | bool) -> None:
        self.last, self.tail = number, line
        if isinstance(line, bool):  # a hole
            return
        try:
            self.listed[number] = parse_revocation(line.encode())
        except ValueError as error:
            self.bad[number] = line
            _log.error("line %d of the shared list cannot be read: %s", number, error)

    def indexed(self, now: float) -> Revocations:
        """Return what counts, and forget what is long over, as the store does: a process outlives many lines."""
        self.listed = {number: one for number, one in self.listed.items() if not one.over(now - OVER_SECONDS)}
        return Revocations.of(self.listed.values(), now)


class SharedRevocations:
    """The shared list behind the `RevocationList` port. One per process."""

    def __init__(
        self, store: Store, clock: Clock, *, poll_seconds: float = POLL_SECONDS, stale_seconds: float = STALE_SECONDS
    ) -> None:
        self._store = store
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._stale_seconds = stale_seconds
        self._held = _Held()
        self._counted = self._held.state
        self._current = NOTHING_REVOKED
        self._confirmed_at = -math.inf  # monotonic seconds
        self._error = "not read yet"
        self.generation = 0

    def revoked(self, principal: Principal, certificate: Certificate | None) -> Reason | None:
        """Return why the caller is no longer believed, or None. Raise DependencyFault(REVOCATIONS_UNAVAILABLE)."""
        if self.stale:
            raise DependencyFault(
                Reason.REVOCATIONS_UNAVAILABLE, f"shared list: {self._error or 'not read for a while'}"
            )
        return self._current.revoked(principal, certificate)

    @property
    def stale(self) -> bool:
        """Say whether callers are refused because nobody knows what is revoked."""
        return self._clock.monotonic() - self._confirmed_at > self._stale_seconds

    def status(self) -> RevocationStatus:
        """Return what counts, and what is wrong."""
        return RevocationStatus(self._current.entries, self._error, self._current.issuers)

    async def follow(self, stop: asyncio.Event, tell: Tell = nobody) -> None:
        """Read what is new, until `stop`."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), self._poll_seconds)
            except TimeoutError:
                await self.look(tell)

    async def look(self, tell: Tell = nobody) -> None:
        """Read what is new, once. What the store cannot do shows in `status()`."""
        began = self._clock.monotonic()
        try:
            held = self._held = await self._read()
        except StoreUnavailable as error:
            self._error = str(error)
            self.generation += self.stale  # streams that go on ask again, and learn that nobody can know
            return
        self._error = f"{len(held.bad)} lines cannot be read" if held.bad else ""
        if held.bad and self._confirmed_at == -math.inf:
            return  # at the start a list is whole, or none
        news = held.state != self._counted
        if news or self._current.ends_at <= self._clock.now():
            self._current = await asyncio.to_thread(held.indexed, self._clock.now())
            self._counted = held.state
            self.generation += 1
        self._confirmed_at = began
        if news:
            _log.info("%d shared revocations count from now on", self._current.entries)
            await tell(len(held.bad))

    async def _read(self) -> _Held:
        """Return the list as it is now: what we hold with what is new, or another one. Raise StoreUnavailable."""
        held, first = self._held, max(self._held.last, 1)
        page = await _ask(self._store, "read", first, PAGE)
        taken_back = page.name == held.name and page.taken > held.taken  # fewer: an older copy, which lost lines too
        same = (page.name, page.taken) == (held.name, held.taken)
        if same and (not held.last or page.lines[:1] == [held.tail]):
            await _catch_up(self._store, held, page, first)
            return await _mended(self._store, held) if held.bad else held
        if not held.name:
            return await _whole(self._store, page)
        if not taken_back:
            now = self._clock.now()
            restored = await _add(self._store, [one for one in held.listed.values() if not one.over(now)])
            if restored:
                _log.warning("the store had lost %d revocations; they are there again", restored)
        return await _whole(self._store)


# ── for `hip revoke` ────────────────────────────────────────────────────────────────────────────────────────────


async def shared_list(store: Store) -> tuple[Revocation, ...]:
    """Return the whole list. Raise StoreUnavailable, and ConfigError where a line cannot be read."""
    held = await _whole(store)
    if held.bad:
        hint = "somebody else has written there; the other lines count"
        raise ConfigError([Finding(KEY, 0, 0, f"{len(held.bad)} lines of the shared list cannot be read", hint)])
    return tuple(held.listed.values())


async def share(store: Store, revocation: Revocation, now: float, most: int = MAX_ENTRIES) -> bool:
    """Append one; False where the list has it already. Lines that are long over go. Raise as `shared_list`."""
    held = await _whole(store)
    over = [one for one in held.listed.values() if one.over(now - OVER_SECONDS)]
    if over:
        await _remove(store, over, back=False)
    if len(held.listed) - len(over) >= most:
        hint = "take back what is over, and say `--until` for what ends by itself"
        raise ConfigError([Finding(KEY, 0, 0, f"the shared list is full: {most} lines", hint)])
    return await _add(store, [revocation]) > 0


async def take_back(store: Store, revocation: Revocation) -> int:
    """Take back what revokes the same, whatever its `until`; return how many lines. Raise as `shared_list`."""
    held = await _whole(store)
    same = [
        one for one in held.listed.values() if replace(one, until=None).same == replace(revocation, until=None).same
    ]
    return await _remove(store, same, back=True)


# ── the script ──────────────────────────────────────────────────────────────────────────────────────────────────


async def _whole(store: Store, page: _Page | None = None) -> _Held:
    """Read a list from its first line on; `page`, if that is in hand."""
    page = page or await _ask(store, "read", 1, PAGE)
    held = _Held(page.name, page.taken)
    await _catch_up(store, held, page, 1)
    return held


async def _mended(store: Store, held: _Held) -> _Held:
    """Return the same list, read anew where somebody has changed or removed the first line that cannot be read."""
    number, line = next(iter(held.bad.items()))
    if (await _ask(store, "read", number, 1)).lines == [line]:
        return held
    again = await _whole(store)
    return again if (again.name, again.taken) == (held.name, held.taken) else held


async def _catch_up(store: Store, held: _Held, page: _Page, first: int) -> None:
    """Take a page's lines and those after it."""
    while True:
        for number, line in enumerate(page.lines, start=first):
            if number > held.last:
                held.take(number, line)
        if held.last >= page.last:
            return
        first = held.last + 1
        page = await _ask(store, "read", first, PAGE)
        if (page.name, page.taken) != (held.name, held.taken) or not page.lines:
            raise StoreUnavailable("the list changed while it was read")


async def _add(store: Store, revocations: Sequence[Revocation]) -> int:
    """Append what is not there; return how many."""
    lines = [(_digest(one), json.dumps(revocation_members(one))) for one in revocations]
    added = 0
    for start in range(0, len(lines), PAGE):
        added += (await _ask(store, "add", os.urandom(8).hex(), lines[start : start + PAGE])).changed
    return added


async def _remove(store: Store, revocations: Sequence[Revocation], *, back: bool) -> int:
    """Remove what is there, a page at a time because budgets wait for the same store; return how many."""
    digests = [_digest(one) for one in revocations]
    removed = 0
    for start in range(0, len(digests), PAGE):
        removed += (await _ask(store, "remove", digests[start : start + PAGE], back)).changed
    return removed


async def _ask(store: Store, *words: object) -> _Page:
    reply = await store.run(_SCRIPT, KEY, msgspec.msgpack.encode(words))
    try:
        return _pages.decode(reply)
    except msgspec.MsgspecError as error:
        msg = f"what the store keeps under {KEY} is not our list"
        raise StoreUnavailable(msg) from error


def _digest(one: Revocation) -> str:
    """Return what names a line in the store: two that revoke the same have the same."""
    return hashlib.blake2b(json.dumps(one.same).encode(), digest_size=16).hexdigest()
