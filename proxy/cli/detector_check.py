"""`hip detector check`: is recent traffic still like the data that a detector was calibrated on?

Exit codes: 0 yes, 1 it has drifted, 2 wrong use, 3 too little traffic to say. Reads the journal, does not verify it.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from proxy.adapters.journal.reading import total_bytes
from proxy.cli.detector_input import read, refused
from proxy.cli.records import records
from proxy.detection.drift import BINS, MIN_REQUESTS, PER_CALLER, SIGNIFICANT, Drift, Judgement, drifts
from proxy.detection.facts import Learned
from proxy.detection.graph import MAX_FILE, inspect
from proxy.documents.quantities import duration
from proxy.errors import ConfigError
from proxy.record import Decision

SAME, DRIFTED, WRONG_USE, UNTOLD = 0, 1, 2, 3
BAR = 30  # characters of the longest bar
SLOW_BYTES = 16 << 20  # a progress bar appears from here: about two seconds


def check_command(
    file: Annotated[Path, typer.Argument(help="The detector file.")],
    journal: Annotated[Path, typer.Option("--journal", help="The journal's directory.", show_default=False)],
    since: Annotated[str, typer.Option(help="How far back to look: `7d`, `12h`.")] = "7d",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test whether recent traffic is still like the data that a detector was calibrated on.

    Looks at the scores in the journal: 0 it is, 1 it has drifted, 3 there are too few.

    Example: hip detector check policies/detectors/iris.onnx --journal audit
    """
    try:
        data = read(file, MAX_FILE)
        facts = inspect(data, str(file))
        if not journal.is_dir():
            raise refused(journal, "not a directory", "name the one with the journal (`audit.directory`)")
        begin = time.time() - _seconds(since, journal)
    except ConfigError as error:
        for finding in error.findings:
            Console(stderr=True).print(str(finding), markup=False, soft_wrap=True)
        raise typer.Exit(WRONG_USE) from error
    digest = hashlib.sha256(data).hexdigest()
    found = drifts(facts, _judgements(journal, digest, begin, quiet=as_json))
    told = [one for one in found if one.enough]
    if as_json:
        print(json.dumps(_as_json(facts, digest, found), indent=2))
    elif not found:
        hint = "is it in use, and is the journal in the clear (`hip audit decrypt`)?"
        typer.echo(f"{journal}: no scores of this detector in the last {since}; {hint}", err=True)
    else:
        for one in found:
            print("\n".join(_lines(facts, one)))
    raise typer.Exit(DRIFTED if any(one.drifted for one in found) else SAME if told else UNTOLD)


def _seconds(since: str, journal: Path) -> float:
    try:
        return duration(since)
    except ValueError as exc:
        raise refused(journal, f"--since {since!a:.20} is not a time", "like 7d or 12h") from exc


def _judgements(journal: Path, digest: str, begin: float, *, quiet: bool) -> Iterator[Judgement]:
    """Yield what this detector said since then, in order of time."""
    slow = total_bytes(journal) >= SLOW_BYTES
    with Progress(console=Console(stderr=True), disable=quiet or not slow, transient=True) as progress:
        progress.add_task("reading the journal", total=None)
        for envelope, event in records(journal, containing=digest):
            if envelope.t_ns < begin * 1e9 or not isinstance(event, Decision):
                continue
            said = event.judged
            if said is None or said.digest != digest:
                continue
            yield Judgement(
                model=event.model or "",
                version=event.version or "",
                caller="" if event.actor is None else event.actor.subject,
                input=event.input_hash or event.event,
                p_value=said.p_value,
                statistic=said.statistic,
                rows=said.rows,
                suspicious=said.verdict != "pass",
            )


def _lines(facts: Learned, one: Drift) -> Iterator[str]:
    name = f"{one.model} version {one.version}" if one.version else one.model
    yield f"{name}: {_verdict(one)}"
    yield f"  {one.requests:,} requests of {one.callers:,} callers, {one.tested:,} looked at"
    if not one.enough:
        yield f"  at least {MIN_REQUESTS} different ones are needed, and a caller counts with {PER_CALLER} at most"
        return
    yield (
        f"  suspicious: {one.alarms} and {one.expected:.1f} expected at the rate {facts.alpha:g}"
        f"{_probability(one.alarm_probability)}"
    )
    if one.busiest > 1 / 2:
        yield f"  {one.busiest:.0%} of all alarms are one caller's: look at it before you fit again"
    if one.ks is None:
        yield "  scores: too few requests with one row to compare"
        return
    yield f"  scores: at most {one.ks:.3f} from the calibration's{_probability(one.ks_probability)}"
    yield "  p-values (as many in each line if nothing has changed):"
    for number, count in enumerate(one.bins):
        bar = "█" * -(-count * BAR // max(*one.bins, 1))
        yield f"    {number / BINS:.1f} to {(number + 1) / BINS:.1f} {count:7,} {bar}"


def _verdict(one: Drift) -> str:
    if not one.enough:
        return "too little traffic to say"
    return "DRIFTED: look at what changed, and fit again" if one.drifted else "as calibrated"


def _probability(value: float | None) -> str:
    if value is None:
        return ""
    return f" (by chance: {value:.2g}{', less than ' + format(SIGNIFICANT, 'g') if value < SIGNIFICANT else ''})"


def _as_json(facts: Learned, digest: str, found: list[Drift]) -> dict[str, object]:
    models = [{**asdict(one), "enough": one.enough, "drifted": one.drifted} for one in found]
    return {"detector": digest, "alpha": facts.alpha, "significant": SIGNIFICANT, "models": models}
