"""`hip audit query` and `hip audit export`: the records for other programs, and for questions nobody foresaw.

Both verify while they read, and hand on only what a signature vouches for.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from enum import StrEnum
from importlib import import_module
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, BinaryIO, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxy.adapters.journal.reading import Kept, Verification, verify
from proxy.adapters.otlp import as_json, resource
from proxy.audit.findings import Status
from proxy.audit.inert import inert
from proxy.audit.note import Verifier
from proxy.audit.ocsf import as_ocsf
from proxy.audit.requests import Request, Requests
from proxy.audit.retrace import retrace
from proxy.audit.trace import Span
from proxy.audit.witness import Witness
from proxy.cli.audit_input import (
    WORDS,
    JournalDirectory,
    PublicKey,
    cannot_write,
    open_private,
    progress,
    read_key,
    warn_of_withheld,
)
from proxy.cli.audit_others import SpanFiles, read_spans

if TYPE_CHECKING:
    from proxy.adapters.exports import Extract

MAX_SHOWN = 1_000  # rows on a terminal
SPANS_A_LINE = 500  # in an OTLP file

_encode = msgspec.json.Encoder().encode


class Format(StrEnum):
    """What to write."""

    OTLP = "otlp"  # one ExportTraceServiceRequest a line
    OCSF = "ocsf"  # one API Activity event a line
    PARQUET = "parquet"
    CSV = "csv"


class View(StrEnum):
    """Which table; for Parquet and CSV."""

    REQUESTS = "requests"
    DECISIONS = "decisions"
    COMPLETIONS = "completions"
    REFUSALS = "refusals"
    POLICY_CHANGES = "policy_changes"


def query_command(
    directory: JournalDirectory,
    sql: Annotated[
        str, typer.Argument(help="Over decisions, completions, requests, refusals, policy_changes, events.")
    ],
    public_key: PublicKey = "",
    spans: SpanFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object a line, without a limit.")] = False,
) -> None:
    """Ask a verified journal in SQL (DuckDB). `DESCRIBE requests` names the columns.

    With --spans there are also `spans` and `reconciliation`, which sets each request beside its span.

    Example: hip audit query export/ "SELECT reason, count(*) FROM refusals GROUP BY 1" --public-key audit.pub
    """
    exports = _exports()
    reading = _Reading(directory, read_key(public_key), quiet=as_json)
    try:
        with exports.tables(reading.extract, None if spans is None else read_spans(spans)) as loaded:
            names, rows = loaded.query(sql)
            if as_json:
                for row in rows:
                    print(json.dumps(dict(zip(names, row, strict=True)), default=str))
            else:
                _show(names, list(islice(rows, MAX_SHOWN + 1)))
    except exports.QueryError as error:
        _wrong(inert(str(error), 1_000))
    reading.judge()


def export_command(
    directory: JournalDirectory,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    kind: Annotated[Format, typer.Option("--format", help="otlp and ocsf are JSON lines.")],
    view: Annotated[View, typer.Option("--view", help="Which table; Parquet and CSV only.")] = View.REQUESTS,
    public_key: PublicKey = "",
) -> None:
    """Write the requests of a verified journal for another program.

    Example: hip audit export export/ --format parquet -o requests.parquet --public-key audit.pub
    """
    if kind in {Format.OTLP, Format.OCSF} and view is not View.REQUESTS:
        _wrong(f"--view goes with parquet and csv; {kind} is always of requests")
    reading = _Reading(directory, read_key(public_key), quiet=False)
    try:
        with nullcontext() if kind is Format.PARQUET else open_private(output) as file:
            count = _export(kind, view, output, file, reading)
    except OSError as error:
        cannot_write(output, error)
    print(f"{count:,} {'requests' if view is View.REQUESTS else 'rows'} are in {output}")
    reading.judge()


def _export(kind: Format, view: View, output: Path, file: BinaryIO | None, reading: "_Reading") -> int:
    if kind in {Format.PARQUET, Format.CSV}:
        exports = _exports()
        try:
            with exports.tables(reading.extract) as loaded:
                if file is None:
                    open_private(output).close()
                    return int(loaded.write_parquet(view, output))
                with TextIOWrapper(file, encoding="utf-8", errors="replace", newline="") as text:
                    return int(loaded.write_csv(view, text))
        except exports.QueryError as error:
            _wrong(inert(str(error), 1_000))
    if file is None:
        return 0
    lines = _Lines(file)
    reading.requests(lines.ocsf if kind is Format.OCSF else lines.otlp)
    lines.flush()
    return lines.count


class _Lines:
    """Requests as JSON lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._resource = resource("audit-export")
        self._spans: list[Span] = []
        self.count = 0

    def ocsf(self, request: Request) -> None:
        """Write one event."""
        self.count += 1
        self._file.write(_encode(as_ocsf(request)) + b"\n")

    def otlp(self, request: Request) -> None:
        """Write one request's spans, in company."""
        self.count += 1
        self._spans += retrace(request)
        if len(self._spans) >= SPANS_A_LINE:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._spans:
            self._file.write(as_json(self._resource, self._spans) + b"\n")
            self._spans.clear()


class _Reading:
    """One pass over a journal, with its verification."""

    def __init__(self, directory: Path, auditor: Verifier, *, quiet: bool) -> None:
        self._directory = directory
        self._auditor = auditor
        self._quiet = quiet
        self._found: Verification | None = None

    def extract(self, extract: "Extract") -> None:
        """Fill a table."""
        self._read(lambda: extract)

    def requests(self, take: Callable[[Request], None]) -> None:
        """Hand out requests."""
        streams: list[Requests] = []

        def begin() -> Requests:
            for before in streams:
                before.finish()
            streams[:] = [Requests(take)]
            return streams[0]

        self._read(begin)
        for last in streams:
            last.finish()

    def _read(self, witness: Callable[[], Witness]) -> None:
        with progress(self._directory, "reading", quiet=self._quiet) as advance:
            self._found = verify(self._directory, self._auditor, Kept(), advance, witness=witness)

    def judge(self) -> None:
        """Say what the verification found; a journal that was tampered with is never passed on in silence."""
        found = self._found
        if found is None:
            return
        print(f"the journal: {WORDS[found.status]}; records without a valid signature are left out", file=sys.stderr)
        warn_of_withheld(found)
        if found.status is Status.TAMPERED:
            raise typer.Exit(1)


def _exports() -> ModuleType:
    """Return the module that needs DuckDB, or say how to get that."""
    try:
        return import_module("proxy.adapters.exports")
    except ModuleNotFoundError as error:
        if error.name != "duckdb":
            raise
        _wrong("this needs DuckDB: pip install 'hardened-inference-proxy[audit]'")


def _show(names: list[str], rows: list[Sequence[object]]) -> None:
    table = Table(*[escape(inert(name)) for name in names])
    for row in rows[:MAX_SHOWN]:
        table.add_row(*["" if cell is None else escape(inert(str(cell))) for cell in row])
    Console(highlight=False).print(table)
    if len(rows) > MAX_SHOWN:
        print(f"the first {MAX_SHOWN} rows; --json writes all", file=sys.stderr)


def _wrong(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(2)
