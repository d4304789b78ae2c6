"""Who is measured. Each starts on its own core with its own files, as its own manual says, and forwards to the same
upstream; what it does for a request stands beside its name, because a figure without that compares nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.lab import hip, peers
from benchmarks.lab.process import Started
from benchmarks.lab.setting import Setting

Start = Callable[[Setting], Started]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server, and what it can be asked."""

    name: str
    does: str
    start: Start
    tls: bool = True
    tokens: bool = True  # it checks tokens and roles
    families: frozenset[str] = frozenset({"oip", "chat"})


DIRECT = "direct"  # no gateway at all: load and upstream alone
HIP = "hip"

_PEERS = (
    Contender("nginx", "TLS, passes through", peers.nginx, tokens=False),
    Contender("envoy", "TLS, JWT with cache, RBAC, local rate limit", peers.envoy),
    Contender("starlette+httpx", "passes through, no TLS", peers.bare, tls=False, tokens=False),
    Contender(
        "litellm",
        "virtual-key check and routing, no TLS",
        peers.litellm,
        tls=False,
        tokens=False,
        families=frozenset({"chat"}),
    ),
)
_OURS = tuple(
    Contender(name, does, hip.starter(name, variant), tls=variant.tls)
    for name, does, variant in (
        (HIP, "everything", hip.Variant()),
        ("hip, no TLS", "everything else", hip.Variant(tls=False)),
        ("hip, no detector", "everything else", hip.Variant(detector=False)),
        ("hip, journal async", "everything else", hip.Variant(durability="async")),
        ("hip, no spans", "everything else", hip.Variant(spans=False)),
        ("hip, loose output", "everything else; scores leave as they are", hip.Variant(hardening=False)),
        ("hip, 1 window", "everything else; one budget window instead of two", hip.Variant(windows=1)),
        (
            "hip, bare",
            "all of these at once",
            hip.Variant(tls=False, detector=False, durability="async", spans=False, hardening=False, windows=1),
        ),
        ("hip, 1000 rules", "everything, with a policy of a thousand rules", hip.Variant(rules=1_000)),
    )
)
CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in (*_OURS, *_PEERS)}
