"""The journal in DuckDB: named views, plain SQL, Parquet and CSV. An optional extra: `[audit]`.

The tables are made of the records that a verification has just found in their place, and of no others. Then the
database is cut off from files, network and extensions, so that no query, whoever wrote it, can read or write anything
else. Everything is gone at the end.
"""

import csv
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import duckdb
import msgspec

from proxy.audit.chain import Envelope
from proxy.audit.columns import SPAN_COLUMNS, VIEWS, line_columns, span_view_statements, view_statements
from proxy.audit.inert import UNPRINTABLE
from proxy.audit.pointers import Pointer
from proxy.record import AnyEvent

MEMORY = "1GB"  # that DuckDB may use before it writes to its scratch directory
THREADS = 2
BATCH = 10_000  # rows at once
MAX_CELL = 1 << 20  # characters

_encode = msgspec.json.Encoder().encode
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # OWASP, "CSV Injection"


class QueryError(ValueError):
    """A query that DuckDB does not take, or a journal that it cannot read."""


class Tables:
    """The views of one journal."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        self._connection = connection
        self._scratch = scratch

    def write_parquet(self, view: str, path: Path) -> int:
        """Write one view as a Parquet file; return how many rows it has."""
        made = self._scratch / "out.parquet"  # the one place that the database may still write to
        self.query(f"COPY ({_whole(view)}) TO '{made}' (FORMAT parquet, COMPRESSION zstd)")
        shutil.copyfile(made, path)
        _, counted = self.query(f"FROM {view} SELECT count(*)")
        return int(str(next(counted)[0]))

    def write_csv(self, view: str, file: TextIO) -> int:
        """Write one view as CSV (RFC 4180) in which no cell is a formula; return how many rows it has."""
        names, rows = self.query(_whole(view))
        writer = csv.writer(file)
        writer.writerow(names)
        count = 0
        for row in rows:
            writer.writerow([guarded(cell) for cell in row])
            count += 1
        return count

    def query(self, sql: str) -> tuple[list[str], Iterator[Sequence[object]]]:
        """Return the columns and rows of a query."""
        try:
            cursor = self._connection.execute(sql)
        except duckdb.Error as error:
            raise QueryError(_first_line(error)) from error
        names = [column[0] for column in cursor.description or ()]
        return names, self._rows(cursor)

    @staticmethod
    def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[Sequence[object]]:
        try:
            while rows := cursor.fetchmany(BATCH):
                yield from rows
        except duckdb.Error as error:
            raise QueryError(_first_line(error)) from error


class Extract:
    """A `Witness` that keeps the records of all streams as one file of lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def begin(self, size: int, peaks: list[bytes]) -> None:
        """Begin in the middle of a stream."""

    def record(self, envelope: Envelope, event: AnyEvent | None, line: bytes, leaf: bytes) -> None:  # noqa: ARG002 - the signature of the port
        """Keep a record."""
        if event is not None:
            self._file.write(line + b"\n")

    def withheld(self, seq: int, leaf: bytes) -> None:
        """Pass over a record that is not there."""

    def sealed(self, note: str, certificate: str) -> None:
        """Pass over a signed head."""


@contextmanager
def tables(fill: Callable[[Extract], None], spans: Iterable[Pointer] | None = None) -> Iterator[Tables]:
    """Make the views of whatever `fill` extracts, and of spans beside it where there are some to compare with."""
    with tempfile.TemporaryDirectory(prefix="hip-audit-") as name:
        scratch = Path(name)
        lines = scratch / "lines.jsonl"
        with lines.open("wb") as file:
            fill(Extract(file))
        pointed = None
        if spans is not None:
            pointed = scratch / "spans.jsonl"
            with pointed.open("wb") as file:
                file.writelines(_encode(span) + b"\n" for span in spans)
        connection = _load(lines, pointed, scratch)
        try:
            yield Tables(connection, scratch)
        finally:
            connection.close()


def _whole(view: str) -> str:
    if view not in VIEWS:
        message = f"no view {view}; there are {', '.join(VIEWS)}"
        raise QueryError(message)
    return f"FROM {view} ORDER BY ts, stream, seq"


def guarded(cell: object) -> str | int | float | bool | None:
    """Return a cell that a spreadsheet will not take for a formula."""
    if cell is None or isinstance(cell, bool | int | float):
        return cell
    if isinstance(cell, list | tuple):
        cell = " ".join(str(part) for part in cell)
    text = "".join(char if char.isprintable() else UNPRINTABLE for char in str(cell)[:MAX_CELL])
    return f"'{text}" if text.startswith(_FORMULA) else text


def _load(lines: Path, spans: Path | None, scratch: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": str(scratch),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    try:
        connection.read_json(str(lines), columns=line_columns(), format="newline_delimited").create("line")
        for statement in view_statements():
            connection.execute(statement)
        if spans is not None:
            connection.read_json(str(spans), columns=SPAN_COLUMNS, format="newline_delimited").create("span")
            for statement in span_view_statements():
                connection.execute(statement)
        connection.execute(f"SET allowed_directories = ['{scratch}']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        connection.close()
        raise QueryError(_first_line(error)) from error
    return connection


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]
