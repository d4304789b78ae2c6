"""What `hip detector show` and `fit` print of a detector."""

from dataclasses import asdict

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.detection.facts import DetectorFacts
from proxy.detection.metadata import kind_of
from proxy.detection.picture import SIDE, Layout
from proxy.detection.text import BUCKETS, WINDOW, TextFacts

BATCHES = (1, 10, 100)  # rows of a request, for the false alarms to expect
BINS, BAR, HISTOGRAM_TOP = 12, 40, 1.2  # lines, characters of the longest, and how far beyond the threshold
SHOWN_FEATURES = 12  # in the table; --json has all

Facts = DetectorFacts | TextFacts


def _false_alarms(facts: Facts) -> dict[int, float]:
    """Return the share of ordinary requests to expect above the threshold, by rows of a request."""
    return {rows: 1 - (1 - facts.alpha) ** rows for rows in BATCHES}


def print_facts(facts: Facts, digest: str) -> None:
    """Print what was learned, and from what."""
    alarms = ", ".join(f"{share:.1%} of requests of {rows}" for rows, share in _false_alarms(facts).items())
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a digest is of use only whole
    table.add_row("models", Text(", ".join(facts.models)))
    table.add_row("learned from", f"{facts.rows:,} {_rows(facts)}, SHA-256 {facts.data_sha256}")
    for name, value in _of_kind(facts):
        table.add_row(name, value)
    table.add_row("calibrated on", f"{len(facts.calibration):,} held-out rows")
    table.add_row("suspicious above", f"{facts.threshold:.3g}, the rate {facts.alpha:g} of ordinary rows")
    table.add_row("false alarms", f"{alarms} rows (the strangest row counts)")
    table.add_row("near-duplicates", f"sketches within {facts.tau:.3g}")
    table.add_row("file", f"SHA-256 {digest}")
    Console().print(table)


def _rows(facts: Facts) -> str:
    if isinstance(facts, TextFacts):
        return "texts"
    return f"rows of {facts.features} numbers"


def _of_kind(facts: Facts) -> list[tuple[str, str]]:
    if isinstance(facts, TextFacts):
        seen = int((facts.surprise[:BUCKETS] < facts.surprise[:BUCKETS].max()).sum())
        return [
            ("trigrams", f"{seen:,} of {BUCKETS:,} buckets seen; the mean, and the strangest {WINDOW} in a row"),
            ("gate", f"texts of up to {facts.longest:,.0f} bytes"),
        ]
    found = [("components", f"{facts.components.shape[1]} of {len(facts.mean)}"), ("gate", _gate(facts))]
    if facts.picture is None:
        return found
    of = facts.picture
    if of.layout is Layout.ENCODED:
        words = f"PNG or JPEG of any size; seen in grey as {SIDE} x {SIDE} cells, and how rough each one is"
        return [("images", words), *found]
    high, wide = of.cells
    sides = f"{of.height} x {of.width} pixels, channels: {of.channels}, {of.layout}"
    return [("images", f"{sides}; seen in grey as {high} x {wide} cells of {of.cell} x {of.cell} pixels"), *found]


def _gate(facts: DetectorFacts) -> str:
    steps = 1 / facts.gate.inverse_step[facts.gate.inverse_step > 0]
    grid = f"{len(steps)} of {facts.features} features lie on a grid"
    if len(steps):
        grid += f" (steps {steps.min():.3g} to {steps.max():.3g})" if np.ptp(steps) else f" (step {steps[0]:.3g})"
    return f"{grid}; ranges of all"


def print_features(facts: Facts) -> None:
    """Print the gate of each feature."""
    if isinstance(facts, TextFacts):
        return
    table = Table("feature", "lowest taken", "highest taken", "step")
    for name, low, high, step in _features(facts)[:SHOWN_FEATURES]:
        table.add_row(Text(name), f"{low:.4g}", f"{high:.4g}", "-" if step is None else f"{step:.4g}")
    console = Console()
    console.print(table)
    if facts.features > SHOWN_FEATURES:
        console.print(f"… and {facts.features - SHOWN_FEATURES} more; --json has all")


def print_histogram(facts: Facts) -> None:
    """Draw the calibration scores, and where suspicion begins; the long tail is one line."""
    scores, top = facts.calibration, HISTOGRAM_TOP * facts.threshold or 1.0
    counts, edges = np.histogram(scores, bins=BINS, range=(0, top))
    print("\ncalibration scores")
    for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        bar = "█" * -(-count * BAR // max(counts.max(), 1))
        mark = f"  ← suspicious above {facts.threshold:.3g}" if low < facts.threshold <= high else ""
        print(f"{low:8.3g} to {high:8.3g} {count:6} {bar}{mark}")
    print(f"{top:8.3g} and more   {int((scores > top).sum()):6}")


def _features(facts: DetectorFacts) -> list[tuple[str, float, float, float | None]]:
    gate = facts.gate
    names = facts.names or tuple(f"[{number}]" for number in range(facts.features))
    low, high = (gate.centre - gate.half_width).tolist(), (gate.centre + gate.half_width).tolist()
    steps = [1 / inverse if inverse else None for inverse in gate.inverse_step.tolist()]
    return list(zip(names, low, high, steps, strict=True))


def facts_as_json(facts: Facts, digest: str) -> dict[str, object]:
    """Return everything that was learned, the tables of numbers apart."""
    common: dict[str, object] = {
        "sha256": digest,
        "kind": kind_of(facts),
        "models": facts.models,
        "rows": facts.rows,
        "data_sha256": facts.data_sha256,
        "alpha": facts.alpha,
        "threshold": facts.threshold,
        "tau": facts.tau,
        "false_alarms": {str(rows): share for rows, share in _false_alarms(facts).items()},
        "calibration": facts.calibration.tolist(),
    }
    if isinstance(facts, TextFacts):
        return {**common, "longest": facts.longest}
    features = [{"name": name, "low": low, "high": high, "step": step} for name, low, high, step in _features(facts)]
    image = None if facts.picture is None else asdict(facts.picture)
    return {**common, "components": facts.components.shape[1], "image": image, "features": features}
