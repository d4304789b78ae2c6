"""`hip detector`: learn a detector from ordinary inputs, see what one has learned, and whether it still holds.

Exit codes: 0 good, 2 wrong use, or a file that cannot be used; those of `check` stand in `proxy.cli.detector_check`.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from proxy.adapters.detector import load_detector
from proxy.cli.detector_check import check_command
from proxy.cli.detector_input import read, read_images, read_rows, read_texts, refused
from proxy.cli.detector_recorded import RecordedInputs
from proxy.cli.detector_show import Facts, facts_as_json, print_facts, print_features, print_histogram
from proxy.detection.encoded import PICTURE
from proxy.detection.fit import Steps, Subject, fit
from proxy.detection.fit_text import fit_texts
from proxy.detection.graph import MAX_FILE, build, inspect
from proxy.detection.metadata import Kind
from proxy.detection.picture import Layout
from proxy.detection.recorded import PER_CALLER
from proxy.detection.rows import Table
from proxy.errors import ConfigError

WRONG_USE = 2  # the design's exit code for wrong use or bad configuration

Images = tuple[Layout | None, str]  # what the caller says of their layout and shape

detector_app = typer.Typer(no_args_is_help=True, help="Learn what ordinary inputs look like, and see what was learned.")
detector_app.command("check")(check_command)


@detector_app.command("fit")
def fit_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The detector file to write.")],
    model: Annotated[list[str], typer.Option(help="The model whose inputs these are, as in the policy; repeatable.")],
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Ordinary inputs: .csv, .npy, or .jsonl with a row, a text or a request a line; "
            "texts also as .txt, a text a line; a directory of images (.npy, or .png and .jpg) or of texts (.txt)."
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="How often an ordinary row may be called suspicious.")] = 0.01,
    names: Annotated[str, typer.Option(help="Names of the features, by commas; else those of the CSV's header.")] = "",
    kind: Annotated[Kind, typer.Option(help="What the inputs are.")] = Kind.TABULAR,
    layout: Annotated[
        Layout | None, typer.Option(help="Images: the order of their numbers; else as the shape says.")
    ] = None,
    shape: Annotated[str, typer.Option(help="Images: the shape of one, like 3x32x32; else as the file says.")] = "",
    recorded: Annotated[
        Path | None, typer.Option("--from-recorded", help="In the place of a file: the directory of recorded inputs.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="With it: the private key that they were encrypted for.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="With it: the file with the key's password.")] = None,
    per_caller: Annotated[
        int, typer.Option(min=1, help="With it: how many inputs of one caller count, of each recorded file.")
    ] = PER_CALLER,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was learned as JSON.")] = False,
) -> None:
    """Learn a detector from ordinary inputs.

    Example: hip detector fit inputs.csv -o policies/detectors/iris.onnx --model iris
    Or: hip detector fit --from-recorded recordings --key fitting.pem -o policies/detectors/iris.onnx --model iris
    """
    try:
        given: Path | RecordedInputs
        if recorded is not None and source is None:
            given, source = RecordedInputs(recorded, tuple(model), key, password_file, per_caller), recorded
        elif source is not None and (recorded, key, password_file) == (None, None, None):
            given = source
        else:
            hint = "name a file of inputs, or --from-recorded DIR --key FILE"
            raise refused(source or Path("inputs"), "which inputs?", hint)
        if kind is not Kind.IMAGE and (layout or shape):
            raise refused(source, f"--layout and --shape mean nothing to the kind {kind}", "write --kind image")
        with _progress() as step:
            facts = _fitted(
                given, Subject(str(source), tuple(model), _names(names)), alpha, step, kind, (layout, shape)
            )
            step("writing")
            data = build(facts)
            digest = hashlib.sha256(data).hexdigest()
            _write(output, data)
            load_detector(output, digest, model)
    except ConfigError as error:
        _fail(error)
    if as_json:
        print(json.dumps(facts_as_json(facts, digest), indent=2))
        return
    print_facts(facts, digest)
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
        data = read(file, MAX_FILE)
        facts = inspect(data, str(file))
    except ConfigError as error:
        _fail(error)
    digest = hashlib.sha256(data).hexdigest()
    if as_json:
        print(json.dumps(facts_as_json(facts, digest), indent=2))
        return
    print_facts(facts, digest)
    print_features(facts)
    print_histogram(facts)


def _fitted(
    source: Path | RecordedInputs, subject: Subject, alpha: float, step: Steps, kind: Kind, images: Images
) -> Facts:
    step("reading")
    read_from = source if isinstance(source, Path) else source.path
    recorded = source.read(kind) if isinstance(source, RecordedInputs) else None
    if kind is Kind.TEXT:
        return fit_texts(recorded.texts if recorded else read_texts(read_from), subject, alpha, step)
    if recorded and recorded.images:
        if any(images):
            raise refused(read_from, "--layout and --shape mean nothing to PNG and JPEG", "leave them out")
        return fit(np.array(recorded.images), subject, alpha, step, PICTURE)
    rows = Table(recorded.table()) if recorded else None
    if kind is Kind.IMAGE:
        table, picture = read_images(read_from, *images, rows)
    else:
        table, picture = rows or read_rows(read_from), None
    return fit(table.rows, replace(subject, names=subject.names or table.names), alpha, step, picture)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _write(path: Path, data: bytes) -> None:
    """Write beside and rename: a proxy that watches the directory never sees half a file."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as exc:
        raise refused(path, f"cannot be written: {exc.strerror}", "name a directory that is there") from exc


@contextmanager
def _progress() -> Iterator[Steps]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda what: progress.update(task, description=what)


def _fail(error: ConfigError) -> NoReturn:
    for finding in error.findings:
        Console(stderr=True).print(str(finding), markup=False, soft_wrap=True)
    raise typer.Exit(WRONG_USE) from error
