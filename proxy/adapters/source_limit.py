"""How often a source address may fail to authenticate, before anybody has read what it sends.

slowapi's `Limiter` counts, on a storage of ours: the one of `limits` starts a thread for every few hits and walks
through all addresses each time. Only failures count, so that a busy client behind a shared address is never slowed.
IPv6 counts by /64, the least that one subscriber gets (RFC 6177); an address that cannot be read shares one count with
all others of its kind, instead of having none.

Not guaranteed: the window begins with the first failure, so two bursts can meet at its end (twice the limit); workers
count apart; a sender with more than `CAPACITY` addresses in one window gets the oldest back. It spares us work and
slows guessing down; what keeps callers out is the signature on their token.
"""

import math
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from limits import RateLimitItemPerSecond
from limits.storage import Storage
from slowapi import Limiter

from proxy.exchange import Window
from proxy.ports import Clock

CAPACITY = 65_536  # addresses with a failure in the current window
SUBSCRIBER_BITS = 64  # of an IPv6 address
KEYS = 4_096  # addresses whose reading is remembered: it is most of what a request pays here


class SourceLimit:
    """`proxy.ports.Sources` for one worker."""

    def __init__(self, window: Window, clock: Clock, capacity: int = CAPACITY) -> None:
        if window.limit < 1 or window.seconds < 1 or capacity < 1:
            msg = f"not a limit: {window} for {capacity} addresses"
            raise ValueError(msg)
        self._clock = clock
        self._rate = RateLimitItemPerSecond(window.limit, window.seconds, "source")
        # Everything is said here, because slowapi reads what is left unsaid from the environment and from `.env`. The
        # engine is asked directly: slowapi's own checks can be switched off by RATELIMIT_ENABLED.
        self._engine = Limiter(
            key_func=_key,
            strategy="fixed-window",
            storage_uri="hip-bounded://",
            storage_options={"clock": clock, "capacity": capacity},  # type: ignore[dict-item]  # passed on as they are
            swallow_errors=False,
            in_memory_fallback_enabled=False,
        ).limiter
        self._seconds = window.seconds
        self._quiet_from = -math.inf  # monotonic: when the last window ends

    def blocked(self, address: str) -> int | None:
        """Return the seconds to wait when the address has failed too often, else None. Counts nothing."""
        if self._clock.monotonic() >= self._quiet_from:  # as nearly always: nobody has failed of late
            return None
        key = _key(address)
        if self._engine.test(self._rate, key):
            return None
        until = self._engine.get_window_stats(self._rate, key).reset_time
        return max(1, math.ceil(until - self._clock.monotonic()))

    def failed(self, address: str) -> None:
        """Count a failed authentication."""
        self._quiet_from = self._clock.monotonic() + self._seconds
        self._engine.hit(self._rate, _key(address))


class BoundedMemory(Storage):
    """A storage for one rate in bounded memory. All windows are equally long, so that the first in is the first out."""

    STORAGE_SCHEME = ["hip-bounded"]  # noqa: RUF012 - the base class declares it so

    def __init__(self, uri: str, *, clock: Clock, capacity: int, wrap_exceptions: bool = False) -> None:
        super().__init__(uri, wrap_exceptions)
        self._clock = clock
        self._capacity = capacity
        self._windows: dict[str, tuple[float, int]] = {}  # when it ends (monotonic seconds), hits

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, in the key's window or in a new one."""
        now = self._clock.monotonic()
        self._forget(now)
        until, count = self._windows.get(key, (now + expiry, 0))
        if not count and len(self._windows) >= self._capacity:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = until, count + amount
        return count + amount

    def get(self, key: str) -> int:
        """Return the count of the key's window."""
        self._forget(self._clock.monotonic())
        return self._windows.get(key, (0.0, 0))[1]

    def get_expiry(self, key: str) -> float:
        """Return when the key's window ends, in monotonic seconds."""
        return self._windows.get(key, (self._clock.monotonic(), 0))[0]

    def check(self) -> bool:
        """Say that memory is there."""
        return True

    def reset(self) -> int:
        """Forget everything."""
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget one key."""
        self._windows.pop(key, None)

    @property
    def base_exceptions(self) -> type[Exception]:
        """Return what a storage may raise: this one, nothing."""
        return ValueError

    def _forget(self, now: float) -> None:
        while self._windows:
            key = next(iter(self._windows))
            if self._windows[key][0] > now:
                return
            del self._windows[key]


@lru_cache(KEYS)
def _key(address: str) -> str:
    try:
        source = ip_address(address)
    except ValueError:
        return "unreadable"
    if isinstance(source, IPv6Address):
        if source.ipv4_mapped is None:
            return f"v6-{int(source) >> SUBSCRIBER_BITS:x}"
        source = source.ipv4_mapped  # the same client on a dual-stack socket
    return f"v4-{source}"
