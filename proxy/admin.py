"""The admin listener's application: is the process alive, may it have traffic, what does it count.

Apart from the data path and without authentication: bind it to loopback or to a network that only the platform
reaches. It decides nothing and changes nothing. A limit per source address keeps a stuck probe from eating the worker.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PROBES = "600/minute"  # per source address; a kubelet and a Prometheus need about 20


class Health(StrEnum):
    """How one part of the house is."""

    OK = "ok"
    WARNING = "warning"  # serves, and somebody should look
    FAILED = "failed"  # requests would be refused


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the house, in words for an operator."""

    health: Health
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this process should have traffic, and why."""

    policy: str  # digest of the policy that serves
    draining: bool
    checks: Mapping[str, Check] = field(default_factory=dict)  # policy, keys, ledger, trail, certificate, …

    @property
    def ready(self) -> bool:
        """Say whether to send requests here."""
        return not self.draining and all(check.health is not Health.FAILED for check in self.checks.values())


class _Limiter(Limiter):
    """slowapi's limiter, which lets RATELIMIT_* variables and a .env file switch it off; ours is set here only."""

    def get_app_config(self, key: str, default_value: Any = None) -> Any:
        del key
        return default_value


def admin_app(
    readiness: Callable[[], Readiness],
    metrics: Callable[[], bytes],
    stages: Callable[[], Mapping[str, Mapping[str, float]]] | None = None,
) -> Starlette:
    """Return the application; the callables are asked at each request, and must be quick. Without `stages`, no page."""
    limiter = _Limiter(_source, storage_uri="memory://", swallow_errors=False)
    limit = limiter.shared_limit(PROBES, scope="admin")

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - slowapi takes the request by its name
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:  # noqa: ARG001 - slowapi takes the request by its name
        state = readiness()
        body = {
            "status": "ready" if state.ready else "draining" if state.draining else "failing",
            "policy": state.policy,
            "checks": {name: {"health": check.health, "detail": check.detail} for name, check in state.checks.items()},
        }
        return JSONResponse(body, status_code=200 if state.ready else 503)

    async def metricsz(request: Request) -> Response:  # noqa: ARG001 - slowapi takes the request by its name
        return Response(metrics(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    routes = [
        Route("/healthz", limit(healthz), methods=["GET"]),
        Route("/readyz", limit(readyz), methods=["GET"]),
        Route("/metrics", limit(metricsz), methods=["GET"]),
    ]
    if stages is not None:
        routes.append(Route("/stages", limit(_page(stages)), methods=["GET"]))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _problem, RateLimitExceeded: _too_many})
    app.router.redirect_slashes = False  # a redirect is built from the Host header
    app.state.limiter = limiter
    return app


def _page(stages: Callable[[], Mapping[str, Mapping[str, float]]]) -> Callable[[Request], Awaitable[Response]]:
    async def stagesz(request: Request) -> Response:  # noqa: ARG001 - slowapi takes the request by its name
        return JSONResponse(stages())

    return stagesz


def _source(request: Request) -> str:
    """Who is asking: the socket's word, put there by the listener; a missing one fails loudly, never as ''."""
    address = request.scope["state"]["peer"].address
    if not address:
        raise ValueError("a peer without an address")
    return str(address)


def _problem(_request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    title = {404: "not found", 405: "method not allowed"}.get(status, "the request could not be handled")
    headers = exc.headers if isinstance(exc, HTTPException) else None
    body = {"type": "about:blank", "title": title, "status": status}
    return JSONResponse(body, status_code=status, headers=headers, media_type="application/problem+json")


def _too_many(_request: Request, _exc: Exception) -> Response:
    body = {"type": "about:blank", "title": "too many requests", "status": 429}
    return JSONResponse(body, status_code=429, headers={"retry-after": "60"}, media_type="application/problem+json")
