"""How every section speaks: numbers, reasons and lists in the same words, and one plot over time."""

from collections import Counter
from dataclasses import dataclass

from proxy.audit.findings import Fault, StreamReport
from proxy.audit.reconcile import Row
from proxy.audit.report import plots
from proxy.audit.report.markup import Child, Html, details, join, table, tag
from proxy.audit.summary import Summary
from proxy.audit.timeline import Timeline

MOST_BARS = 60  # steps in a plot over time
MOST_REASONS = 6  # told apart in a plot; the others are one
MOST_ROWS = 50  # of a table …
FIRST_ROWS = 10  # … so many at once, the others on demand
OTHERS = "all others"
ALL = frozenset(range(1, 12))  # every column but the first is a number

_WORDS = {"mfa": "MFA", "allow": "allowed", "deny": "refused"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the sections speak of."""

    streams: tuple[StreamReport, ...]
    faults: tuple[Fault, ...]
    summary: Summary
    reconciled: tuple[Row, ...] = ()


def words(name: str) -> str:
    """Return a reason as words."""
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def count(number: int, thing: str, things: str = "") -> str:
    """Return a number of things in words."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def shown(rows: int) -> str:
    """Return how many rows of a table show."""
    return f"the first {MOST_ROWS} of {rows:,}" if rows > MOST_ROWS else f"{rows:,}"


def listed(caption: str, heads: tuple[str, ...], rows: list[tuple[Child, ...]], numbers: frozenset[int]) -> Html:
    """Return a table of which the first rows show, and the others on demand."""
    first = table(caption, heads, rows[:FIRST_ROWS], numbers)
    rest = rows[FIRST_ROWS:]
    if not rest:
        return first
    return join([first, details(f"{len(rest):,} more", table(f"{caption}, continued", heads, rest, numbers))])


def over_time(title: str, timeline: Timeline, counted: Counter[str]) -> list[Html]:
    """Return a plot over time of the commonest names, and the numbers behind it."""
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
            table(f"{title}, for each {plots.span(timeline.step)}", ("from (UTC)", *labels), rows, ALL),
        ),
    ]
