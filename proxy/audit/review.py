"""What a reviewer is shown: what is new since the last review, over all streams. Decides nothing; counts.

A `Witness` for each pass: `Reviews` finds the last review, `Since` gathers what came after the time it covered.
"""

from collections import Counter

from proxy.audit.chain import Envelope
from proxy.audit.summary import Change, Summary
from proxy.record import AnyEvent, Decision, Review

MAX_KNOWN = 1_000_000  # clients of before that are told from new ones


class _Passive:
    """A witness that looks at records only."""

    def begin(self, size: int, peaks: list[bytes]) -> None:
        """Begin in the middle of a stream."""

    def withheld(self, seq: int, leaf: bytes) -> None:
        """Pass over a record that is not there."""

    def sealed(self, note: str, certificate: str) -> None:
        """Pass over a signed head."""


class Reviews(_Passive):
    """Finds the review that went furthest, and the newest time on record."""

    def __init__(self) -> None:
        self.last: Review | None = None
        self.newest_ns = 0

    def record(self, envelope: Envelope, event: AnyEvent | None, line: bytes, leaf: bytes) -> None:  # noqa: ARG002 - the signature of the port
        """Take a record."""
        self.newest_ns = max(self.newest_ns, envelope.t_ns)
        if isinstance(event, Review) and (self.last is None or event.until_ns > self.last.until_ns):
            self.last = event


class Since(_Passive):
    """Gathers what came after a moment."""

    def __init__(self, since_ns: int) -> None:
        self.summary = Summary()
        self.new_refusals: Counter[tuple[str, str]] = Counter()  # rule or none, reason: not seen before
        self._since_ns = since_ns
        self._clients: set[str] = set()
        self._refusals: set[tuple[str, str]] = set()

    def record(self, envelope: Envelope, event: AnyEvent | None, line: bytes, leaf: bytes) -> None:  # noqa: ARG002 - the signature of the port
        """Take a record."""
        if event is None:
            return
        if envelope.t_ns > self._since_ns:
            self.summary.take(envelope, event)
        if not isinstance(event, Decision):
            return
        kind = (event.rule or "no rule", event.reason)
        if envelope.t_ns > self._since_ns:
            self.new_refusals[kind] += event.effect == "deny"
            return
        if event.effect == "deny":
            self._refusals.add(kind)
        if event.actor is not None and len(self._clients) < MAX_KNOWN:
            self._clients.add(event.actor.subject)

    def refusals(self) -> list[tuple[str, str, int]]:
        """Return the kinds of refusal that had not been seen before."""
        counted = self.new_refusals.most_common()
        return [(*kind, number) for kind, number in counted if number and kind not in self._refusals]

    def clients(self) -> list[tuple[str, int]]:
        """Return the clients that had not been seen before, with their requests."""
        seen = self.summary.clients.items()
        return sorted(((name, one.requests) for name, one in seen if name not in self._clients), key=lambda e: -e[1])

    def changes(self) -> list[Change]:
        """Return what changed."""
        return list(self.summary.changes)
