"""Does the journal tell the same story as spans, metrics and upstreams, which it does not control?

Decides what agrees, what differs, what explains a difference, and where no comparison is possible; in words for an
auditor. Nothing it compares with is signed: agreement makes a lie harder, a difference says where to look.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.audit.chain import Envelope
from proxy.audit.pointers import Pointer
from proxy.record import AnyEvent, Completion, Decision

MAX_SPANS = 1_000_000  # server spans that are compared; about 420 bytes each, both records


class Verdict(StrEnum):
    """What a comparison found."""

    AGREES = "agrees"
    EXPLAINED = "explained"
    DIFFERS = "differs"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. A number that is not known is None."""

    what: str
    source: str
    journal: int | None
    other: int | None
    verdict: Verdict
    words: str


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one page of metrics says. A process counts from its own start, and names the streams it wrote."""

    name: str
    positions: Mapping[str, int]  # stream → `seq` of the last record of a finished request
    records: int  # of requests
    forwarded: int
    refused: int  # messages that ended in the listener
    failures: int  # requests that could not be recorded
    in_flight: int
    spans_lost: int


@dataclass(slots=True)
class _Tally:
    """What the journal says within one scrape's reach."""

    records: int = 0
    forwarded: int = 0
    refused: int = 0
    seen: set[str] = field(default_factory=set)  # streams


class Reconciliation:
    """Takes what others say first, then every record of the journal; `rows` is the answer."""

    def __init__(self, scrapes: tuple[Scrape, ...] = (), upstreams: Mapping[str, int] | None = None) -> None:
        self._scrapes = scrapes
        self._tallies = [_Tally() for _ in scrapes]
        self._upstreams = upstreams or {}
        self._pointed: dict[tuple[str, int], bytes] = {}  # place → hash, of decisions and completions
        self._spans_given = False
        self._spans = self._doubled = self._unrecorded = self._halves = self._without = self._too_many = 0
        self._first_ns = self._last_ns = 0
        self._matched = self._contradicted = self._unspanned = self._outside = 0
        self._requests = self._completions = self._withheld = self._unpaired = 0
        self._forwarded: Counter[str] = Counter()

    # ── what others say ─────────────────────────────────────────────────────────────────────────────────────────

    def spans_given(self) -> None:
        """Take note that spans are compared, even when there are none."""
        self._spans_given = True

    def span(self, pointer: Pointer) -> None:
        """Take a server span."""
        self._spans += 1
        self._first_ns = min(self._first_ns or pointer.start_ns, pointer.start_ns)
        self._last_ns = max(self._last_ns, pointer.end_ns)
        if pointer.unrecorded:
            self._unrecorded += 1
            self._halves += pointer.completion_seq >= 0  # written after the gap; the span does not say in which stream
        elif not pointer.stream:
            self._without += 1
        elif self._spans > MAX_SPANS:
            self._too_many += 1
        elif (before := self._pointed.get((pointer.stream, pointer.decision_seq))) is not None:
            if before == _bytes(pointer.decision_hash):
                self._doubled += 1
            else:  # two hashes of one record: at most one of the spans tells the truth
                self._contradicted += 1
        else:
            self._pointed[pointer.stream, pointer.decision_seq] = _bytes(pointer.decision_hash)
            if pointer.completion_seq >= 0:
                self._pointed[pointer.stream, pointer.completion_seq] = _bytes(pointer.completion_hash)

    # ── what the journal says ───────────────────────────────────────────────────────────────────────────────────

    def take(self, envelope: Envelope, event: AnyEvent, leaf: bytes) -> None:
        """Take a record of the journal."""
        if isinstance(event, Decision | Completion):
            request = not isinstance(event, Decision) or bool(event.method)  # else the listener refused it
            if request:
                self._compare(envelope.stream, envelope.seq, leaf, envelope.t_ns)
            if isinstance(event, Decision):
                self._requests += request
                self._unpaired += event.effect == "allow"
            else:
                self._completions += 1
                self._unpaired -= 1
                if event.upstream is not None and event.upstream_ms is not None and not event.given_back:
                    self._forwarded[event.upstream] += 1
            self._tally(envelope, event, request=request)

    def withheld(self, stream: str, seq: int, leaf: bytes) -> None:
        """Take a record of which only the hash is there: a span can still vouch for it."""
        self._withheld += 1
        said = self._pointed.pop((stream, seq), None)
        if said is not None:
            self._matched += said == leaf
            self._contradicted += said != leaf

    def _compare(self, stream: str, seq: int, leaf: bytes, t_ns: int) -> None:
        said = self._pointed.pop((stream, seq), None)
        if said is not None:
            self._matched += said == leaf
            self._contradicted += said != leaf
        elif self._first_ns <= t_ns <= self._last_ns:
            self._unspanned += 1
        else:
            self._outside += 1

    def _tally(self, envelope: Envelope, event: Decision | Completion, *, request: bool) -> None:
        for scrape, tally in zip(self._scrapes, self._tallies, strict=True):
            position = scrape.positions.get(envelope.stream)
            if position is None:
                continue
            tally.seen.add(envelope.stream)
            if envelope.seq > position:
                continue
            tally.records += request
            tally.refused += not request
            tally.forwarded += isinstance(event, Completion) and event.upstream_ms is not None

    # ── what comes of it ────────────────────────────────────────────────────────────────────────────────────────

    def rows(self) -> list[Row]:
        """Return every comparison, also those that are not possible."""
        found = [self._span_row()]
        found += [row for scrape, tally in zip(self._scrapes, self._tallies, strict=True) for row in _of(scrape, tally)]
        if not self._scrapes:
            found.append(_missing("records and forwarded requests", "metrics", "--metrics", self._requests))
        found += [self._upstream_row(name, counted) for name, counted in sorted(self._upstreams.items())]
        if not self._upstreams:
            total = sum(self._forwarded.values())
            found.append(_missing("requests that reached an upstream", "upstreams", "--upstream", total))
        return found

    def _span_row(self) -> Row:
        records = self._requests + self._completions
        what = "records that a span points to"
        if not self._spans_given:
            return _missing(what, "spans", "--spans", records)
        told = [f"{self._spans:,} requests have a span; {self._matched:,} records are as the spans say."]
        verdict = Verdict.AGREES
        lost = sum(scrape.spans_lost for scrape in self._scrapes)
        if self._outside:
            told.append(f"{self._outside:,} records are older or newer than all spans given, and were not compared.")
            verdict = Verdict.EXPLAINED
        if self._unrecorded:
            told.append(f"{self._unrecorded:,} requests were let pass without a record (see “Gaps”).")
            verdict = Verdict.EXPLAINED
        if self._without:
            told.append(f"{self._without:,} spans name no record: their requests were refused for want of one.")
            verdict = Verdict.EXPLAINED
        if self._doubled:
            told.append(f"{self._doubled:,} spans came twice, as a collector may deliver them.")
        if self._unspanned:
            told.append(f"{self._unspanned:,} records have no span")
            if self._unspanned <= self._halves:
                told[-1] += ": the second ones of requests whose first one could not be written."
            elif self._scrapes and self._unspanned <= 2 * lost + self._halves:  # a request has two records at most
                told[-1] += f"; the metrics count {lost:,} spans as lost, which explains it."
                verdict = Verdict.EXPLAINED
            elif self._scrapes:
                told[-1] += f", and the metrics count only {lost:,} spans as lost."
                verdict = Verdict.DIFFERS
            else:
                told[-1] += "; spans may be lost, and without --metrics nobody can say whether these were."
                verdict = Verdict.CANNOT_TELL
        if self._too_many:
            told.append(f"{self._too_many:,} spans beyond the first {MAX_SPANS:,} were not compared.")
            verdict = Verdict.CANNOT_TELL
        if not self._spans:
            told, verdict = ["The files given hold no span of a request."], Verdict.CANNOT_TELL
        if self._pointed:
            told.append(
                f"{len(self._pointed):,} records that spans point to are not here: the journal's end was cut, a stream "
                "is missing, retention deleted it, no signature covers them yet, or the export is older than the spans."
            )
            verdict = Verdict.DIFFERS
        if self._contradicted:
            told.append(
                f"{self._contradicted:,} records read otherwise than their spans say: one of the two was changed."
            )
            verdict = Verdict.DIFFERS
        return Row(what, "spans", records + self._withheld, self._matched, verdict, " ".join(told))

    def _upstream_row(self, name: str, counted: int) -> Row:
        sent, open_ends = self._forwarded[name], max(0, self._unpaired)
        what = f"requests that reached upstream {name}"
        if self._withheld:
            words = f"{self._withheld:,} records are withheld: decrypt the journal first."
            return Row(what, "upstream", None, counted, Verdict.CANNOT_TELL, words)
        if counted == sent:
            return Row(what, "upstream", sent, counted, Verdict.AGREES, "Both count the same.")
        if sent < counted <= sent + open_ends:
            words = f"{open_ends:,} allowed requests have no completion (a crash): they may have been forwarded."
            return Row(what, "upstream", sent, counted, Verdict.EXPLAINED, words)
        words = (
            f"The upstream counts {counted - sent:,} more: somebody reached it without the proxy, or it also counts "
            "probes and health checks."
            if counted > sent
            else f"The upstream counts {sent - counted:,} fewer: its counter began later, or requests did not arrive."
        )
        return Row(what, "upstream", sent, counted, Verdict.DIFFERS, words)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""  # equal to no hash


def _missing(what: str, source: str, option: str, journal: int) -> Row:
    words = f"Not reconciled: nothing was given to compare with ({option})."
    return Row(what, source, journal, None, Verdict.CANNOT_TELL, words)


def _of(scrape: Scrape, tally: _Tally) -> list[Row]:
    source = f"metrics {scrape.name}"
    if not scrape.positions:
        words = "Not reconciled: the page names no stream, so nobody can say which records it counts."
        return [Row("records of requests", source, None, scrape.records, Verdict.CANNOT_TELL, words)]
    if absent := scrape.positions.keys() - tally.seen:
        words = f"Not reconciled: the journal given has no request in stream {', '.join(sorted(absent))}."
        return [Row("records of requests", source, None, scrape.records, Verdict.CANNOT_TELL, words)]
    return [
        _counted("records of requests", source, tally.records, scrape.records, scrape.in_flight, 0),
        _counted(
            "requests that reached an upstream",
            source,
            tally.forwarded,
            scrape.forwarded,
            0,
            scrape.failures + scrape.in_flight,
        ),
        _refused(source, tally.refused, scrape.refused),
    ]


def _counted(what: str, source: str, journal: int, other: int, fewer: int, more: int) -> Row:
    """Compare two counts of which the other may be so much smaller or greater for a reason that the page names."""
    if journal == other:
        return Row(what, source, journal, other, Verdict.AGREES, "Both count the same, up to the page's moment.")
    if journal - fewer <= other <= journal + more:
        words = "The requests that were under way, or could not be recorded, at the page's moment explain it."
        return Row(what, source, journal, other, Verdict.EXPLAINED, words)
    words = (
        f"The journal has {journal - other:,} more than the process counted."
        if journal > other
        else f"The process counted {other - journal:,} more than the journal has: records are missing, or not "
        "signed for yet."
    )
    return Row(what, source, journal, other, Verdict.DIFFERS, words)


def _refused(source: str, journal: int, other: int) -> Row:
    what = "messages refused by the listener"
    if journal == other:
        return Row(what, source, journal, other, Verdict.AGREES, "Both count the same, up to the page's moment.")
    words = (
        "Of a flood one refusal a second is a record, which names the number of the others; the newest may be written "
        "after the last finished request."
        if journal < other
        else f"The journal has {journal - other:,} more than the process counted."
    )
    return Row(what, source, journal, other, Verdict.EXPLAINED if journal < other else Verdict.DIFFERS, words)
