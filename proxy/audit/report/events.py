"""What happened to the house: changes of policy, keys, detectors and processes; upstreams that failed."""

from proxy.audit.report import plots
from proxy.audit.report.markup import Child, Html, details, table, tag
from proxy.audit.report.wording import MOST_ROWS, Facts, words


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
        *_probed(facts),
        *_cut(len(rows), summary.changed),
        tag("figure", plots.strip("Changes over time", kinds, [(c.t_ns // 1_000_000_000, c.kind) for c in events])),
        details(
            f"All {len(rows):,} changes"
            if summary.changed == len(rows)
            else f"The newest {len(rows):,} of {summary.changed:,} changes",
            table("Changes", ("at (UTC)", "kind", "what", "stream"), rows, frozenset()),
        ),
    ]


def _cut(shown: int, changed: int) -> list[Html]:
    """Say that the plot begins late: an empty beginning would read as quiet."""
    if shown == changed:
        return []
    return [
        tag("p", f"Shown are the newest {shown:,} of {changed:,} changes: new keys, and all others, each up to a cap.")
    ]


def _probed(facts: Facts) -> list[Html]:
    """Say how often models were asked golden inputs: only news of it stands in the timeline."""
    counted = facts.summary.probes
    if not counted:
        return []
    told = ", ".join(f"{words(outcome)} {number:,}" for outcome, number in counted.most_common())
    return [tag("p", f"Models were probed with golden inputs {sum(counted.values()):,} times: {told}.")]


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
