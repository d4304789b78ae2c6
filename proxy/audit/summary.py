"""What a report says of a journal, gathered record by record in bounded memory.

Decides what is counted and what is kept as an example. It counts what the records say; whether they are genuine is the
verifier's part, which sees every record first. Beyond a cap the rest is counted, and said to be so.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.audit.chain import Envelope
from proxy.audit.timeline import Lowest, Timeline
from proxy.reasons import Reason
from proxy.record import (
    Actor,
    AnyEvent,
    CertificateChange,
    Completion,
    Decision,
    Gap,
    InputsRecorded,
    Judged,
    Lookup,
    Obligations,
    PolicyChange,
    Probed,
    Recovered,
    Retention,
    Review,
    RevocationChange,
    Segment,
    Spent,
    Start,
    Stop,
)

MAX_CLIENTS = 5_000  # that are told apart
MAX_DETECTORS = 100  # of a version of a model
MAX_CHANGES = 500  # entries of the timeline, the newest
MAX_INCIDENTS = 200  # upstream errors with their places, the newest
MAX_OPEN = 100_000  # decisions whose completion is awaited
BINS = 30  # of a detector's histogram …
BIN = 0.1  # … each so wide, in units of the threshold; what is beyond counts in the last one

MFA = frozenset({Reason.MFA_MISSING, Reason.MFA_TOO_OLD})


@dataclass(slots=True)
class Client:
    """One caller, by its pseudonym."""

    issuer: str
    requests: int = 0
    refused: int = 0
    rows: int = 0
    judged: int = 0
    suspicious: int = 0  # inputs that a detector found strange, whatever was done about it
    sequences: int = 0  # requests that were suspicious for what came before them
    exhausted: int = 0
    mfa: int = 0
    tokens: int = 0

    @property
    def suspicion(self) -> float:
        """Rank: what points to model extraction weighs more than what points to haste."""
        return 10 * self.sequences + 3 * self.suspicious + self.exhausted


@dataclass(slots=True)
class BudgetUse:
    """One budget of one client: what was left of each window."""

    greatest: list[int]  # what was ever left: the best guess at the limit, which records do not name
    lowest: list[int]
    course: list[Lowest]
    refused: int = 0


@dataclass(slots=True)
class DetectorUse:
    """One detector on one version of a model."""

    model: str
    version: str  # as callers asked for it; empty: they left it to the server
    name: str
    digest: str
    since_ns: int
    mode: str = ""
    alpha: float = 0.0
    bins: list[int] = field(default_factory=lambda: [0] * BINS)  # statistic / threshold
    verdicts: Counter[str] = field(default_factory=Counter)
    judged: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the timeline."""

    t_ns: int
    stream: str
    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class UpstreamIncident:
    """An answer that failed behind us."""

    t_ns: int
    event: str
    upstream: str
    status: int | None
    reason: str
    errors: str


@dataclass(slots=True)
class Hole:
    """A time in which nothing could be recorded, and therefore nothing was forwarded."""

    t_ns: int
    stream: str
    cause: str
    refused: int
    seconds: float
    unrecorded: int


class Summary:
    """The whole report's numbers."""

    def __init__(self) -> None:
        self.first_ns = self.last_ns = 0
        self.decisions = self.allowed = self.completed = 0
        self.refusals: Counter[str] = Counter()  # by reason
        self.outcomes: Counter[str] = Counter()  # of what was allowed
        self.denials = Timeline()
        self.requests = Timeline()
        self.mfa = Timeline()
        self.clients: dict[str, Client] = {}
        self.more_clients = 0  # requests of clients beyond the cap
        self.budgets: dict[tuple[str, str], BudgetUse] = {}
        self.patterns: Counter[tuple[str, str]] = Counter()  # of query sequences: pattern and verdict
        self.detectors: dict[tuple[str, str, str], DetectorUse] = {}  # by model, version and detector digest
        self.more_judged = 0  # requests beyond the detectors told apart: callers name versions
        self.models: Counter[str] = Counter()
        self.changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self.rotations: deque[Change] = deque(maxlen=MAX_CHANGES)  # new keys come hourly: apart, they crowd out nothing
        self.changed = 0
        self.incidents: deque[UpstreamIncident] = deque(maxlen=MAX_INCIDENTS)
        self.upstream_errors: Counter[tuple[str, str]] = Counter()
        self.holes: list[Hole] = []
        self.open_starts = 0  # processes that were told to let requests pass without a record
        self.obligations_missed = 0
        self.probes: Counter[str] = Counter()  # by outcome
        self._probes: dict[tuple[str, str], tuple[str, bool]] = {}  # the newest of each stream and probe
        self._asked: dict[str, Obligations] = {}
        self._takes: dict[type, Callable[..., None]] = {
            Decision: self._decision,
            Completion: self._completion,
            Start: self._start,
            Stop: self._stop,
            PolicyChange: self._policy,
            CertificateChange: self._certificate,
            RevocationChange: self._revocations,
            Probed: self._probed,
            InputsRecorded: self._inputs,
            Segment: self._segment,
            Recovered: self._recovered,
            Gap: self._gap,
            Retention: self._retention,
            Lookup: self._lookup,
            Review: self._review,
        }

    @property
    def mfa_reasons(self) -> Counter[str]:
        """The refusals for want of a second factor."""
        return Counter({reason: self.refusals[reason] for reason in MFA if self.refusals[reason]})

    def take(self, envelope: Envelope, event: AnyEvent) -> None:
        """Count a record."""
        if not self.first_ns or envelope.t_ns < self.first_ns:
            self.first_ns = envelope.t_ns
        self.last_ns = max(self.last_ns, envelope.t_ns)
        take = self._takes.get(type(event))
        if take is not None:
            take(envelope, event)

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────

    def _decision(self, envelope: Envelope, event: Decision) -> None:
        self.decisions += 1
        refused = event.effect == "deny"
        self.requests.count(envelope.t_ns, event.effect)
        if refused:
            self.refusals[event.reason] += 1
            self.denials.count(envelope.t_ns, event.reason)
            if event.reason in MFA:
                self.mfa.count(envelope.t_ns, event.reason)
        else:
            self.allowed += 1
            if event.obligations is not None and len(self._asked) < MAX_OPEN:
                self._asked[event.event] = event.obligations
        if event.model is not None:
            self.models[event.model] += 1
        if event.actor is not None:
            self._client(envelope, event, event.actor, refused)
        if event.judged is not None:
            self._judged(envelope, event.model or "", event.version or "", event.judged)

    def _client(self, envelope: Envelope, event: Decision, actor: Actor, refused: bool) -> None:
        client = self.clients.get(actor.subject)
        if client is None:
            if len(self.clients) >= MAX_CLIENTS:
                self.more_clients += 1
                return
            client = self.clients[actor.subject] = Client(actor.issuer)
        client.requests += 1
        client.refused += refused
        client.mfa += event.reason in MFA
        if event.judged is not None:
            client.judged += 1
            client.suspicious += event.judged.verdict != "pass"
            client.sequences += event.judged.sequence is not None and event.judged.sequence.verdict != "pass"
        if event.spent is not None:
            self._spent(envelope, client, actor.subject, event.spent)

    def _spent(self, envelope: Envelope, client: Client, subject: str, spent: Spent) -> None:
        use = self.budgets.get((subject, spent.budget))
        if use is None or len(use.course) != len(spent.remaining):  # a budget may get another window
            use = BudgetUse(list(spent.remaining), list(spent.remaining), [Lowest() for _ in spent.remaining])
            self.budgets[subject, spent.budget] = use
        if spent.revision is None:
            use.refused += 1
            client.exhausted += 1
        else:
            client.rows += spent.rows
            client.tokens += spent.tokens
        for at, left in enumerate(spent.remaining):
            if left > use.greatest[at]:
                use.greatest[at] = left
            if left < use.lowest[at]:
                use.lowest[at] = left
            use.course[at].note(envelope.t_ns, left)

    def _judged(self, envelope: Envelope, model: str, version: str, judged: Judged) -> None:
        if judged.sequence is not None:
            self.patterns[judged.sequence.pattern, judged.sequence.verdict] += 1
        use = self.detectors.get((model, version, judged.digest))
        if use is None:
            if len(self.detectors) >= MAX_DETECTORS:
                self.more_judged += 1
                return
            if all((model, judged.digest) != (seen.model, seen.digest) for seen in self.detectors.values()):
                self._changed(envelope, "detector", f"{judged.detector} {judged.digest[:12]} judges model {model}")
            use = DetectorUse(model, version, judged.detector, judged.digest, envelope.t_ns)
            self.detectors[model, version, judged.digest] = use
        use.judged += 1
        use.mode, use.alpha = judged.mode, judged.alpha
        use.verdicts[judged.verdict] += 1
        if judged.threshold > 0:
            use.bins[min(BINS - 1, max(0, int(judged.statistic / judged.threshold / BIN)))] += 1

    def _completion(self, envelope: Envelope, event: Completion) -> None:
        self.completed += 1
        self.outcomes[event.reason] += 1
        asked = self._asked.pop(event.event, None)
        if event.applied is not None and asked is not None and not _kept(asked, event.applied):
            self.obligations_missed += 1
        error = event.upstream_error
        if event.reason != Reason.ALLOWED and event.upstream is not None:
            self.upstream_errors[event.upstream, event.reason] += 1
            words = () if error is None else (*error.errors, *error.places)
            self.incidents.append(
                UpstreamIncident(
                    envelope.t_ns, event.event, event.upstream, event.upstream_status, event.reason, ", ".join(words)
                )
            )

    # ── what changed ────────────────────────────────────────────────────────────────────────────────────────────

    def _changed(self, envelope: Envelope, kind: str, what: str) -> None:
        self.changed += 1
        self.changes.append(Change(envelope.t_ns, envelope.stream, kind, what))

    def _start(self, envelope: Envelope, event: Start) -> None:
        who = f"{event.replica or 'replica ?'}, worker {event.worker}"
        digests = f"policy {event.policy[:12]}, configuration {event.configuration[:12]}"
        self.open_starts += event.failure == "open"
        words = ", FAILURE OPEN" if event.failure == "open" else ""
        self._changed(envelope, "start", f"version {event.version}, {who}, {digests}{words}")

    def _stop(self, envelope: Envelope, event: Stop) -> None:
        self._changed(envelope, "stop", f"in order, after {event.requests} requests")

    def _policy(self, envelope: Envelope, event: PolicyChange) -> None:
        what = f"{event.previous[:12]} → {event.policy[:12]}"
        if event.effect == "rejected":
            what = f"a change with {event.findings} faults was rejected; {event.policy[:12]} still serves"
        self._changed(envelope, "policy", what)

    def _certificate(self, envelope: Envelope, event: CertificateChange) -> None:
        told = event.fingerprint[:12] if event.effect == "loaded" else f"rejected, {event.findings} faults"
        self._changed(envelope, "certificate", f"{event.place}: {told}")

    def _revocations(self, envelope: Envelope, event: RevocationChange) -> None:
        told = f"rejected, {event.findings} faults" if event.effect == "rejected" else f"{event.entries} revoked"
        self._changed(envelope, "revocations", f"{event.place}: {told}")

    def _probed(self, envelope: Envelope, event: Probed) -> None:
        """Tell what is news: a probe is asked often, and most often nothing has changed."""
        before = self._probes.get((envelope.stream, event.probe))
        now = (event.outcome, event.quarantined)
        self._probes[envelope.stream, event.probe] = now
        self.probes[event.outcome] += 1
        if before != now and (before is not None or now != ("same", False)):
            closed = ", and the model is closed" if event.quarantined else ""
            said = f": {event.detail}" if event.detail else ""
            self._changed(envelope, "probe", f"{event.probe} of {event.model}: {event.outcome}{closed}{said}")

    def _inputs(self, envelope: Envelope, event: InputsRecorded) -> None:
        told = {"begun": f", readable by {event.recipient}", "ended": f", {event.rows} rows", "deleted": ""}
        what = f"recorded inputs of {event.model}: {event.file} {event.effect}{told[event.effect]}"
        self._changed(envelope, "inputs", what)

    def _segment(self, envelope: Envelope, event: Segment) -> None:
        self.changed += 1
        what = f"file {event.index} begins with a new signing key"
        self.rotations.append(Change(envelope.t_ns, envelope.stream, "key", what))

    def _recovered(self, envelope: Envelope, event: Recovered) -> None:
        self._changed(envelope, "crash", f"{event.stream} ended without order after {event.size} records")

    def _retention(self, envelope: Envelope, event: Retention) -> None:
        what = f"{event.segments} files of {event.stream}, up to record {event.size - 1}, by {event.profile}"
        self._changed(envelope, "deletion", what)

    def _lookup(self, envelope: Envelope, event: Lookup) -> None:
        what = f"{event.by} looked for {len(event.pseudonyms)} pseudonyms, {event.found} found: {event.purpose}"
        self._changed(envelope, "lookup", what)

    def _review(self, envelope: Envelope, event: Review) -> None:
        self._changed(envelope, "review", f"{event.by} reviewed to anchor line {event.anchor_line}: {event.remark}")

    def _gap(self, envelope: Envelope, event: Gap) -> None:
        self.holes.append(
            Hole(envelope.t_ns, envelope.stream, event.cause, event.refused, event.seconds, event.unrecorded)
        )
        passed = f", {event.unrecorded} records left out" if event.unrecorded else ""
        self._changed(envelope, "gap", f"{event.seconds:.1f} s, {event.refused} refused{passed}: {event.cause}")


def _kept(asked: Obligations, applied: Obligations) -> bool:
    """Say whether an answer was at least as coarse as it had to be; a label alone is the coarsest."""
    if applied.label_only:
        return True
    pairs = ((asked.decimals, applied.decimals), (asked.top_k, applied.top_k))
    return not asked.label_only and all(cap is None or (used is not None and used <= cap) for cap, used in pairs)
