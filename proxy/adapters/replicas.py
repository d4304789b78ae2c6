"""Which replica of an upstream a request goes to: of those that are well, the one with the fewest requests under way.

A replica is passed over while its circuit is open (`proxy.adapters.breaker`) or its health checks fail
(`proxy.adapters.health`). A request goes to a second replica only if nothing of it was written to the first (its error
is `unsent`): no connection could be had, or none was free. Then nothing was inferred, so that holds for a POST too.
Where nobody can be asked, nobody is.

Not guaranteed: that replicas answer alike, or that other proxies' requests are counted. Each worker counts its own.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from proxy.adapters.breaker import Breaker
from proxy.errors import Overloaded, RequestError, UpstreamTimeout
from proxy.exchange import HealthCheck, Outbound, Reply, Streamed, Upstream
from proxy.ports import UpstreamClient
from proxy.reasons import Reason

_log = logging.getLogger("hip.replicas")


@dataclass(slots=True, eq=False)
class Replica:
    """One server of several, and how it is."""

    upstream: Upstream
    breaker: Breaker
    pending: int = 0  # requests under way
    turn: int = 0  # when it was last chosen: equals take turns
    fault: str = ""  # what its checks found; empty: it is well, or has not been asked yet
    _checked: bool = False
    _against: int = 0  # checks in a row that say otherwise

    @property
    def passed_over(self) -> str:
        """Say why it gets no requests; empty: it does."""
        return self.fault or ("" if self.breaker.admits else "its circuit is open")

    def note(self, fault: str, check: HealthCheck) -> None:
        """Take note of a check; empty: it was good. The first one decides alone."""
        enough = 1 if not self._checked else check.down_after if fault else check.up_after
        self._checked = True
        if bool(fault) is bool(self.fault):
            self._against, self.fault = 0, fault
            return
        self._against += 1
        if self._against < enough:
            return
        self._against, self.fault = 0, fault
        name, address = self.upstream.name, self.upstream.address
        if fault:
            _log.warning("upstream %s: %s is passed over: %s", name, address, fault)
        else:
            self.breaker.answered()
            _log.info("upstream %s: %s is well again", name, address)


@dataclass(slots=True)
class _Group:
    """The replicas of one upstream."""

    name: str
    members: tuple[Replica, ...]
    turns: int

    def order(self) -> Iterator[Replica]:
        """Yield whom to ask, and whom to ask next if nothing could be written there."""
        tried: set[Replica] = set()
        while left := [one for one in self.members if one not in tried and not one.passed_over]:
            best = min(left, key=_busy)
            tried.add(best)
            self.turns += 1
            best.turn = self.turns
            yield best

    def nobody(self) -> Overloaded:
        """Return why nobody is asked."""
        why = "; ".join(f"{one.upstream.address}: {one.passed_over or 'could not be reached'}" for one in self.members)
        waits = [one.upstream.health.every for one in self.members if one.upstream.health is not None]
        retry_after = max(1, round(min(waits, default=1.0)))
        detail = f"no replica of upstream {self.name} can be asked: {why}"
        return Overloaded(Reason.UPSTREAM_OPEN, detail, retry_after=retry_after)


class Replicas:
    """Shares requests among replicas. `client` asks one of them; `breaker` returns what it keeps of one."""

    def __init__(self, client: UpstreamClient, breaker: Callable[[Upstream], Breaker]) -> None:
        self._client = client
        self._breaker = breaker
        self._groups: dict[Upstream, _Group] = {}

    @property
    def upstreams(self) -> Iterable[Upstream]:
        """The upstreams that have replicas."""
        return self._groups.keys()

    def install(self, upstreams: Iterable[Upstream]) -> None:
        """Serve these from now on. What is known of a replica stays while that replica does."""
        known = {one.upstream: one for one in self.members()}
        self._groups = {upstream: self._group(upstream, known) for upstream in upstreams}

    def members(self) -> Iterator[Replica]:
        """Yield every replica."""
        for group in self._groups.values():
            yield from group.members

    async def send(self, upstream: Upstream, request: Outbound) -> Reply:
        """As `ports.UpstreamClient`; raise Overloaded(UPSTREAM_OPEN) where nobody can be asked."""
        group, fault = self._known(upstream), None
        for replica in group.order():
            replica.pending += 1
            try:
                reply = await self._client.send(replica.upstream, request)
            except RequestError as error:
                fault = _elsewhere(error)
            else:
                return Reply(reply.status, reply.headers, reply.body, replica.upstream.address)
            finally:
                replica.pending -= 1
        raise fault or group.nobody()

    @asynccontextmanager
    async def stream(self, upstream: Upstream, request: Outbound) -> AsyncIterator[Streamed]:
        """As `ports.UpstreamClient`; a request counts as under way until its stream ends."""
        group, fault = self._known(upstream), None
        for replica in group.order():
            async with AsyncExitStack() as stack:
                replica.pending += 1
                stack.callback(_left, replica)
                try:
                    begun = await stack.enter_async_context(self._client.stream(replica.upstream, request))
                except RequestError as error:
                    fault = _elsewhere(error)
                    continue
                yield Streamed(begun.status, begun.headers, begun.pieces, replica.upstream.address)
                return
        raise fault or group.nobody()

    def down(self) -> Mapping[str, bool]:
        """Say of every upstream with replicas, by its name, whether none of them can be asked."""
        return {group.name: all(one.passed_over for one in group.members) for group in self._groups.values()}

    def _known(self, upstream: Upstream) -> _Group:
        """Return the group; of an upstream that the policy has just dropped, for a request from before that."""
        group = self._groups.get(upstream)
        if group is None:
            group = self._group(upstream, {one.upstream: one for one in self.members()})
        return group

    def _group(self, upstream: Upstream, known: Mapping[Upstream, Replica]) -> _Group:
        members = tuple(known.get(one) or Replica(one, self._breaker(one)) for one in upstream.replicas)
        return _Group(upstream.name, members, max(one.turn for one in members))


def _busy(replica: Replica) -> tuple[int, int]:
    return replica.pending, replica.turn


def _left(replica: Replica) -> None:
    replica.pending -= 1


def _elsewhere(error: RequestError) -> RequestError:
    """Return the error if another replica may have the request, else raise it: it was written, or its time is over."""
    if error.unsent and not isinstance(error, UpstreamTimeout):
        return error
    raise error
