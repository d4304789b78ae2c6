"""The sections between summary and sample: one question each, a plot where people look, a table where they read."""

from collections import Counter
from dataclasses import dataclass

import msgspec

from proxy.audit.bundle import Proven
from proxy.audit.chain import LineError, read_event, split
from proxy.audit.findings import Fault, StreamReport
from proxy.audit.report import plots
from proxy.audit.report.markup import Child, Html, details, join, table, tag
from proxy.audit.summary import BIN, Client, Summary
from proxy.audit.timeline import Timeline
from proxy.record import Completion, Decision

MOST_BARS = 60  # steps in a plot over time
MOST_REASONS = 6  # told apart in a plot; the others are one
MOST_COURSES = 6  # budgets that are drawn
MOST_ROWS = 50  # of a table …
FIRST_ROWS = 10  # … so many at once, the others on demand
OTHERS = "all others"

_ALL = frozenset(range(1, 12))
_CAPITALS = {"mfa": "MFA"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the sections speak of."""

    streams: tuple[StreamReport, ...]
    faults: tuple[Fault, ...]
    summary: Summary


def words(name: str) -> str:
    """Return a reason as words."""
    return " ".join(_CAPITALS.get(word, word) for word in name.split("_"))


def count(number: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _shown(rows: int) -> str:
    return f"the first {MOST_ROWS} of {rows:,}" if rows > MOST_ROWS else f"{rows:,}"


def _listed(caption: str, heads: tuple[str, ...], rows: list[tuple[Child, ...]], numbers: frozenset[int]) -> Html:
    """Return a table of which the first rows show, and the others on demand."""
    first = table(caption, heads, rows[:FIRST_ROWS], numbers)
    rest = rows[FIRST_ROWS:]
    if not rest:
        return first
    return join([first, details(f"{len(rest):,} more", table(f"{caption}, continued", heads, rest, numbers))])


def completeness(facts: Facts) -> list[Html]:
    """Answer: is everything there, and who vouches for it?"""
    rows: list[tuple[Child, ...]] = [
        (
            tag("code", report.stream),
            f"{report.records:,}",
            f"{report.unsealed:,}",
            f"{report.allowed:,}",
            f"{report.refused:,}",
            f"{report.unpaired:,}",
            report.ending,
            report.status.name.lower(),
        )
        for report in facts.streams[:MOST_ROWS]
    ]
    faults = [*facts.faults, *(fault for report in facts.streams for fault in report.faults)]
    found: list[Html] = [
        tag(
            "p",
            f"{count(len(facts.streams), 'stream')}, one for each life of a worker process. “Unsealed” records have no "
            "signature yet; “unpaired” requests have one record of two.",
        ),
        table(
            f"Streams ({_shown(len(facts.streams))})",
            ("stream", "records", "unsealed", "allowed", "refused", "unpaired", "end", "found"),
            rows,
            frozenset(range(1, 6)),
        ),
    ]
    missed = [
        (name, number)
        for name, number in (
            ("records withheld, of which only the hash is there", sum(report.withheld for report in facts.streams)),
            ("files that retention deleted, on record", sum(report.pruned for report in facts.streams)),
            (
                "streams that ended in a crash and were found by a successor",
                sum(report.ending == "recovered" for report in facts.streams),
            ),
        )
        if number
    ]
    found += [tag("p", f"{number:,} {name}.") for name, number in missed]
    if faults:
        found.append(
            table(
                f"Findings ({_shown(len(faults))})",
                ("where", "record", "what"),
                [(tag("code", fault.stream), fault.seq, fault.what) for fault in faults[:MOST_ROWS]],
                frozenset({1}),
            )
        )
    return found


def denials(facts: Facts) -> list[Html]:
    """Answer: what was refused, why, and when?"""
    counted = facts.summary.refusals
    if not counted:
        return [tag("p", "Nothing was refused.")]
    total = sum(counted.values())
    rows: list[tuple[Child, ...]] = [
        (words(name), f"{number:,}", f"{number / total:.1%}") for name, number in counted.most_common()
    ]
    return [
        *_over_time("Refused requests by reason", facts.summary.denials, counted),
        table("Reasons", ("reason", "refused", "share"), rows, frozenset({1, 2})),
    ]


def _over_time(title: str, timeline: Timeline, counted: Counter[str]) -> list[Html]:
    names = [name for name, _ in counted.most_common(MOST_REASONS)]
    steps = []
    for start, values in timeline.rows(MOST_BARS):
        shown = {words(name): values.get(name, 0) for name in names}
        shown[OTHERS] = sum(values.values()) - sum(shown.values())
        steps.append((start, shown))
    labels = [words(name) for name in names] + ([OTHERS] if len(counted) > len(names) else [])
    rows: list[tuple[Child, ...]] = [
        (plots.moment(start), *[f"{values[name]:,}" for name in labels]) for start, values in steps
    ]
    return [
        tag("figure", plots.bars(title, labels, steps, timeline.step), plots.legend(labels)),
        details(
            "The numbers behind this plot",
            table(f"{title}, for each {plots.span(timeline.step)}", ("from (UTC)", *labels), rows, _ALL),
        ),
    ]


def budgets(facts: Facts) -> list[Html]:
    """Answer: who used up what?"""
    uses = facts.summary.budgets
    if not uses:
        return [tag("p", "No budget was charged.")]

    def share(key: tuple[str, str]) -> float:
        use = uses[key]
        return min((low / most for low, most in zip(use.lowest, use.greatest, strict=True) if most), default=1.0)

    order = sorted(uses, key=lambda key: (share(key), -uses[key].refused))
    figures, rows = [], list[tuple[Child, ...]]()
    for place, (subject, budget) in enumerate(order[:MOST_ROWS]):
        use = uses[subject, budget]
        if place < MOST_COURSES:
            lines = [(f"window {at + 1}", course.points(), use.greatest[at]) for at, course in enumerate(use.course)]
            figures.append(tag("div", plots.courses(f"{budget}, {subject}", lines), _course_numbers(lines)))
        left = " · ".join(f"{low:,} of {most:,}" for low, most in zip(use.lowest, use.greatest, strict=True))
        rows.append((tag("code", subject), budget, left, f"{use.refused:,}"))
    return [
        tag(
            "p",
            "What was left of each client's budget, the tightest first. Records name what remains, not the limit: "
            "100 % is the most that was ever left.",
        ),
        tag("div", *figures, class_="plots"),
        _listed(
            f"Budgets ({_shown(len(uses))})",
            ("client", "budget", "least left of each window", "refused"),
            rows,
            frozenset({3}),
        ),
    ]


def _course_numbers(lines: list[tuple[str, list[tuple[int, int]], int]]) -> Html:
    points: dict[int, list[Child]] = {}
    for at, (_, course, _) in enumerate(lines):
        for moment, left in course:
            points.setdefault(moment, [None] * len(lines))[at] = f"{left:,}"
    rows: list[tuple[Child, ...]] = [(plots.moment(moment), *left) for moment, left in sorted(points.items())]
    heads = ("from (UTC)", *[name for name, _, _ in lines])
    return details("The numbers behind this plot", table("What was left", heads, rows, _ALL))


def detectors(facts: Facts) -> list[Html]:
    """Answer: how near do inputs come to the threshold, and has the detector changed?"""
    uses = sorted(facts.summary.detectors.values(), key=lambda use: (use.model, use.since_ns))
    if not uses:
        return [tag("p", "No input was judged by a detector.")]
    figures = []
    for use in uses[:MOST_COURSES]:
        title = f"{use.model}, {use.name} {use.digest[:12]}"
        bins: list[tuple[Child, ...]] = [(f"{at * BIN:.1f}", f"{number:,}") for at, number in enumerate(use.bins)]
        figures.append(
            tag(
                "figure",
                tag("figcaption", tag("b", title)),
                plots.histogram(title, use.bins, BIN) if any(use.bins) else None,
                details(
                    "The numbers behind this plot",
                    table("Score ÷ threshold", ("from", "inputs"), bins, frozenset({0, 1})),
                ),
            )
        )
    rows: list[tuple[Child, ...]] = [
        (
            use.model,
            use.name,
            tag("code", use.digest[:16]),
            use.mode,
            f"{use.alpha:g}",
            f"{use.judged:,}",
            ", ".join(f"{words(verdict)} {number:,}" for verdict, number in use.verdicts.most_common()),
        )
        for use in uses[:MOST_ROWS]
    ]
    return [
        tag(
            "p",
            "Scores of judged inputs as multiples of the threshold; at 1 and above an input is suspicious. One "
            "plot for each model and detector file, since a new file is another judge.",
        ),
        tag("div", *figures, class_="plots"),
        _listed(
            f"Detectors ({_shown(len(uses))})",
            ("model", "detector", "digest", "mode", "alpha", "judged", "verdicts"),
            rows,
            frozenset({4, 5}),
        ),
    ]


def suspicion(facts: Facts) -> list[Html]:
    """Answer: who behaves like somebody who copies a model?"""
    ranked = sorted(
        ((client.suspicion, name, client) for name, client in facts.summary.clients.items() if client.suspicion),
        key=lambda entry: (-entry[0], entry[1]),
    )
    if not ranked:
        return [tag("p", "No client did anything that counts as suspicious.")]
    top = ranked[0][0]
    rows: list[tuple[Child, ...]] = [
        (tag("code", name), _meter(points / top), f"{points:,.0f}", *_habits(client))
        for points, name, client in ranked[:MOST_ROWS]
    ]
    more = facts.summary.more_clients
    return [
        tag(
            "p",
            "Ranked by points: 10 for each query sequence that was found suspicious, 3 for each suspicious input, "
            "1 for each request above a budget. A rank says where to look, not who is guilty.",
        ),
        _listed(
            f"Clients ({_shown(len(ranked))})",
            ("client", "", "points", "sequences", "inputs", "above budget", "refused", "requests", "rows"),
            rows,
            frozenset(range(2, 9)),
        ),
        *([tag("p", f"{more:,} requests came from clients beyond those told apart.")] if more else []),
    ]


def _meter(share: float) -> Html:
    bar = tag("rect", width=max(1.0, 80 * share), height=12, fill="url(#p3)")
    return tag("svg", bar, width=80, height=12, viewBox="0 0 80 12", aria_hidden="true")


def _habits(client: Client) -> tuple[str, ...]:
    counts = (client.sequences, client.suspicious, client.exhausted, client.refused, client.requests, client.rows)
    return tuple(f"{number:,}" for number in counts)


def mfa(facts: Facts) -> list[Html]:
    """Answer: who was stopped for want of a second factor?"""
    counted = facts.summary.mfa_reasons
    if not counted:
        return [tag("p", "Nobody was stopped for missing or old multi-factor authentication.")]
    ranked = sorted(facts.summary.clients.items(), key=lambda item: -item[1].mfa)
    rows: list[tuple[Child, ...]] = [
        (tag("code", name), client.issuer, f"{client.mfa:,}") for name, client in ranked[:MOST_ROWS] if client.mfa
    ]
    return [
        *_over_time("Requests stopped for MFA", facts.summary.mfa, counted),
        _listed("By client", ("client", "issuer", "stopped"), rows, frozenset({2})),
    ]


def changes(facts: Facts) -> list[Html]:
    """Answer: what changed: policy, keys, detectors, processes?"""
    summary = facts.summary
    events = sorted([*summary.changes, *summary.rotations], key=lambda change: change.t_ns)
    if not events:
        return [tag("p", "Nothing changed.")]
    kinds = list(dict.fromkeys(change.kind for change in events))
    rows: list[tuple[Child, ...]] = [
        (plots.moment(change.t_ns // 1_000_000_000), change.kind, change.what, tag("code", change.stream[-12:]))
        for change in events
    ]
    return [
        tag("figure", plots.strip("Changes over time", kinds, [(c.t_ns // 1_000_000_000, c.kind) for c in events])),
        details(
            f"All {len(rows):,} changes"
            if summary.changed == len(rows)
            else f"The newest {len(rows):,} of {summary.changed:,} changes",
            table("Changes", ("at (UTC)", "kind", "what", "stream"), rows, frozenset()),
        ),
    ]


def gaps(facts: Facts) -> list[Html]:
    """Answer: was there a time without a record?"""
    holes = facts.summary.holes
    told = [
        tag(
            "p",
            "The proxy refuses requests that it cannot record; there is no setting that lets them pass. "
            "A gap is a time in which everything was refused.",
        )
    ]
    if not holes:
        return [*told, tag("p", "There was none.")]
    rows: list[tuple[Child, ...]] = [
        (plots.moment(hole.t_ns // 1_000_000_000), f"{hole.seconds:,.1f}", f"{hole.refused:,}", hole.cause)
        for hole in holes[:MOST_ROWS]
    ]
    return [
        *told,
        table(
            f"Gaps ({_shown(len(holes))})",
            ("ended (UTC)", "seconds", "records refused", "cause"),
            rows,
            frozenset({1, 2}),
        ),
    ]


def incidents(facts: Facts) -> list[Html]:
    """Answer: what went wrong behind the proxy?"""
    summary = facts.summary
    if not summary.upstream_errors:
        return [tag("p", "No upstream failed.")]
    counts: list[tuple[Child, ...]] = [
        (upstream, words(reason), f"{number:,}") for (upstream, reason), number in summary.upstream_errors.most_common()
    ]
    rows: list[tuple[Child, ...]] = [
        (
            plots.moment(one.t_ns // 1_000_000_000),
            one.upstream,
            one.status,
            words(one.reason),
            one.errors,
            tag("code", one.event),
        )
        for one in list(summary.incidents)[-MOST_ROWS:]
    ]
    return [
        table("By upstream", ("upstream", "reason", "answers"), counts[:MOST_ROWS], frozenset({2})),
        details(
            f"The newest {len(rows):,}, with what is known of the upstream's error",
            table(
                "Incidents",
                ("at (UTC)", "upstream", "status", "reason", "errors and places", "incident"),
                rows,
                frozenset({2}),
            ),
        ),
    ]


def sampled(proven: Proven) -> tuple[Child, ...]:
    """Return a sampled record as a row."""
    try:
        envelope, body = split(proven.line.encode())
        event = read_event(body, envelope.v)
    except (LineError, msgspec.MsgspecError):  # the verifier has read it before us
        return ("?", "?", "?", "?", "?")
    what = f"{event.effect}: {words(event.reason)}" if isinstance(event, Decision) else ""
    if isinstance(event, Completion):
        what = f"{event.status}: {words(event.reason)}"
    kind = "decision" if isinstance(event, Decision) else "completion"
    place = f"{envelope.stream[-12:]} #{envelope.seq:,}"
    return (plots.moment(envelope.t_ns // 1_000_000_000), tag("code", place), kind, what, str(len(proven.proof)))


def sample_table(rows: list[tuple[Child, ...]]) -> Html:
    """Return the sample as a table."""
    if not rows:
        return tag("p", "No request's record is under a signed head.")
    return table("Sample", ("at (UTC)", "record", "kind", "what", "hashes in its proof"), rows, frozenset({4}))
