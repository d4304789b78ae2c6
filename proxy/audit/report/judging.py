"""How near inputs come to the detector's threshold, and whether the detector has changed."""

from proxy.audit.report import plots
from proxy.audit.report.markup import Child, Html, details, table, tag
from proxy.audit.report.wording import MOST_ROWS, Facts, listed, shown, words
from proxy.audit.summary import BIN

MOST_PLOTS = 6  # detectors that are drawn


def detectors(facts: Facts) -> list[Html]:
    """Answer: how near do inputs come to the threshold, and has the detector changed?"""
    uses = sorted(facts.summary.detectors.values(), key=lambda use: (use.model, use.version, use.since_ns))
    if not uses:
        return [tag("p", "No input was judged by a detector.")]
    figures = []
    for use in uses[:MOST_PLOTS]:
        named = f"{use.model} version {use.version}" if use.version else use.model
        title = f"{named}, {use.name} {use.digest[:12]}"
        bins: list[tuple[Child, ...]] = [(f"{at * BIN:.1f}", f"{number:,}") for at, number in enumerate(use.bins)]
        figures.append(
            tag(
                "figure",
                tag("figcaption", tag("b", named), tag("code", f"{use.name} {use.digest[:12]}")),
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
            use.version,
            use.name,
            tag("code", use.digest[:16]),
            use.mode,
            f"{use.alpha:g}",
            f"{use.judged:,}",
            ", ".join(f"{words(verdict)} {number:,}" for verdict, number in use.verdicts.most_common()),
        )
        for use in uses[:MOST_ROWS]
    ]
    more = facts.summary.more_judged
    return [
        tag(
            "p",
            "Scores of judged inputs as multiples of the threshold; at 1 and above an input is suspicious. One "
            "plot for each version of a model and each detector file, since a new file is another judge.",
        ),
        tag("div", *figures, class_="plots"),
        listed(
            f"Detectors ({shown(len(uses))})",
            ("model", "version", "detector", "digest", "mode", "alpha", "judged", "verdicts"),
            rows,
            frozenset({5, 6}),
        ),
        *([tag("p", f"{more:,} requests were judged for versions beyond those told apart.")] if more else []),
    ]
