"""Is everything there, and who vouches for it: completeness, gaps, the sample with its proofs."""

import msgspec

from proxy.audit.bundle import Proven
from proxy.audit.chain import LineError, read_event, split
from proxy.audit.report import plots
from proxy.audit.report.markup import Child, Html, table, tag
from proxy.audit.report.wording import MOST_ROWS, Facts, count, shown, words
from proxy.record import Completion, Decision


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
            f"Streams ({shown(len(facts.streams))})",
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
                f"Findings ({shown(len(faults))})",
                ("where", "record", "what"),
                [(tag("code", fault.stream), fault.seq, fault.what) for fault in faults[:MOST_ROWS]],
                frozenset({1}),
            )
        )
    return found


def gaps(facts: Facts) -> list[Html]:
    """Answer: was there a time without a record?"""
    holes = facts.summary.holes
    told = [
        tag(
            "p",
            "The proxy refuses requests that it cannot record, unless its configuration says “failure: open”. "
            "A gap is a time in which nothing could be recorded.",
        ),
        tag(
            "p",
            tag("b", f"{count(facts.summary.open_starts, 'process was', 'processes were')} told to let requests pass"),
            " without a record where one cannot be written. If such a process ends inside a gap, what passed in it is "
            "on no record at all.",
        )
        if facts.summary.open_starts
        else tag("p", "No process on record was told so."),
    ]
    if not holes:
        return [*told, tag("p", "There was none.")]
    rows: list[tuple[Child, ...]] = [
        (
            plots.moment(hole.t_ns // 1_000_000_000),
            f"{hole.seconds:,.1f}",
            f"{hole.refused:,}",
            f"{hole.unrecorded:,}",
            hole.cause,
        )
        for hole in holes[:MOST_ROWS]
    ]
    return [
        *told,
        table(
            f"Gaps ({shown(len(holes))})",
            ("ended (UTC)", "seconds", "records refused", "let pass unrecorded", "cause"),
            rows,
            frozenset({1, 2, 3}),
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
