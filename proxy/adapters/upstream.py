"""The way to the model servers: `ports.UpstreamClient` over one transport per upstream.

Decides nothing about a request; it sends it as it is and translates every way in which that can fail into the errors
that the port names. Their detail is in our own words: nothing that an upstream said is in it. An upstream that is down
is left alone for a while (`proxy.adapters.breaker`); of several replicas, one that is well is asked
(`proxy.adapters.replicas`).

Not guaranteed: that a failed request was not executed. `UpstreamTimeout` and a connection lost before its answer leave
that open (RFC 9110 section 9.2.2), so budgets are not given back for them; for what is `unsent`, they are.
"""

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from weakref import WeakSet

import httpx

from proxy.adapters.breaker import Breaker
from proxy.adapters.connection import IDLE, Limits
from proxy.adapters.dial import Destination, Network, tls_context
from proxy.adapters.health import HealthChecks
from proxy.adapters.replicas import Replica, Replicas
from proxy.adapters.transport import PoolFull, UpstreamTransport
from proxy.adapters.wire import ReplyTooLarge
from proxy.errors import ConfigError, Finding, RequestError, UpstreamFault, UpstreamTimeout
from proxy.exchange import Outbound, Reply, Streamed, Upstream
from proxy.reasons import Reason

# The first line that fits decides: the narrower type stands first.
_FAULTS: tuple[tuple[type[httpx.TransportError], Reason], ...] = (
    (ReplyTooLarge, Reason.UPSTREAM_TOO_LARGE),
    (PoolFull, Reason.UPSTREAM_OVERLOADED),
    (httpx.ConnectTimeout, Reason.UPSTREAM_UNREACHABLE),
    (httpx.TimeoutException, Reason.UPSTREAM_TIMEOUT),
    (httpx.ConnectError, Reason.UPSTREAM_UNREACHABLE),
    (httpx.NetworkError, Reason.UPSTREAM_UNREACHABLE),
    (httpx.TransportError, Reason.UPSTREAM_PROTOCOL),
)
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)  # there was no connection to write to
_DOWN = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT})


@dataclass(frozen=True, slots=True)
class _Route:
    transport: UpstreamTransport
    base_path: str
    breaker: Breaker
    digest: bytes  # of its TLS files
    to: Destination

    def target(self, request: Outbound) -> bytes:
        """Return what to ask for, byte for byte as it was authorised."""
        return (self.base_path + request.target).encode("ascii", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The upstreams of a policy that is about to serve."""

    wanted: frozenset[Upstream]
    asked: frozenset[Upstream]  # those, or their replicas where they have some
    fresh: Mapping[Upstream, _Route]


class HttpUpstreamClient:
    """Every upstream's connections.

    `allowed` are networks that the address guard would refuse (`dial.FORBIDDEN`); `idle` is how many seconds an unused
    connection is kept: less than the upstreams keep theirs, or a POST may meet a closing one.
    """

    def __init__(
        self, allowed: Iterable[Network] = (), idle: float = IDLE, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._allowed = tuple(allowed)
        self._monotonic = monotonic
        self._idle = idle
        self._routes: dict[Upstream, _Route] = {}
        self._retired: WeakSet[UpstreamTransport] = WeakSet()  # a request under way keeps its own alive
        self._replicas = Replicas(self, lambda replica: self._known(replica).breaker)
        self._health = HealthChecks(self._replicas.members, self._destination)

    async def send(self, upstream: Upstream, request: Outbound) -> Reply:
        """Send one request and return the whole reply. Raise UpstreamFault, UpstreamTimeout or Overloaded."""
        if upstream.replicas:
            return await self._replicas.send(upstream, request)
        route = self._known(upstream)
        with _asking(upstream, route.breaker):
            answered = await route.transport.exchange(
                request.method, route.target(request), request.headers, request.body, request.behind
            )
        return Reply(answered.status, answered.headers, answered.body)

    @asynccontextmanager
    async def stream(self, upstream: Upstream, request: Outbound) -> AsyncIterator[Streamed]:
        """Send one request and hand out the reply as it comes; leaving early closes the connection."""
        if upstream.replicas:
            async with self._replicas.stream(upstream, request) as streamed:
                yield streamed
            return
        route = self._known(upstream)
        with _asking(upstream, route.breaker):
            answered = await route.transport.exchange(
                request.method,
                route.target(request),
                request.headers,
                request.body,
                request.behind,
                streaming=True,
            )
        pieces = answered.pieces
        if pieces is not None:
            pieces.fault = partial(_fault, upstream)
        try:
            yield Streamed(answered.status, answered.headers, pieces or _whole(answered.body))
        finally:
            if pieces is not None:
                await pieces.aclose()

    def retain(self, upstreams: Iterable[Upstream]) -> None:
        """Serve these upstreams from now on. Raise ConfigError, and change nothing, as `prepare` does."""
        self.install(self.prepare(upstreams))

    def prepare(self, upstreams: Iterable[Upstream]) -> "Prepared":
        """Read the files of new upstreams, in any thread. Raise ConfigError when one of them cannot be used."""
        wanted = frozenset(upstreams)
        asked = frozenset(one for upstream in wanted for one in upstream.replicas or (upstream,))
        findings: list[Finding] = []
        fresh: dict[Upstream, _Route] = {}
        for upstream in asked - self._routes.keys():
            try:
                fresh[upstream] = self._route(upstream)
            except ConfigError as error:
                findings += error.findings
        if findings:
            raise ConfigError(findings)
        return Prepared(wanted, asked, fresh)

    def install(self, prepared: "Prepared") -> None:
        """Serve these upstreams from now on; connections of the others end in order. On the loop: it closes some."""
        for upstream in self._routes.keys() - prepared.asked:
            self._retire(self._routes.pop(upstream).transport)
        self._routes.update(prepared.fresh)
        self._replicas.install(upstream for upstream in prepared.wanted if upstream.replicas)
        self._health.changed()

    async def follow(self, stop: asyncio.Event) -> None:
        """Ask the replicas whether they are well, until `stop`."""
        await self._health.follow(stop)

    def files(self) -> Mapping[Upstream, tuple[Path, ...]]:
        """Return the TLS files to watch."""
        return {upstream: paths for upstream in self._whole() if (paths := _files(upstream))}

    def renew(self, upstream: Upstream) -> bool:
        """Read an upstream's TLS files again, and say whether anything in them is new; then new connections use them.

        Raise ConfigError, and change nothing, when they cannot be used.
        """
        before = {one: self._routes[one] for one in upstream.replicas or (upstream,) if one in self._routes}
        fresh = {one: self._route(one) for one in before}
        renewed = [one for one in before if fresh[one].digest != before[one].digest]
        for one in renewed:
            self._routes[one] = replace(fresh[one], breaker=before[one].breaker)
            self._retire(before[one].transport)
        return bool(renewed)

    def down(self) -> Mapping[str, bool]:
        """Say of every upstream, by its name, whether its circuit is open, or every one of its replicas passed over."""
        circuits = {one.name: self._routes[one].breaker.open for one in self._whole() if not one.replicas}
        return {**circuits, **self._replicas.down()}

    def replicas(self) -> Iterator[Replica]:
        """Yield every replica, and how it is."""
        return self._replicas.members()

    async def close(self) -> None:
        """Close every connection now."""
        transports = [route.transport for route in self._routes.values()]
        self._routes.clear()
        for transport in (*transports, *self._retired):
            await transport.aclose()

    def _whole(self) -> list[Upstream]:
        """Return the upstreams as the policy names them."""
        members = {replica.upstream for replica in self._replicas.members()}
        return [*(one for one in self._routes if one not in members), *self._replicas.upstreams]

    def _destination(self, replica: Replica) -> Destination | None:
        route = self._routes.get(replica.upstream)
        return None if route is None else route.to

    def _retire(self, transport: UpstreamTransport) -> None:
        transport.retire()
        self._retired.add(transport)

    def _known(self, upstream: Upstream) -> _Route:
        """Return the route; of an upstream that the policy has just dropped, for a request from before that."""
        route = self._routes.get(upstream)
        if route is None:
            try:
                route = self._routes[upstream] = self._route(upstream)
            except ConfigError as exc:
                raise UpstreamFault(Reason.UPSTREAM_UNREACHABLE, str(exc)) from exc
        return route

    def _route(self, upstream: Upstream) -> _Route:
        context, digest = None, b""
        if upstream.scheme == "https":
            try:
                context = tls_context(upstream.ca_file, upstream.client_cert_file, upstream.client_key_file)
                digest = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in _files(upstream))
            except (OSError, ssl.SSLError) as exc:
                file = upstream.ca_file or upstream.client_cert_file or "the system's CA certificates"
                message = f"upstream {upstream.name}: the TLS files cannot be used: {type(exc).__name__}"
                raise ConfigError([Finding(file, 0, 0, message, "PEM; the key must be the certificate's")]) from exc
        to = Destination(upstream.host, upstream.port, context, upstream.spki_sha256, self._allowed)
        limits = Limits(
            max_connections=upstream.max_connections,
            max_body=upstream.max_reply_bytes,
            connect=upstream.connect_timeout,
            total=upstream.timeout,
            write=upstream.timeout,
            first_byte=upstream.timeout,
            stall=upstream.timeout,
            idle=self._idle,
        )
        return _Route(UpstreamTransport(to, limits), upstream.base_path, Breaker(self._monotonic), digest, to)


def _files(upstream: Upstream) -> tuple[Path, ...]:
    named = (upstream.ca_file, upstream.client_cert_file, upstream.client_key_file)
    return tuple(Path(file) for file in named if file is not None)


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


@contextmanager
def _asking(upstream: Upstream, breaker: Breaker) -> Iterator[None]:
    """Let nothing foreign pass: what httpx raises becomes what the port names. Tell the breaker how it went."""
    breaker.enter()
    try:
        yield
    except httpx.PoolTimeout as exc:  # our own limit on connections: it tells nothing of the upstream
        breaker.left()
        raise _fault(upstream, exc) from exc
    except httpx.TransportError as exc:
        fault = _fault(upstream, exc)
        if fault.reason in _DOWN:
            breaker.failed()
        else:
            breaker.answered()
        raise fault from exc
    except BaseException:
        breaker.left()
        raise
    breaker.answered()


def _fault(upstream: Upstream, exc: httpx.TransportError) -> RequestError:
    reason = next(reason for kind, reason in _FAULTS if isinstance(exc, kind))
    at = "" if upstream.health is None else f" at {upstream.address}"
    detail = f"upstream {upstream.name}{at}: {exc}"
    fault = UpstreamTimeout(detail=detail) if reason is Reason.UPSTREAM_TIMEOUT else UpstreamFault(reason, detail)
    fault.unsent = isinstance(exc, _UNSENT)
    return fault
