"""What every verb of `hip audit` takes: the auditor's key, kept heads, and a bar while it reads."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from typer.core import TyperCommand

from proxy.adapters.journal.disk import PRIVATE_FILE
from proxy.adapters.journal.reading import Kept, Verification, total_bytes
from proxy.audit.anchor import AnchorError, line_hash, read
from proxy.audit.checkpoint import ORIGIN, Checkpoint
from proxy.audit.findings import Fault, Status
from proxy.audit.note import NoteError, Verifier

SLOW_BYTES = 64 << 20  # a progress bar appears from here: about two seconds

PublicKey = Annotated[
    str, typer.Option("--public-key", help="The auditor's key: the line in audit.pub, or a file that holds it.")
]

JournalDirectory = Annotated[Path, typer.Argument(help="The journal's directory.", exists=True, file_okay=False)]

WORDS = {
    Status.INTACT: "INTACT",
    Status.TAMPERED: "TAMPERED",
    Status.INCOMPLETE: "INCOMPLETE",
    Status.UNKNOWN: "CANNOT TELL",
}

WRONG_USE = 2


class Judging(TyperCommand):
    """A verb that exits as `verify` does: its 2 means an open end, so that a wrong word on the line is a 3."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the command line."""
        try:
            return super().make_context(*args, **kwargs)
        except Exception as error:
            if getattr(error, "exit_code", None) == WRONG_USE:
                error.exit_code = int(Status.UNKNOWN)  # type: ignore[attr-defined]
            raise


def read_key(text: str) -> Verifier:
    """Return the auditor's key, or end: without it nothing can be said."""
    if not text:
        cannot_tell("without --public-key nobody can say who signed this journal; take audit.pub from the operator")
    try:
        path = Path(text)
        return Verifier.parse(path.read_text("ascii") if path.is_file() else text)
    except (NoteError, OSError, UnicodeDecodeError) as error:
        return cannot_tell(f"--public-key: {error}")


def read_heads(path: Path, auditor: Verifier) -> Kept:
    """Read kept heads: anchor lines (JSON) and checkpoints (signed notes), in any order."""
    kept = Kept()
    try:
        text = path.read_text("utf-8")
        for line in text.splitlines():
            at = line.rfind('{"v":')  # behind a syslog header, a half line that a full disk left, or at the beginning
            if at >= 0:
                raw = line[at:].encode()
                kept.anchors[read(raw, auditor).n] = line_hash(raw)
        for start in (ORIGIN + part for part in ("\n" + text).split("\n" + ORIGIN)[1:]):
            checkpoint = Checkpoint.parse(start.partition("\n\n")[0] + "\n")
            stream = checkpoint.origin.removeprefix(ORIGIN)
            kept.checkpoints.setdefault(stream, {})[checkpoint.size] = checkpoint.root
    except (AnchorError, NoteError, OSError, UnicodeDecodeError) as error:
        cannot_tell(f"--head: {error}")
    if not (kept.anchors or kept.checkpoints):
        cannot_tell(f"--head: {path} holds neither an anchor line nor a checkpoint")
    return kept


def add_head(path: Path, head: str) -> None:
    """Add a head to a file of kept ones, or end."""
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a head on the same line as another would hide it
                    file.write(b"\n")
            file.write(head.encode() + b"\n")
    except OSError as error:
        cannot_tell(f"--keep: {path}: {error.strerror}")


def cannot_tell(message: str) -> NoReturn:
    """End with the answer 3."""
    print(f"CANNOT TELL: {message}", file=sys.stderr)
    raise typer.Exit(int(Status.UNKNOWN))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """End with the answer 3 where a file cannot be read: that says nothing about who changed what."""
    try:
        yield
    except OSError as error:
        cannot_tell(f"{error.filename or path}: {error.strerror}")


def start_of(path: Path) -> bytes:
    """Return a file's first bytes."""
    with path.open("rb") as file:
        return file.read(1_024)


@contextmanager
def progress(path: Path, what: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show how far reading a journal is, where that takes a while."""
    total = total_bytes(path)
    with Progress(
        what,
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or total < SLOW_BYTES,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda step: bar.advance(task, step)


def when(t_ns: int) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(t_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if t_ns else "-"


def place_of(fault: Fault) -> str:
    """Return where a finding is."""
    return fault.stream if fault.seq is None else f"{fault.stream}, record {fault.seq:,}"


def count(number: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def warn_of_withheld(found: Verification) -> None:
    """Say that there is more than was read."""
    if any(report.withheld for report in found.streams):
        print("records are withheld, and were not looked into: run `hip audit decrypt` first", file=sys.stderr)


def write_private(path: Path, data: bytes, failed: int = WRONG_USE) -> None:
    """Write a file that only its owner can read: pseudonyms are in it. `failed` is the exit code when it cannot be."""
    try:
        with open_private(path) as file:
            file.write(data)
    except OSError as error:
        cannot_write(path, error, failed)


def open_private(path: Path) -> BinaryIO:
    """Open a file for writing that only its owner can read."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
    return open(fd, "wb")  # noqa: PTH123 - a descriptor, made private before the first byte


def cannot_write(path: Path, error: OSError, failed: int = WRONG_USE) -> NoReturn:
    """End: wrong use."""
    print(f"{path}: {error.strerror}", file=sys.stderr)
    raise typer.Exit(failed)
