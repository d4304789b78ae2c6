"""The way to the model servers: `ports.UpstreamClient` over one transport per upstream.

Decides nothing about a request; it sends it as it is and translates every way in which that can fail into the errors
that the port names. Their detail is in our own words: nothing that an upstream said is in it. An upstream that is down
is left alone for a while (`proxy.adapters.breaker`).

Not guaranteed: that a failed request was not executed. `UpstreamTimeout` and a connection lost before its answer leave
that open (RFC 9110 section 9.2.2), so budgets are not given back for them.
"""

import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakSet

import httpx

from proxy.adapters.breaker import Breaker
from proxy.adapters.connection import IDLE, Limits
from proxy.adapters.dial import Destination, Network, tls_context
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
_DOWN = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT})


@dataclass(frozen=True, slots=True)
class _Route:
    transport: UpstreamTransport
    url: httpx.URL  # parsed once; what is asked for goes beside it, byte for byte
    base_path: str
    breaker: Breaker
    digest: bytes  # of its TLS files


@dataclass(frozen=True, slots=True)
class Prepared:
    """The upstreams of a policy that is about to serve."""

    wanted: frozenset[Upstream]
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

    async def send(self, upstream: Upstream, request: Outbound) -> Reply:
        """Send one request and return the whole reply. Raise UpstreamFault, UpstreamTimeout or Overloaded."""
        route = self._known(upstream)
        with _asking(upstream, route.breaker):
            response = await _ask(route, request, {})
            body = b"".join([piece async for piece in _stream(response)])
        return Reply(response.status_code, tuple(response.headers.raw), body)

    @asynccontextmanager
    async def stream(self, upstream: Upstream, request: Outbound) -> AsyncIterator[Streamed]:
        """Send one request and hand out the reply as it comes; leaving early closes the connection."""
        route = self._known(upstream)
        with _asking(upstream, route.breaker):
            response = await _ask(route, request, {"stream": True})
        try:
            yield Streamed(response.status_code, tuple(response.headers.raw), _pieces(upstream, response))
        finally:
            await _stream(response).aclose()

    def retain(self, upstreams: Iterable[Upstream]) -> None:
        """Serve these upstreams from now on. Raise ConfigError, and change nothing, as `prepare` does."""
        self.install(self.prepare(upstreams))

    def prepare(self, upstreams: Iterable[Upstream]) -> "Prepared":
        """Read the files of new upstreams, in any thread. Raise ConfigError when one of them cannot be used."""
        wanted = frozenset(upstreams)
        findings: list[Finding] = []
        fresh: dict[Upstream, _Route] = {}
        for upstream in wanted - self._routes.keys():
            try:
                fresh[upstream] = self._route(upstream)
            except ConfigError as error:
                findings += error.findings
        if findings:
            raise ConfigError(findings)
        return Prepared(wanted, fresh)

    def install(self, prepared: "Prepared") -> None:
        """Serve these upstreams from now on; connections of the others end in order. On the loop: it closes some."""
        for upstream in self._routes.keys() - prepared.wanted:
            self._retire(self._routes.pop(upstream).transport)
        self._routes.update(prepared.fresh)

    def files(self) -> Mapping[Upstream, tuple[Path, ...]]:
        """Return the TLS files to watch."""
        return {upstream: paths for upstream in self._routes if (paths := _files(upstream))}

    def renew(self, upstream: Upstream) -> bool:
        """Read an upstream's TLS files again, and say whether anything in them is new; then new connections use them.

        Raise ConfigError, and change nothing, when they cannot be used.
        """
        before = self._routes.get(upstream)
        if before is None:
            return False
        fresh = self._route(upstream)
        if fresh.digest == before.digest:
            return False
        self._routes[upstream] = replace(fresh, breaker=before.breaker)
        self._retire(before.transport)
        return True

    def down(self) -> Mapping[str, bool]:
        """Say of every upstream, by its name, whether its circuit is open."""
        return {upstream.name: route.breaker.open for upstream, route in self._routes.items()}

    async def close(self) -> None:
        """Close every connection now."""
        transports = [route.transport for route in self._routes.values()]
        self._routes.clear()
        for transport in (*transports, *self._retired):
            await transport.aclose()

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
        host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
        url = httpx.URL(f"{upstream.scheme}://{host}:{upstream.port}/")
        return _Route(UpstreamTransport(to, limits), url, upstream.base_path, Breaker(self._monotonic), digest)


def _files(upstream: Upstream) -> tuple[Path, ...]:
    named = (upstream.ca_file, upstream.client_cert_file, upstream.client_key_file)
    return tuple(Path(file) for file in named if file is not None)


async def _ask(route: _Route, request: Outbound, extensions: dict[str, object]) -> httpx.Response:
    target = (route.base_path + request.target).encode("ascii", "surrogateescape")
    return await route.transport.handle_async_request(
        httpx.Request(
            request.method,
            route.url,
            headers=request.headers,
            stream=httpx.ByteStream(request.body),
            extensions={"target": target, **extensions},
        )
    )


def _stream(response: httpx.Response) -> httpx.AsyncByteStream:
    """Return the body's stream itself: httpx's readers around it would decode, and cost more than it."""
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("a transport without an asynchronous body")
    return stream


async def _pieces(upstream: Upstream, response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in _stream(response):
            yield piece
    except httpx.TransportError as exc:
        raise _fault(upstream, exc) from exc


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
    detail = f"upstream {upstream.name}: {exc}"
    if reason is Reason.UPSTREAM_TIMEOUT:
        return UpstreamTimeout(detail=detail)
    return UpstreamFault(reason, detail)
