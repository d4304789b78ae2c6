"""`hip detector`: learn a detector from ordinary inputs, and see what one has learned.

Exit codes: 0 good, 2 wrong use, or a file that cannot be used.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from proxy.adapters.detector import load_detector
from proxy.detection.facts import DetectorFacts
from proxy.detection.fit import Steps, Subject, fit
from proxy.detection.graph import MAX_FILE, build, inspect
from proxy.detection.rows import MAX_INPUT, Form, read_table
from proxy.errors import ConfigError, Finding

WRONG_USE = 2  # the design's exit code for wrong use or bad configuration
BATCHES = (1, 10, 100)  # rows of a request, for the false alarms to expect
BINS, BAR, HISTOGRAM_TOP = 12, 40, 1.2  # lines, characters of the longest, and how far beyond the threshold
SHOWN_FEATURES = 12  # in the table; --json has all

_ENDINGS = {".csv": Form.CSV, ".npy": Form.NPY, ".jsonl": Form.JSON_LINES, ".ndjson": Form.JSON_LINES}

detector_app = typer.Typer(no_args_is_help=True, help="Learn what ordinary inputs look like, and see what was learned.")


@detector_app.command("fit")
def fit_command(
    source: Annotated[
        Path, typer.Argument(help="Ordinary inputs: .csv, .npy, or .jsonl with a row or an OIP v2 request a line.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The detector file to write.")],
    model: Annotated[list[str], typer.Option(help="The model whose inputs these are, as in the policy; repeatable.")],
    alpha: Annotated[float, typer.Option(help="How often an ordinary row may be called suspicious.")] = 0.01,
    names: Annotated[str, typer.Option(help="Names of the features, by commas; else those of the CSV's header.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was learned as JSON.")] = False,
) -> None:
    """Learn a detector from a file of ordinary inputs.

    Example: hip detector fit inputs.csv -o policies/detectors/iris.onnx --model iris
    """
    try:
        with _progress() as step:
            facts, data = _fitted(source, Subject(str(source), tuple(model), _names(names)), alpha, step)
            step("writing")
            digest = hashlib.sha256(data).hexdigest()
            _write(output, data)
            load_detector(output, digest, model)
    except ConfigError as error:
        _fail(error)
    if as_json:
        print(json.dumps(_as_json(facts, digest), indent=2))
        return
    _print_facts(facts, digest)
    print("\nFor the policy, `file` as seen from its directory:\n")
    print(f"detectors:\n  {facts.models[0]}: {{file: {output.name}, sha256: {digest}}}")


@detector_app.command("show")
def show_command(
    file: Annotated[Path, typer.Argument(help="A detector file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a detector has learned, how its calibration scores lie, and which false alarms to expect.

    Example: hip detector show policies/detectors/iris.onnx
    """
    try:
        data = _read(file, MAX_FILE)
        facts = inspect(data, str(file))
    except ConfigError as error:
        _fail(error)
    digest = hashlib.sha256(data).hexdigest()
    if as_json:
        print(json.dumps(_as_json(facts, digest), indent=2))
        return
    _print_facts(facts, digest)
    _print_features(facts)
    _print_histogram(facts)


def _fitted(source: Path, subject: Subject, alpha: float, step: Steps) -> tuple[DetectorFacts, bytes]:
    form = _ENDINGS.get(source.suffix.lower())
    if form is None:
        raise _refused(source, "unknown kind of file", f"name it {', '.join(_ENDINGS)}")
    step("reading")
    table = read_table(_read(source, MAX_INPUT), form, str(source))
    named = Subject(subject.source, subject.models, subject.names or table.names)
    facts = fit(table.rows, named, alpha, step)
    return facts, build(facts)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise _refused(path, f"cannot be read: {exc.strerror}", "name a file that is there and yours to read") from exc
    if len(data) > limit:
        raise _refused(path, f"larger than {limit:,} bytes", "name another file, or a random part of this one")
    return data


def _write(path: Path, data: bytes) -> None:
    """Write beside and rename: a proxy that watches the directory never sees half a file."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as exc:
        raise _refused(path, f"cannot be written: {exc.strerror}", "name a directory that is there") from exc


@contextmanager
def _progress() -> Iterator[Steps]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda what: progress.update(task, description=what)


def _refused(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, hint)])


def _fail(error: ConfigError) -> NoReturn:
    for finding in error.findings:
        Console(stderr=True).print(str(finding), markup=False, soft_wrap=True)
    raise typer.Exit(WRONG_USE) from error


# ── what was learned ────────────────────────────────────────────────────────────────────────────────────────────


def _false_alarms(facts: DetectorFacts) -> dict[int, float]:
    """Return the share of ordinary requests to expect above the threshold, by rows of a request."""
    return {rows: 1 - (1 - facts.alpha) ** rows for rows in BATCHES}


def _print_facts(facts: DetectorFacts, digest: str) -> None:
    steps = 1 / facts.gate.inverse_step[facts.gate.inverse_step > 0]
    grid = f"{len(steps)} of {facts.features} features lie on a grid"
    if len(steps):
        grid += f" (steps {steps.min():.3g} to {steps.max():.3g})" if np.ptp(steps) else f" (step {steps[0]:.3g})"
    alarms = ", ".join(f"{share:.1%} of requests of {rows}" for rows, share in _false_alarms(facts).items())
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a digest is of use only whole
    table.add_row("models", Text(", ".join(facts.models)))
    table.add_row("learned from", f"{facts.rows:,} rows of {facts.features} numbers, SHA-256 {facts.data_sha256}")
    table.add_row("components", f"{facts.components.shape[1]} of {facts.features}")
    table.add_row("gate", f"{grid}; ranges of all")
    table.add_row("calibrated on", f"{len(facts.calibration):,} held-out rows")
    table.add_row("suspicious above", f"{facts.threshold:.3g}, the rate {facts.alpha:g} of ordinary rows")
    table.add_row("false alarms", f"{alarms} rows (the strangest row counts)")
    table.add_row("near-duplicates", f"sketches within {facts.tau:.3g}")
    table.add_row("file", f"SHA-256 {digest}")
    Console().print(table)


def _print_features(facts: DetectorFacts) -> None:
    table = Table("feature", "lowest taken", "highest taken", "step")
    for name, low, high, step in _features(facts)[:SHOWN_FEATURES]:
        table.add_row(Text(name), f"{low:.4g}", f"{high:.4g}", "-" if step is None else f"{step:.4g}")
    console = Console()
    console.print(table)
    if facts.features > SHOWN_FEATURES:
        console.print(f"… and {facts.features - SHOWN_FEATURES} more; --json has all")


def _print_histogram(facts: DetectorFacts) -> None:
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


def _as_json(facts: DetectorFacts, digest: str) -> dict[str, object]:
    return {
        "sha256": digest,
        "models": facts.models,
        "rows": facts.rows,
        "data_sha256": facts.data_sha256,
        "alpha": facts.alpha,
        "threshold": facts.threshold,
        "tau": facts.tau,
        "components": facts.components.shape[1],
        "false_alarms": {str(rows): share for rows, share in _false_alarms(facts).items()},
        "calibration": facts.calibration.tolist(),
        "features": [
            {"name": name, "low": low, "high": high, "step": step} for name, low, high, step in _features(facts)
        ],
    }
