"""What clients did: refusals, budgets, second factors, and who behaves like somebody who copies a model."""

from proxy.audit.report import plots
from proxy.audit.report.markup import Child, Html, details, table, tag
from proxy.audit.report.wording import ALL, MOST_ROWS, Facts, listed, over_time, shown, words
from proxy.audit.summary import Client

MOST_COURSES = 6  # budgets that are drawn


def denials(facts: Facts) -> list[Html]:
    """Answer: what was refused, why, and when?"""
    counted = facts.summary.refusals
    if not counted:
        return [tag("p", "Nothing was refused.")]
    total = sum(counted.values())
    top = max(counted.values())
    rows: list[tuple[Child, ...]] = [
        (words(name), _meter(number / top), f"{number:,}", f"{number / total:.1%}")
        for name, number in counted.most_common()
    ]
    return [
        *over_time("Refused requests by reason", facts.summary.denials, counted),
        table("Reasons", ("reason", "", "refused", "share"), rows, frozenset({2, 3})),
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
            figures.append(tag("div", plots.courses(budget, subject, lines), _course_numbers(lines)))
        left = " · ".join(f"{low:,} of {most:,}" for low, most in zip(use.lowest, use.greatest, strict=True))
        rows.append((tag("code", subject), budget, left, f"{use.refused:,}"))
    return [
        tag(
            "p",
            "What was left of each client's budget, the tightest first. Records name what remains, not the limit: "
            "100 % is the most that was ever left.",
        ),
        tag("div", *figures, class_="plots"),
        listed(
            f"Budgets ({shown(len(uses))})",
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
    return details("The numbers behind this plot", table("What was left", heads, rows, ALL))


def suspicion(facts: Facts) -> list[Html]:
    """Answer: who behaves like somebody who copies a model?"""
    ranked = sorted(
        ((client.suspicion, name, client) for name, client in facts.summary.clients.items() if client.suspicion),
        key=lambda entry: (-entry[0], entry[1]),
    )
    if not ranked:
        return [tag("p", "No client did anything that counts as suspicious."), *_patterns(facts)]
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
        listed(
            f"Clients ({shown(len(ranked))})",
            ("client", "", "points", "sequences", "inputs", "above budget", "refused", "requests", "rows"),
            rows,
            frozenset(range(2, 9)),
        ),
        *_patterns(facts),
        *([tag("p", f"{more:,} requests came from clients beyond those told apart.")] if more else []),
    ]


def _patterns(facts: Facts) -> list[Html]:
    """Say what was seen in sequences of queries, which no single input shows."""
    rows: list[tuple[Child, ...]] = [
        (words(pattern), words(verdict), f"{number:,}")
        for (pattern, verdict), number in facts.summary.patterns.most_common(MOST_ROWS)
    ]
    return (
        [table("Patterns in sequences of queries", ("pattern", "verdict", "requests"), rows, frozenset({2}))]
        if rows
        else []
    )


def _meter(share: float) -> Html:
    bar = tag("rect", width=max(1.0, 80 * share), height=12, class_="s0")
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
        *over_time("Requests stopped for MFA", facts.summary.mfa, counted),
        listed("By client", ("client", "issuer", "stopped"), rows, frozenset({2})),
    ]
