"""Prometheus metrics, from the finished exchange and never on their own.

On the request's path: children are bound once per label set, so that a request costs a few dictionary look-ups and
additions. Every label value comes from a closed set (our enums, the dialects' names, the policy's digest): what a
caller sends never becomes a label. Counters live in this process and start at zero with it; the audit trail, not
this, is the system of record.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from proxy.adapters.replicas import Replica
from proxy.exchange import Action, Degraded, Exchange, Mode, Pattern, Suspicion, Unit
from proxy.reasons import Reason
from proxy.record import Position

NONE = "none"  # the label of what a request did not come to

# Seconds: from a metadata answer out of memory to a model that thinks.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_RequestLabels = tuple[str | None, Action | None, int, Reason]
_AUDIT_UNWRITABLE = Reason.AUDIT_UNWRITABLE  # looking a member up costs as much as a call


class _Durations(Collector):
    """A histogram of seconds. The library's own asks and locks five times for each number; here one loop observes."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._counts = [0] * (len(SECONDS) + 1)  # by the least bound that is not below; the last: above all of them
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Name the metric, so that no other can have its name."""
        yield HistogramMetricFamily(self._name, self._documentation)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return the buckets, each with those below it."""
        bounds = (*map(str, SECONDS), "+Inf")
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric((), list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
        yield family


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
        self._seconds = _Durations("hip_request_seconds", "From the request's first step to its answer.", registry)
        self._upstream_seconds = _Durations(
            "hip_upstream_seconds", "From the forwarded request to the upstream's reply.", registry
        )
        self._rows = Counter("hip_rows", "Rows that were charged.", registry=registry)
        suspicious = Counter(
            "hip_detector_suspicious", "Inputs that a detector found strange.", ("mode",), registry=registry
        )
        self._suspicious = {mode: suspicious.labels(mode.value) for mode in Mode}
        patterns = Counter(
            "hip_sequence_suspicious",
            "Requests whose caller's recent inputs showed a pattern.",
            ("pattern", "mode"),
            registry=registry,
        )
        self._patterns = {
            (pattern, mode): patterns.labels(pattern.value, mode.value) for pattern in Pattern for mode in Mode
        }
        degraded = Counter(
            "hip_degraded", "Answers made coarser, by the rung of the ladder.", ("rung",), registry=registry
        )
        self._degraded = {rung: degraded.labels(rung.value) for rung in Suspicion}
        self._forgotten = Gauge(
            "hip_sequence_callers_forgotten", "Callers whose inputs were forgotten for lack of room.", registry=registry
        )
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
        self._sequence = Gauge(
            "hip_journal_sequence", "Where the last finished request stands.", ("stream",), registry=registry
        )
        self._positions: dict[str, int] = {}  # by stream: a failed one is followed by another
        self._unrecorded = Counter(
            "hip_journal_failures", "Requests refused because they could not be recorded.", registry=registry
        )
        self._left_out = Gauge(
            "hip_journal_unrecorded", "Records left out because `failure: open` let requests pass.", registry=registry
        )
        self._policy = Gauge("hip_policy_info", "The policy that serves.", ("digest",), registry=registry)
        self._reload_failures = Counter(
            "hip_policy_reload_failures", "Policies that were rejected on reload.", registry=registry
        )
        self._certificate = Gauge(
            "hip_certificate_expiry_seconds", "When the server certificate ends, in UNIX time.", registry=registry
        )
        self._certificate_failures = Counter(
            "hip_certificate_reload_failures", "Certificate files that were rejected on reload.", registry=registry
        )
        self._revocations = Gauge(
            "hip_revocations", "Revocations that count, by list: file or shared.", ("list",), registry=registry
        )
        self._revocation_failures = Counter(
            "hip_revocation_reload_failures", "Lists of revocations that were rejected.", ("list",), registry=registry
        )
        self._upstreams_down = Gauge(
            "hip_upstream_open", "1 while the upstream's circuit is open.", ("upstream",), registry=registry
        )
        self._down: Callable[[], Mapping[str, bool]] = dict
        self._replica_up = Gauge(
            "hip_replica_up", "1 while the replica gets requests.", ("upstream", "replica"), registry=registry
        )
        self._replica_requests = Gauge(
            "hip_replica_requests_in_flight",
            "Requests under way at the replica.",
            ("upstream", "replica"),
            registry=registry,
        )
        self._replicas: Callable[[], Iterable[Replica]] = tuple
        self._requests_now = Gauge("hip_requests_in_flight", "Requests under way.", registry=registry)
        self._spans_lost = Gauge("hip_spans_lost", "Spans that reached no collector or file.", registry=registry)
        self._probes = Counter("hip_probes", "Golden probes, by outcome.", ("probe", "outcome"), registry=registry)
        self._probe_changed = Gauge(
            "hip_probe_changed", "1 while the model answers otherwise than its baseline.", ("probe",), registry=registry
        )
        self._quarantined = Gauge(
            "hip_model_quarantined", "1 while a golden probe keeps the model closed.", ("model",), registry=registry
        )
        self._inputs = Gauge(
            "hip_recorded_inputs",
            "Inputs that could be recorded, by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self._recorded: Callable[[], Mapping[str, int]] = dict
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
        if exchange.charge is not None and not exchange.given_back:
            self._rows.inc(exchange.charge.cost.rows)
        if exchange.exhausted is not None:
            self._exhausted[exchange.exhausted.window.unit].inc()
        if exchange.score is not None and exchange.score.suspicious:
            use = exchange.grant.detector if exchange.grant is not None else None
            self._suspicious[use.mode if use is not None else Mode.OFF].inc()
        if exchange.finding is not None and exchange.grant is not None:
            sequences = exchange.grant.detector.sequences if exchange.grant.detector is not None else None
            self._patterns[exchange.finding.pattern, sequences.mode if sequences is not None else Mode.OFF].inc()
        if isinstance(exchange.verdict, Degraded):
            self._degraded[exchange.verdict.response].inc()
        if exchange.reason is _AUDIT_UNWRITABLE:
            self._unrecorded.inc()
        written = 0
        for position in (decision, completion):
            if position is not None and position.seq >= 0:  # else UNRECORDED
                written += 1
                if position.seq > self._positions.get(position.stream, -1):
                    self._positions[position.stream] = position.seq
        if written:
            self._records.inc(written)

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

    def certificate_rejected(self) -> None:
        """Count certificate files that did not come to serve."""
        self._certificate_failures.inc()

    def revocations(self, place: str, entries: int) -> None:
        """Note how many revocations of a list count."""
        self._revocations.labels(place).set(entries)

    def revocations_rejected(self, place: str) -> None:
        """Count a list of revocations, or lines of one, that cannot be read."""
        self._revocation_failures.labels(place).inc()

    def watch_upstreams(self, down: Callable[[], Mapping[str, bool]]) -> None:
        """Ask at each scrape which upstreams are left alone."""
        self._down = down

    def watch_replicas(self, replicas: Callable[[], Iterable[Replica]]) -> None:
        """Ask at each scrape how the replicas are."""
        self._replicas = replicas

    def probed(self, probe: str, outcome: str, *, changed: bool) -> None:
        """Count a golden probe."""
        self._probes.labels(probe, outcome).inc()
        self._probe_changed.labels(probe).set(changed)

    def quarantined(self, models: Collection[str]) -> None:
        """Name the models that golden probes keep closed."""
        self._quarantined.clear()
        for model in models:
            self._quarantined.labels(model).set(1)

    def watch_sequences(self, forgotten: Callable[[], int]) -> None:
        """Ask for the number of forgotten callers at each scrape."""
        self._forgotten.set_function(lambda: float(forgotten()))

    def watch_requests(self, count: Callable[[], int]) -> None:
        """Ask for the number of requests under way at each scrape."""
        self._requests_now.set_function(lambda: float(count()))

    def watch_journal(self, unrecorded: Callable[[], int]) -> None:
        """Ask for the number of records that were left out at each scrape."""
        self._left_out.set_function(lambda: float(unrecorded()))

    def watch_recording(self, outcomes: Callable[[], Mapping[str, int]]) -> None:
        """Ask at each scrape how many inputs were recorded, or not."""
        self._recorded = outcomes

    def watch_spans(self, lost: Callable[[], int]) -> None:
        """Ask for the number of lost spans at each scrape."""
        self._spans_lost.set_function(lambda: float(lost()))

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask for the number of open connections at each scrape."""
        self._connections.set_function(lambda: float(count()))

    def exposition(self) -> bytes:
        """Return the page that Prometheus reads."""
        for stream, seq in self._positions.copy().items():
            self._sequence.labels(stream).set(seq)
        for outcome, count in self._recorded().items():
            self._inputs.labels(outcome).set(count)
        self._upstreams_down.clear()
        for upstream, down in self._down().items():
            self._upstreams_down.labels(upstream).set(down)
        self._replica_up.clear()
        self._replica_requests.clear()
        for replica in self._replicas():
            labels = (replica.upstream.name, replica.upstream.address)
            self._replica_up.labels(*labels).set(not replica.passed_over)
            self._replica_requests.labels(*labels).set(replica.pending)
        return generate_latest(self._registry)
