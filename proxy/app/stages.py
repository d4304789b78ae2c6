"""`hip serve --trace-stages`: how long each step of the one way takes, for the operator's eyes only.

The gateway is the same; what it asks of the world is wrapped, and each call of a port ends two laps: the one before it,
which the gateway spent itself, and its own. Without the option nothing is wrapped and nothing costs. Decides nothing.

Not guaranteed: that a lap is a cost. Where a step waits, other requests run in the middle of it, so read laps as
latency, or ask over one connection. A streamed answer is one lap, `upstream`, until its last byte.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Any, TypeVar, cast

from proxy.gateway import Snapshot, World

KEPT = 4_096  # requests that the figures are of: the last ones
PERCENTILES = (50, 99)

# What a port's method is called in the list, and the lap of the gateway's own that ends where it begins.
_PORTS: Mapping[str, Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "dialect": {
            "classify": ("begin", "classify"),
            "read": ("read body", "read"),
            "harden": ("receive answer", "harden"),
        },
        "sources": {"blocked": ("route", "source limit")},
        "authenticator": {"authenticate": ("schemes", "authenticate")},
        "ledger": {"charge": ("pay", "charge"), "settle": ("pay", "charge")},
        "detector": {"judge": ("inspect", "detector"), "examine": ("inspect", "detector")},
        "sequences": {"observe": ("look", "sequences")},
        "trail": {"append": ("describe records", "journal")},
        "upstreams": {"send": ("compose request", "upstream")},
        "observer": {"finished": ("conclude", "observers")},
    }
)
_RECEIVE, _SEND = ("authorize", "body"), ("answer", "send")  # the edge asks for the body once the caller may send one
_ORDER = (
    *("begin", "classify", "route", "source limit", "schemes", "authenticate", "authorize", "body", "read body"),
    *("read", "pay", "charge", "inspect", "detector", "look", "sequences"),
    *("describe records", "journal", "compose request", "upstream"),
    *("receive answer", "harden", "conclude", "observers", "answer", "send", "end"),
)

Application = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI
T = TypeVar("T")


class Laps:
    """One request's stopwatch."""

    __slots__ = ("began", "laps", "last")

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def end(self, lap: str) -> None:
        """End a lap; a name that comes twice adds up."""
        now = time.perf_counter()
        self.laps[lap] = self.laps.get(lap, 0.0) + now - self.last
        self.last = now


_current: ContextVar[Laps] = ContextVar("laps")


class Stages:
    """The laps of the last requests."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = {}

    def timing(self, app: Application) -> Application:
        """Return the application with a stopwatch for each request."""

        async def timed(scope: Any, receive: Any, send: Any) -> None:
            laps = Laps()
            _current.set(laps)
            await app(scope, _timed(receive, *_RECEIVE), _timed(send, *_SEND))
            laps.end("end")
            for name, seconds in (*laps.laps.items(), ("all", laps.last - laps.began)):
                self._seconds.setdefault(name, deque(maxlen=KEPT)).append(seconds)

        return timed

    def watching(self, world: World) -> World:
        """Return the world with every port timed."""
        plain = world.snapshot()
        timed = _snapshot(plain)

        def snapshot() -> Snapshot:
            nonlocal plain, timed
            if world.snapshot() is not plain:  # reloaded
                plain = world.snapshot()
                timed = _snapshot(plain)
            return timed

        return replace(
            world,
            snapshot=snapshot,
            authenticator=_port("authenticator", world.authenticator),
            sources=_port("sources", world.sources),
            ledger=_port("ledger", world.ledger),
            upstreams=_port("upstreams", world.upstreams),
            sequences=_port("sequences", world.sequences),
            trail=_port("trail", world.trail),
            observers=tuple(_port("observer", observer) for observer in world.observers),
        )

    def table(self) -> Mapping[str, Mapping[str, float]]:
        """Return microseconds for each stage, in the order of the one way, and `all` at the end."""
        return {name: _figures(self._seconds[name]) for name in (*_ORDER, "all") if name in self._seconds}


def _figures(seconds: deque[float]) -> Mapping[str, float]:
    ordered = sorted(seconds)
    figures = {f"p{share}": ordered[len(ordered) * share // 100] * 1e6 for share in PERCENTILES}
    return {"requests": len(ordered), "mean": sum(ordered) / len(ordered) * 1e6, **figures}


def _snapshot(plain: Snapshot) -> Snapshot:
    routes = plain.routes.over(lambda dialect: _port("dialect", dialect))
    detectors = {name: _port("detector", detector) for name, detector in plain.detectors.items()}
    return replace(plain, routes=routes, detectors=detectors)


class _Port:
    """Somebody else's object, with some methods timed."""

    def __init__(self, kind: str, port: object) -> None:
        self._port = port
        for method, (before, during) in _PORTS[kind].items():
            if hasattr(port, method):
                setattr(self, method, _timed(getattr(port, method), before, during))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


def _port(kind: str, port: T) -> T:
    return cast("T", _Port(kind, port))


def _timed(method: Callable[..., Any], before: str, during: str) -> Callable[..., Any]:
    if iscoroutinefunction(method):

        async def waited(*arguments: Any, **named: Any) -> Any:
            laps = _current.get()
            laps.end(before)
            try:
                return await method(*arguments, **named)
            finally:
                laps.end(during)

        return waited

    def called(*arguments: Any, **named: Any) -> Any:
        laps = _current.get()
        laps.end(before)
        try:
            return method(*arguments, **named)
        finally:
            laps.end(during)

    return called
