"""The page: what the summary and the verification say, in the order in which an auditor asks.

Decides words and order. Whatever stood in a record is escaped by `markup`; the page runs no script and loads nothing.
"""

from dataclasses import dataclass

from proxy.audit.bundle import Proven, write
from proxy.audit.findings import Fault, Status, StreamReport
from proxy.audit.reconcile import Row, Verdict
from proxy.audit.report import agreement, callers, events, integrity, judging, plots
from proxy.audit.report.markup import Html, details, tag
from proxy.audit.report.style import POLICY, STYLE
from proxy.audit.report.wording import Facts, count, words
from proxy.audit.summary import Summary

VERDICTS = {
    Status.INTACT: ("good", "Intact: every record is in its place, under a signature, and every stream has its end."),
    Status.TAMPERED: ("bad", "Tampered: something was changed, inserted, moved, cut or removed. See “Completeness”."),
    Status.INCOMPLETE: (
        "warn",
        "Incomplete: what is there is genuine, but an end is missing or a request has one record of two.",
    ),
    Status.UNKNOWN: ("warn", "Cannot tell: some records could not be judged. See “Completeness”."),
}
SECTIONS = (
    ("completeness", "Completeness", integrity.completeness),
    ("reconciliation", "Reconciliation", agreement.reconciliation),
    ("denials", "Denials by reason", callers.denials),
    ("budgets", "Budgets", callers.budgets),
    ("detectors", "Detectors", judging.detectors),
    ("suspicion", "Clients by suspicion", callers.suspicion),
    ("mfa", "Multi-factor authentication", callers.mfa),
    ("changes", "Changes", events.changes),
    ("gaps", "Gaps", integrity.gaps),
    ("incidents", "Upstream errors", events.incidents),
)


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
    body = [
        tag("a", "Skip to the summary", href="#summary", class_="skip"),
        plots.definitions(),
        _header(source, summary),
        _summary(source, summary),
        *[tag("section", tag("h2", title), *make(facts), id=key, aria_label=title) for key, title, make in SECTIONS],
        _sample(source),
        _limits(source),
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
    links = [("summary", "Summary"), *[(key, title) for key, title, _ in SECTIONS], ("sample", "Sample with proofs")]
    return tag(
        "header",
        tag("h1", f"Audit report: {source.name}"),
        tag(
            "p",
            f"{period}, all times UTC. Made {_when(source.made_at * 1_000_000_000)} by hip {source.version}.",
            class_="soft",
        ),
        tag(
            "nav",
            tag("ul", *[tag("li", tag("a", title, href=f"#{key}")) for key, title in links]),
            aria_label="Sections",
        ),
    )


def _when(t_ns: int) -> str:
    return f"{plots.moment(t_ns // 1_000_000_000, day=True)} {plots.moment(t_ns // 1_000_000_000)[6:]}"


def _summary(source: Source, summary: Summary) -> Html:
    kind, verdict = VERDICTS[source.status]
    refused = summary.decisions - summary.allowed
    share = f"{refused / summary.decisions:.1%}" if summary.decisions else "0 %"
    suspects = sum(client.suspicion > 0 for client in summary.clients.values())
    unsealed = sum(report.unsealed for report in source.streams)
    tiles = (
        (summary.decisions, "requests"),
        (refused, f"refused ({share})"),
        (len(summary.clients), "clients"),
        (suspects, "clients with something suspicious"),
        (sum(summary.mfa_reasons.values()), "stopped for missing or old MFA"),
        (sum(summary.upstream_errors.values()), "upstream errors"),
        (len(summary.holes), "gaps in recording"),
        (unsealed, "records not signed for yet"),
    )
    return tag(
        "section",
        tag("div", verdict, class_=f"verdict {kind}", role="status"),
        *[tag("p", sentence) for sentence in [*_sentences(summary, refused), *_agreement(source.reconciled)]],
        tag(
            "div",
            *[tag("div", tag("b", f"{number:,}"), tag("span", name), class_="tile") for number, name in tiles],
            class_="tiles",
        ),
        id="summary",
        aria_label="Summary",
    )


def _sentences(summary: Summary, refused: int) -> list[str]:
    if not summary.decisions:
        return ["No request is on record in this period."]
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
