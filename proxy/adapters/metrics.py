"""Prometheus metrics, from the finished exchange and never on their own.

On the request's path: children are bound once per label set, so that a request costs a few dictionary look-ups and
additions. Every label value comes from a closed set (our enums, the dialects' names, the policy's digest): what a
caller sends never becomes a label. Counters live in this process and start at zero with it; the audit trail, not
this, is the system of record.
"""

from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from proxy.exchange import Action, Exchange, Mode, Unit
from proxy.reasons import Reason
from proxy.record import Position

NONE = "none"  # the label of what a request did not come to

# Seconds: from a metadata answer out of memory to a model that thinks.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_RequestLabels = tuple[str | None, Action | None, int, Reason]


class Metrics:
    """An `Observer`, and the few facts about this process that are not about a request."""

    def __init__(self, dialects: Collection[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for every series doubles what a scrape costs
        self._registry = registry = CollectorRegistry()
        self._dialects = frozenset(dialects)
        requests = Counter(
            "hip_requests", "Requests by outcome.", ("dialect", "action", "status", "reason"), registry=registry
        )
        self._requests = requests
        self._bound: dict[_RequestLabels, Counter] = {}
        self._seconds = Histogram(
            "hip_request_seconds", "From the request's first step to its answer.", buckets=SECONDS, registry=registry
        )
        self._upstream_seconds = Histogram(
            "hip_upstream_seconds",
            "From the forwarded request to the upstream's reply.",
            buckets=SECONDS,
            registry=registry,
        )
        self._rows = Counter("hip_rows", "Rows that were charged.", registry=registry)
        suspicious = Counter(
            "hip_detector_suspicious", "Inputs that a detector found strange.", ("mode",), registry=registry
        )
        self._suspicious = {mode: suspicious.labels(mode.value) for mode in Mode}
        exhausted = Counter(
            "hip_budget_exhausted", "Requests above a budget, by the unit that ran out.", ("unit",), registry=registry
        )
        self._exhausted = {unit: exhausted.labels(unit.value) for unit in Unit}
        refused = Counter(
            "hip_refused_messages",
            "Messages and connections that ended in the listener.",
            ("reason",),
            registry=registry,
        )
        self._refused = {reason: refused.labels(reason.value) for reason in Reason}
        self._records = Counter("hip_journal_records", "Records of requests in the audit journal.", registry=registry)
        self._sequence = Gauge("hip_journal_sequence", "Where the journal stands.", registry=registry)
        self._unrecorded = Counter(
            "hip_journal_failures", "Requests refused because they could not be recorded.", registry=registry
        )
        self._policy = Gauge("hip_policy_info", "The policy that serves.", ("digest",), registry=registry)
        self._reload_failures = Counter(
            "hip_policy_reload_failures", "Policies that were rejected on reload.", registry=registry
        )
        self._certificate = Gauge(
            "hip_certificate_expiry_seconds", "When the server certificate ends, in UNIX time.", registry=registry
        )
        self._connections = Gauge("hip_connections", "Open connections of the data path.", registry=registry)

    def finished(self, exchange: Exchange, decision: Position | None, completion: Position | None) -> None:
        """Count a request."""
        action = exchange.target.action if exchange.target is not None else None
        labels = (exchange.dialect, action, exchange.status, exchange.reason)
        child = self._bound.get(labels)
        if child is None:
            child = self._bind(labels)
        child.inc()
        self._seconds.observe(exchange.finished - exchange.started)
        if exchange.upstream_seconds is not None:
            self._upstream_seconds.observe(exchange.upstream_seconds)
        if exchange.charge is not None:
            self._rows.inc(exchange.charge.cost.rows)
        if exchange.exhausted is not None:
            self._exhausted[exchange.exhausted.window.unit].inc()
        if exchange.score is not None and exchange.score.suspicious:
            use = exchange.grant.detector if exchange.grant is not None else None
            self._suspicious[use.mode if use is not None else Mode.OFF].inc()
        if exchange.reason is Reason.AUDIT_UNWRITABLE:
            self._unrecorded.inc()
        last = completion or decision
        if last is not None:
            self._records.inc(2 if completion is not None and decision is not None else 1)
            self._sequence.set(last.seq)

    def _bind(self, labels: _RequestLabels) -> Counter:
        dialect, action, status, reason = labels
        named = dialect if dialect in self._dialects else None
        child = self._requests.labels(named or NONE, action or NONE, str(status), reason.value)
        self._bound[labels] = child
        return child

    def message_refused(self, reason: Reason) -> None:
        """Count a message that ended in the listener."""
        self._refused[reason].inc()

    def policy_loaded(self, digest: str) -> None:
        """Name the policy that serves from now on."""
        self._policy.clear()
        self._policy.labels(digest).set(1)

    def policy_rejected(self) -> None:
        """Count a policy that did not come to serve."""
        self._reload_failures.inc()

    def certificate_expires(self, at: float) -> None:
        """Note when the server certificate ends, in UNIX seconds."""
        self._certificate.set(at)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask for the number of open connections at each scrape."""
        self._connections.set_function(lambda: float(count()))

    def exposition(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self._registry)
