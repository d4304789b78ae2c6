"""The page: what the summary and the verification say, in the order in which an auditor asks.

Decides words and order. Whatever stood in a record is escaped by `markup`; the page runs no script and loads nothing.
"""

from collections import Counter
from dataclasses import dataclass

from proxy.audit.bundle import Proven, write
from proxy.audit.findings import Fault, Status, StreamReport
from proxy.audit.reconcile import Row, Verdict
from proxy.audit.report import agreement, callers, events, integrity, judging, plots
from proxy.audit.report.markup import Html, details, tag
from proxy.audit.report.style import POLICY, STYLE
from proxy.audit.report.wording import Facts, count, over_time, words
from proxy.audit.summary import Summary

VERDICTS = {  # each with a sign, for whom colours say nothing
    Status.INTACT: (
        "good",
        "✓",
        "Intact: every record is in its place, under a signature, and every stream has its end.",
    ),
    Status.TAMPERED: ("bad", "✕", "Tampered: something was changed, inserted, moved, cut or removed."),
    Status.INCOMPLETE: (
        "warn",
        "!",
        "Incomplete: what is there is genuine, but an end is missing or a request has one record of two.",
    ),
    Status.UNKNOWN: ("warn", "?", "Cannot tell: some records could not be judged."),
}
SECTIONS = (  # in the order in which an auditor asks
    ("completeness", "Completeness", "Is everything there, and who vouches for it?", integrity.completeness),
    ("reconciliation", "Reconciliation", "Do others tell the same story?", agreement.reconciliation),
    ("denials", "Denials by reason", "What was refused, why, and when?", callers.denials),
    ("budgets", "Budgets", "Who used up what?", callers.budgets),
    ("detectors", "Detectors", "How near do inputs come to the threshold?", judging.detectors),
    ("suspicion", "Clients by suspicion", "Who behaves like somebody who copies a model?", callers.suspicion),
    ("mfa", "Multi-factor authentication", "Who was stopped for want of a second factor?", callers.mfa),
    ("changes", "Changes", "What changed: policy, keys, detectors, processes?", events.changes),
    ("gaps", "Gaps", "Was there a time without a record?", integrity.gaps),
    ("incidents", "Upstream errors", "What went wrong behind the proxy?", events.incidents),
)
MOST_FINDINGS = 3  # that stand beside the verdict; the others under “Completeness”


@dataclass(frozen=True, slots=True)
class Source:
    """What the report was made from."""

    name: str  # of the journal
    made_at: int  # UNIX seconds
    version: str
    status: Status
    streams: tuple[StreamReport, ...]
    faults: tuple[Fault, ...]
    head: str
    sample: tuple[Proven, ...]
    seed: str
    reconciled: tuple[Row, ...] = ()


def page(source: Source, summary: Summary) -> str:
    """Return the whole file."""
    facts = Facts(source.streams, source.faults, summary, source.reconciled)
    scope = "" if _whole(source) else " Only records under a signature are counted."
    body = [
        tag("a", "Skip to the summary", href="#summary", class_="skip"),
        plots.definitions(),
        _header(source, summary),
        _contents(),
        tag(
            "main",
            _summary(source, summary),
            *[_section(key, title, question + scope, *make(facts)) for key, title, question, make in SECTIONS],
            _sample(source),
            _limits(source),
        ),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("title", f"Audit report: {source.name}"),
        tag("style", Html(STYLE)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def _header(source: Source, summary: Summary) -> Html:
    period = f"{_when(summary.first_ns)} to {_when(summary.last_ns)}" if summary.first_ns else "no records"
    about = (
        ("Journal", source.name),
        ("Period", f"{period} UTC"),
        ("Made", f"{_when(source.made_at * 1_000_000_000)} UTC by hip {source.version}"),
    )
    return tag(
        "header",
        tag("h1", "Audit report"),
        tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in about]),
    )


def _contents() -> Html:
    links = [
        ("summary", "Summary"),
        *[(key, title) for key, title, *_ in SECTIONS],
        ("sample", "Sample with proofs"),
        ("limits", "What is not proven"),
    ]
    return tag(
        "nav", tag("ul", *[tag("li", tag("a", title, href=f"#{key}")) for key, title in links]), aria_label="Sections"
    )


def _section(key: str, title: str, question: str, *children: Html | None) -> Html:
    asked = tag("p", question, class_="question")
    return tag("section", tag("h2", title), asked, *children, id=key, aria_label=title)


def _when(t_ns: int) -> str:
    seconds = t_ns // 1_000_000_000
    return f"{plots.moment(seconds, day=True)} {plots.moment(seconds, second=True)[6:]}"


def _summary(source: Source, summary: Summary) -> Html:
    kind, sign, verdict = VERDICTS[source.status]
    refused = summary.decisions - summary.allowed
    share = f"{refused / summary.decisions:.1%}" if summary.decisions else "0 %"
    suspects = sum(client.suspicion > 0 for client in summary.clients.values())
    unsealed = sum(report.unsealed for report in source.streams)
    tiles = (  # number, what it counts, where it is explained, whether one is too many
        (summary.decisions, "requests", "traffic" if summary.decisions else "completeness", False),
        (refused, f"refused ({share})", "denials", False),
        (len(summary.clients), "clients", "budgets", False),
        (suspects, "clients with something suspicious", "suspicion", True),
        (sum(summary.mfa_reasons.values()), "stopped for missing or old MFA", "mfa", False),
        (sum(summary.upstream_errors.values()), "upstream errors", "incidents", True),
        (len(summary.holes), "gaps in recording", "gaps", True),
        (unsealed, "records not signed for yet", "completeness", True),
    )
    requests = Counter(allow=summary.allowed, deny=refused)
    return tag(
        "section",
        tag(
            "div",
            tag("span", sign, class_="sign", aria_hidden="true"),
            tag("div", tag("p", verdict), *_findings(source)),
            class_=f"verdict {kind}",
            role="status",
        ),
        *_scope(source),
        *[tag("p", sentence) for sentence in [*_sentences(summary, refused), *_agreement(source.reconciled)]],
        tag(
            "div",
            *[
                tag("a", tag("b", f"{number:,}"), tag("span", name), href=f"#{key}", class_=_tile(number, bad))
                for number, name, key, bad in tiles
            ],
            class_="tiles",
        ),
        tag("div", *over_time("Requests", summary.requests, requests), id="traffic") if summary.decisions else None,
        id="summary",
        aria_label="Summary",
    )


def _tile(number: int, bad: bool) -> str:
    return "tile" if number and not bad else "tile look" if number else "tile none"


def _findings(source: Source) -> list[Html]:
    """Return the first findings: who reads one line of the report shall read these."""
    faults = [*source.faults, *(fault for report in source.streams for fault in report.faults)]
    told = [
        tag("li", tag("code", fault.stream), "" if fault.seq is None else f", record {fault.seq:,}", f": {fault.what}")
        for fault in sorted(faults, key=lambda fault: fault.status is not source.status)[:MOST_FINDINGS]
    ]
    more = len(faults) - len(told)
    rest = tag("li", f"{more:,} more under ", tag("a", "Completeness", href="#completeness")) if more else None
    return [tag("ul", *told, rest)] if told else []


def _whole(source: Source) -> bool:
    return source.status is not Status.TAMPERED and not any(report.unsealed for report in source.streams)


def _scope(source: Source) -> list[Html]:
    """Say what the numbers leave out: silence about what was not judged would read as if nothing had happened."""
    if _whole(source):
        return []
    sealed = sum(report.sealed - report.first_seq for report in source.streams if report.sealed)
    unsealed = sum(report.unsealed for report in source.streams)
    told = f"All numbers below count only the {count(sealed, 'record')} under a signature: {unsealed:,} more were read"
    broken = " What stands behind a finding was not judged, and may have held anything."
    return [tag("p", tag("b", f"{told}.{broken if source.status is Status.TAMPERED else ''}"))]


def _sentences(summary: Summary, refused: int) -> list[str]:
    if not summary.decisions:
        return ["No request is on record under a signature."]
    told = [f"{summary.decisions:,} requests came; {summary.allowed:,} allowed, {refused:,} refused."]
    for reason, number in summary.refusals.most_common(1):
        told[0] += f" The commonest reason was {words(reason)} ({number:,})."
    if summary.obligations_missed:
        told.append(f"{summary.obligations_missed:,} answers were finer than their rule allowed: look into this first.")
    else:
        told.append("No answer is on record that was finer than its rule allowed.")
    if summary.holes:
        lost = sum(hole.refused for hole in summary.holes)
        gaps = count(len(summary.holes), "gap")
        told.append(f"In {gaps} the journal could not be written; {lost:,} records were refused.")
    if passed := sum(hole.unrecorded for hole in summary.holes):
        told.append(f"{passed:,} records are missing of requests that were let pass without them: see “Gaps”.")
    return told


def _agreement(rows: tuple[Row, ...]) -> list[str]:
    differ = sum(row.verdict is Verdict.DIFFERS for row in rows)
    if not rows:
        return []
    if differ:
        return [
            f"In {count(differ, 'comparison')} spans, metrics or upstreams tell another story: see “Reconciliation”."
        ]
    return ["Nothing that spans, metrics or upstreams say contradicts the journal: see “Reconciliation”."]


def _sample(source: Source) -> Html:
    rows = [integrity.sampled(proven) for proven in source.sample]
    about = f"sample {source.seed} of {source.name}"
    bundle = write(about, list(source.sample)).decode() if source.sample else ""
    return tag(
        "section",
        tag("h2", "Random sample with proofs"),
        tag("p", "Can single records be checked by others?", class_="question"),
        tag(
            "p",
            "These records were drawn at random, each with the same chance. The bundle below proves each of them: ",
            "save it as a file and run ",
            tag("code", "hip audit verify FILE --public-key audit.pub"),
            ". The draw can ",
            "be repeated with ",
            tag("code", f"--seed {source.seed}"),
            ".",
        ),
        integrity.sample_table(rows),
        details("The bundle: records, inclusion proofs, signed heads, certificates", tag("pre", bundle))
        if bundle
        else None,
        id="sample",
        aria_label="Random sample with proofs",
    )


def _limits(source: Source) -> Html:
    return tag(
        "section",
        tag("h2", "What this does not prove"),
        tag(
            "p",
            "That a compromised process wrote the truth. That journal and anchor log were not rolled back "
            "together, unless a head that was kept elsewhere was compared. What happened between the last signed head "
            "and a crash. Clients are keyed hashes: pseudonyms, not names.",
        ),
        details("The head to keep for next time", tag("pre", source.head)) if source.head else None,
        id="limits",
        aria_label="What this does not prove",
    )
