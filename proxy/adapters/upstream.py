"""The way to the model servers: `ports.UpstreamClient` over one transport per upstream.

Decides nothing about a request; it sends it as it is and translates every way in which that can fail into the two
errors that the port names. Their detail is in our own words: nothing that an upstream said is in it.

Not guaranteed: that a failed request was not executed. `UpstreamTimeout` and a connection lost before its answer leave
that open (RFC 9110 section 9.2.2), so budgets are not given back for them.
"""

import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from weakref import WeakSet

import httpx

from proxy.adapters.connection import IDLE, Limits
from proxy.adapters.dial import Destination, Network, tls_context
from proxy.adapters.transport import PoolFull, UpstreamTransport
from proxy.adapters.wire import ReplyTooLarge
from proxy.errors import ConfigError, Finding, UpstreamFault, UpstreamTimeout
from proxy.exchange import Headers, Outbound, Reply, Upstream
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


@dataclass(frozen=True, slots=True)
class Streamed:
    """A reply whose body is still coming. `pieces` raises the port's errors, too."""

    status: int
    headers: Headers
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class _Route:
    transport: UpstreamTransport
    url: httpx.URL  # parsed once; what is asked for goes beside it, byte for byte
    base_path: str


class HttpUpstreamClient:
    """Every upstream's connections.

    `allowed` are networks that the address guard would refuse (`dial.FORBIDDEN`); `idle` is how many seconds an unused
    connection is kept: less than the upstreams keep theirs, or a POST may meet a closing one.
    """

    def __init__(self, allowed: Iterable[Network] = (), idle: float = IDLE) -> None:
        self._allowed = tuple(allowed)
        self._idle = idle
        self._routes: dict[Upstream, _Route] = {}
        self._retired: WeakSet[UpstreamTransport] = WeakSet()  # a request under way keeps its own alive

    async def send(self, upstream: Upstream, request: Outbound) -> Reply:
        """Send one request and return the whole reply. Raise UpstreamFault or UpstreamTimeout."""
        with _mapped(upstream):
            response = await self._ask(upstream, request, {})
            body = b"".join([piece async for piece in _stream(response)])
        return Reply(response.status_code, tuple(response.headers.raw), body)

    @asynccontextmanager
    async def stream(self, upstream: Upstream, request: Outbound) -> AsyncIterator[Streamed]:
        """Send one request and hand out the reply as it comes; leaving early closes the connection."""
        with _mapped(upstream):
            response = await self._ask(upstream, request, {"stream": True})
        try:
            yield Streamed(response.status_code, tuple(response.headers.raw), _pieces(upstream, response))
        finally:
            await _stream(response).aclose()

    def retain(self, upstreams: Iterable[Upstream]) -> None:
        """Serve these upstreams from now on: files of new ones are read, connections of the others end in order.

        Raise ConfigError, and change nothing, when a file of any of them cannot be used.
        """
        wanted = set(upstreams)
        findings: list[Finding] = []
        fresh: dict[Upstream, _Route] = {}
        for upstream in wanted - self._routes.keys():
            try:
                fresh[upstream] = self._route(upstream)
            except ConfigError as error:
                findings += error.findings
        if findings:
            raise ConfigError(findings)
        for upstream in self._routes.keys() - wanted:
            transport = self._routes.pop(upstream).transport
            transport.retire()
            self._retired.add(transport)
        self._routes.update(fresh)

    async def close(self) -> None:
        """Close every connection now."""
        transports = [route.transport for route in self._routes.values()]
        self._routes.clear()
        for transport in (*transports, *self._retired):
            await transport.aclose()

    async def _ask(self, upstream: Upstream, request: Outbound, extensions: dict[str, object]) -> httpx.Response:
        route = self._routes.get(upstream)
        if route is None:
            route = self._routes[upstream] = self._route(upstream)
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

    def _route(self, upstream: Upstream) -> _Route:
        context = None
        if upstream.scheme == "https":
            try:
                context = tls_context(upstream.ca_file, upstream.client_cert_file, upstream.client_key_file)
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
        return _Route(UpstreamTransport(to, limits), url, upstream.base_path)


def _stream(response: httpx.Response) -> httpx.AsyncByteStream:
    """Return the body's stream itself: httpx's readers around it would decode, and cost more than it."""
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("a transport without an asynchronous body")
    return stream


async def _pieces(upstream: Upstream, response: httpx.Response) -> AsyncIterator[bytes]:
    with _mapped(upstream):
        async for piece in _stream(response):
            yield piece


@contextmanager
def _mapped(upstream: Upstream) -> Iterator[None]:
    """Let nothing foreign pass: what httpx raises becomes what the port names."""
    try:
        yield
    except httpx.TransportError as exc:
        reason = next(reason for kind, reason in _FAULTS if isinstance(exc, kind))
        detail = f"upstream {upstream.name}: {exc}"
        if reason is Reason.UPSTREAM_TIMEOUT:
            raise UpstreamTimeout(detail=detail) from exc
        raise UpstreamFault(reason, detail) from exc
    except ConfigError as exc:
        raise UpstreamFault(Reason.UPSTREAM_UNREACHABLE, str(exc)) from exc
