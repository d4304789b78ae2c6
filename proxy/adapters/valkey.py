"""The shared store (Valkey or Redis): one connection, many commands in flight, every wait bounded.

A slow store is worse than a dead one, so that a command has one deadline for everything: waiting, connecting, being
answered. The first to miss it fails all that are in flight and trips the breaker; while it is tripped, nobody waits,
and after the cooldown one caller finds out for everybody. Commands are never repeated: one that was sent and not
answered may have been carried out, and the caller must be content with either.

One pipelined connection instead of a pool: a third of the cost of redis-py's pool with 32 callers, and a caller that
is cancelled leaves its answer to be read and dropped instead of to the next one. A server needs no more of us.

Not guaranteed: that the store keeps what it said it has (`status` tells when it is configured to evict).
Needs the extra `[redis]`.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError, ResponseError

from proxy.adapters.password import read_password
from proxy.errors import ConfigError, Finding, HipError
from proxy.ports import Clock

DEADLINE: Final = 0.5  # seconds for one command, with all that it has to wait for
COOLDOWN: Final = 1.0  # seconds without an attempt after a failed one
MAX_IN_FLIGHT: Final = 1024  # commands without an answer
DEFAULT_PORT: Final = 6379

Word = str | int | bytes


class StoreUnavailable(HipError):
    """The store did not do it, or we do not know whether it did."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the name that the store knows it by."""

    source: str
    digest: str

    @classmethod
    def of(cls, source: str) -> "Script":
        """Return the script; SHA-1 is the store's choice and guards nothing here."""
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Address:
    """Where the store is, and who we are to it."""

    host: str
    port: int
    database: int
    tls: bool
    user: str | None
    password: str | None


def parse_address(url: str) -> Address:
    """Read `valkey[s]://` or `redis[s]://[user:password@]host[:port][/database]`, or raise ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        database = int(parts.path.removeprefix("/") or 0)
    except ValueError as error:
        raise _wrong("it cannot be read: port and database are numbers") from error
    if parts.scheme not in {"valkey", "valkeys", "redis", "rediss"}:
        raise _wrong("its scheme is none of valkey, valkeys, redis, rediss")
    if not host:
        raise _wrong("it names no host")
    if parts.query or parts.fragment:  # redis-py would let them switch off certificate checks and time-outs
        raise _wrong("it has options after `?` or `#`")
    return Address(
        host,
        port or DEFAULT_PORT,
        database,
        parts.scheme in {"valkeys", "rediss"},
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


def _wrong(message: str) -> ConfigError:
    hint = "write it as rediss://user:password@host:6379/0"
    return ConfigError([Finding("the shared store's URL", 0, 0, message, hint)])  # never the URL: it has a password


class Store(Protocol):
    """What the adapters on top of a shared store need of it."""

    async def run(self, script: Script, key: str, argument: bytes) -> bytes:
        """Run a script on one key and return its reply. Raise StoreUnavailable."""
        ...


class ValkeyStore:
    """A `Store` on one server, or on what looks like one (a primary behind a name, a proxy)."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        ca_file: str | None = None,
        password_file: Path | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self._address = parse_address(url)
        self._password_file = password_file
        if password_file is not None:
            read_password(password_file)  # what is wrong with it is said at the start
        self._clock = clock
        self._ca_file = ca_file
        self._deadline = deadline
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._tripped_until: float | None = None
        self._closed = False

    async def run(self, script: Script, key: str, argument: bytes) -> bytes:
        """Run a script on one key; load it where the store does not know it (a new store, SCRIPT FLUSH)."""
        return await self._bounded(self._run(script, key, argument))

    async def status(self) -> str | None:
        """Return how the store is badly kept, in words for an operator, or None. Raise StoreUnavailable."""
        reply = await self._bounded(self._ask("INFO", "memory"))
        lines = reply.decode("ascii", "replace").splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        if facts.get("maxmemory") != "0" and facts.get("maxmemory_policy") != "noeviction":
            return "the shared store may forget budgets when memory is short: set its maxmemory-policy to noeviction"
        return None

    async def close(self) -> None:
        """Close the connection; whoever still asks is refused."""
        self._closed = True
        async with self._connecting:  # or a connection that is being opened would stay
            if self._link is not None:
                await self._link.close()

    async def _bounded(self, work: Awaitable[object]) -> bytes:
        try:
            async with asyncio.timeout(self._deadline):
                reply = await work
        except TimeoutError as error:
            self._trip()
            msg = f"no answer within {self._deadline} s"
            raise StoreUnavailable(msg) from error
        except RedisError as error:  # by its class: the text may hold what others wrote
            raise StoreUnavailable(type(error).__name__) from error
        if not isinstance(reply, bytes):
            msg = f"a reply of another type: {type(reply).__name__}"
            raise StoreUnavailable(msg)
        return reply

    async def _run(self, script: Script, key: str, argument: bytes) -> object:
        try:
            return await self._ask("EVALSHA", script.digest, 1, key, argument)
        except NoScriptError:  # not carried out, so that this is no repetition
            return await self._ask("EVAL", script.source, 1, key, argument)

    async def _ask(self, *words: Word) -> object:
        return await (await self._connected()).ask(*words)

    async def _connected(self) -> "_Link":
        if self._link is not None and not self._link.broken:
            return self._link
        if self._tripped_until is not None and self._connecting.locked():
            raise StoreUnavailable("still away; somebody else is trying")
        async with self._connecting:
            if self._link is not None and not self._link.broken:
                return self._link
            if self._closed:
                raise StoreUnavailable("closed")
            if self._tripped_until is not None and self._clock.monotonic() < self._tripped_until:
                raise StoreUnavailable("away a moment ago; not tried again yet")
            try:
                self._link = await _Link.open(_connection(self._who(), self._ca_file))
            except ConfigError as error:
                self._trip()
                raise StoreUnavailable(str(error)) from error
            except (RedisError, OSError) as error:
                self._trip()
                msg = f"cannot connect: {type(error).__name__}"
                raise StoreUnavailable(msg) from error
            self._tripped_until = None
            return self._link

    def _who(self) -> Address:
        """The address with the password as it is now: a connection that is open outlives a change of it."""
        if self._password_file is None:
            return self._address
        return replace(self._address, password=read_password(self._password_file))

    def _trip(self) -> None:
        self._tripped_until = self._clock.monotonic() + COOLDOWN
        if self._link is not None:
            self._link.abandon()


def _connection(address: Address, ca_file: str | None) -> AbstractConnection:
    make: Callable[..., AbstractConnection] = Connection
    if address.tls:
        make = partial(SSLConnection, ssl_ca_certs=ca_file, ssl_cert_reqs="required", ssl_check_hostname=True)
    # RESP2 and no CLIENT SETINFO: fewer words for an ACL to allow. No time-outs: the one deadline is ours.
    return make(
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.user,
        password=address.password,
        protocol=2,
        driver_info=None,
        socket_timeout=None,
        socket_connect_timeout=None,
    )


class _Link:
    """A live connection. Answers come in the order of the questions; a task reads them and hands them out."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._waiting: deque[asyncio.Future[object]] = deque()
        self._reader = asyncio.create_task(self._read(), name="valkey-reader")
        self.broken = False

    @classmethod
    async def open(cls, connection: AbstractConnection) -> "_Link":
        """Return a link whose other end has answered: a hung server still accepts connections."""
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without annotations
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        link = cls(connection)
        try:
            await link.ask("PING")
        except BaseException:
            link.abandon()
            raise
        return link

    async def ask(self, *words: Word) -> object:
        if self.broken or not self._connection.is_connected:  # redis-py would connect anew behind our back
            raise Disconnected("the connection is gone")
        if len(self._waiting) >= MAX_IN_FLIGHT:
            msg = f"{MAX_IN_FLIGHT} commands without an answer"
            raise StoreUnavailable(msg)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)  # and no `await` until the bytes are in the buffer, so that the orders agree
        try:
            await self._connection.send_packed_command(self._connection.pack_command(*words), check_health=False)
            return await answer
        except BaseException:
            answer.cancel()
            raise

    def abandon(self) -> None:
        """Give the connection up: everybody who waits is told at once."""
        self.broken = True
        self._reader.cancel()

    async def close(self) -> None:
        self.abandon()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        try:
            while True:
                reply: object
                try:
                    reply = await self._connection.read_response()
                except ResponseError as error:
                    reply = error
                if not self._waiting:
                    raise Disconnected("an answer that nobody asked for")
                answer = self._waiting.popleft()
                if answer.done():  # its caller was cancelled
                    continue
                if isinstance(reply, Exception):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)
        except (RedisError, OSError):
            pass  # everybody who waits is told below
        finally:
            self.broken = True
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(Disconnected("the connection was lost"))
            self._waiting.clear()
            await self._connection.disconnect(nowait=True)
