"""Which server a call is for: its host, the prefix of its path, then what a dialect reads in the rest. Pure.

The gateway and `hip explain` both ask here, so they cannot disagree. A path under a prefix is for that prefix alone, a
host that an upstream names for that host alone: what is not found there is not looked for elsewhere. That no two
servers answer to the same address is decided in `proxy.policy.places`.

Not guaranteed: that a client's TLS server name is the host it asks for; the `Host` field alone decides.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from proxy.dialects import Dialect, spoken
from proxy.errors import UnknownRoute
from proxy.exchange import Headers, Target, Upstream
from proxy.policy.model import Model, Policy
from proxy.reasons import Reason


@dataclass(frozen=True, slots=True)
class Place:
    """What answers under one prefix of one host: servers, by what they speak."""

    under: str  # the prefix with its slash: "/", "/iris/"
    dialects: tuple[Dialect, ...]
    servers: Mapping[str, Upstream]  # by dialect, where there is exactly one
    sole: Mapping[str, str]  # by dialect, where there is exactly one model
    models: Mapping[str, Model]

    def name(self, method: str, path: str, query: str) -> tuple[Dialect, Target, Upstream | None] | None:
        """Name action, model and server, as far as the path says them; None: no dialect here has such a path.

        Without a server, either the body says more (`Target.complete`), or this place has no such model or server.
        Raise what a dialect's `classify` raises.
        """
        path = path[len(self.under) - 1 :]
        named: tuple[Dialect, Target, Upstream | None] | None = None
        for dialect in self.dialects:
            target = dialect.classify(method, path, query)
            if target is None:
                continue
            if target.complete is not None:
                return dialect, target, None
            found = self.locate(dialect, target)
            if found is not None:
                return dialect, *found
            named = dialect, target, None
        return named

    def locate(self, dialect: Dialect, target: Target) -> tuple[Target, Upstream] | None:
        """Return the target in the policy's words, and its server; None: this place has no such model or server."""
        if target.sole:
            target = msgspec.structs.replace(target, model=self.sole.get(dialect.name, ""))
        if target.model is None:
            served = self.servers.get(dialect.name)
            return None if served is None else (target, served)
        model = self.models.get(target.model)
        if model is None or model.upstream.dialect != dialect.name:
            return None
        return msgspec.structs.replace(target, served_as=model.served_as) if model.served_as else target, model.upstream


@dataclass(frozen=True, slots=True)
class Routes:
    """Every place of a policy."""

    anywhere: tuple[Place, ...]  # of servers that name no host, longest prefix first
    hosts: Mapping[bytes, tuple[Place, ...]]  # a named host: its own places and those anywhere, longest prefix first

    def find(self, headers: Headers, path: str) -> Place | None:
        """Return the place that a request is for."""
        places = self.hosts.get(_host(headers), self.anywhere) if self.hosts else self.anywhere
        for place in places:
            if path.startswith(place.under):
                return place
        return None

    def over(self, wrap: Callable[[Dialect], Dialect]) -> "Routes":
        """Return the same with every dialect wrapped."""

        def wrapped(places: Iterable[Place]) -> tuple[Place, ...]:
            return tuple(replace(place, dialects=tuple(map(wrap, place.dialects))) for place in places)

        return Routes(wrapped(self.anywhere), {host: wrapped(places) for host, places in self.hosts.items()})


def routes(policy: Policy) -> Routes:
    """Return the places of a policy."""
    grouped: dict[tuple[str | None, str], list[Upstream]] = defaultdict(list)
    for upstream in policy.upstreams.values():
        grouped[upstream.public_host, upstream.prefix].append(upstream)
    places = {key: _place(key[1], upstreams, policy.models) for key, upstreams in grouped.items()}

    def on(host: str | None) -> tuple[Place, ...]:
        found = [place for (named, _), place in places.items() if named in {None, host}]
        return tuple(sorted(found, key=lambda place: -len(place.under)))

    hosts = {host for host, _ in places if host is not None}
    return Routes(on(None), MappingProxyType({host.encode("ascii"): on(host) for host in hosts}))


def nowhere(target: Target | None) -> UnknownRoute:
    """Return why a request has no server."""
    if target is None:
        return UnknownRoute()
    if target.model is None and not target.sole:
        return UnknownRoute(detail="a server-wide path, and not exactly one upstream of this dialect")
    return UnknownRoute(Reason.UNKNOWN_MODEL)


def _place(prefix: str, upstreams: list[Upstream], models: Mapping[str, Model]) -> Place:
    here = {name: model for name, model in models.items() if model.upstream in upstreams}
    named: dict[str, list[str]] = defaultdict(list)
    for name, model in here.items():
        named[model.upstream.dialect].append(name)
    served: dict[str, list[Upstream]] = defaultdict(list)
    for upstream in upstreams:
        served[upstream.dialect].append(upstream)
    return Place(
        under=f"{prefix}/",
        dialects=spoken(upstreams),
        servers={dialect: those[0] for dialect, those in served.items() if len(those) == 1},
        sole={dialect: names[0] for dialect, names in named.items() if len(names) == 1},
        models=here,
    )


def _host(headers: Headers) -> bytes:
    """Return the host that a request names, without its port, in lower case (RFC 9110 section 4.2.3); else nothing."""
    named = [value for name, value in headers if name == b"host"]
    if len(named) != 1:
        return b""
    host = named[0].lower()
    return host if host.startswith(b"[") else host.partition(b":")[0]
