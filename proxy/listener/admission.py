"""How many connections may be open: in all, and from one source. Counted from accept, so that handshakes count too."""

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address

IPV6_SOURCE_BITS = 64  # one subscriber has a whole /64, and all its addresses are one source


class Admission:
    """The doorkeeper of one listener."""

    def __init__(self, connections: int, per_source: int) -> None:
        self._connections = connections
        self._per_source = per_source
        self._sources: Counter[object] = Counter()
        self.open = 0

    def enter(self, address: str) -> Callable[[], None] | None:
        """Return the way out, to be called once or more often; None when there is no room."""
        source = source_of(address)
        if self.open >= self._connections or self._sources[source] >= self._per_source:
            return None
        self.open += 1
        self._sources[source] += 1
        inside = True

        def leave() -> None:
            nonlocal inside
            if not inside:
                return
            inside = False
            self.open -= 1
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]

        return leave


def source_of(address: str) -> object:
    """Return what an address is counted under."""
    if ":" not in address:
        return address
    return int(IPv6Address(address.partition("%")[0])) >> (128 - IPV6_SOURCE_BITS)
