"""`hip audit`: what an auditor does with a journal, offline.

`verify` never says a bare OK: it says up to which record a signature vouches, and what it could not see.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from proxy.adapters.journal.disk import segments
from proxy.adapters.journal.reading import Kept, Verification, file_lines, stream_lines, total_bytes, verify
from proxy.audit.anchor import AnchorError, line_hash, read
from proxy.audit.chain import LineError, split
from proxy.audit.checkpoint import ORIGIN, Checkpoint
from proxy.audit.findings import Status, StreamReport
from proxy.audit.inert import inert
from proxy.audit.note import NoteError, Verifier

SLOW_BYTES = 64 << 20  # a progress bar appears from here: about two seconds

audit_app = typer.Typer(help="Verify and read the audit journal, offline.", no_args_is_help=True)

_WORDS = {
    Status.INTACT: "INTACT",
    Status.TAMPERED: "TAMPERED",
    Status.INCOMPLETE: "INCOMPLETE",
    Status.UNKNOWN: "CANNOT TELL",
}
_STYLES = {
    Status.INTACT: "bold green",
    Status.TAMPERED: "bold red",
    Status.INCOMPLETE: "bold yellow",
    Status.UNKNOWN: "bold yellow",
}
_LIMITS = (
    "Not proven: that a compromised process wrote the truth; and, without --head, that journal and anchor log were "
    "not rolled back together."
)


@audit_app.command("verify")
def verify_command(
    path: Annotated[Path, typer.Argument(help="The journal's directory, or one of its files.", exists=True)],
    public_key: Annotated[
        str, typer.Option("--public-key", help="The auditor's key: the line in audit.pub, or a file that holds it.")
    ] = "",
    head: Annotated[
        Path | None, typer.Option("--head", help="A file with heads kept from earlier verifications.", exists=True)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Verify a journal: 0 intact, 1 tampered, 2 incomplete or unsealed tail, 3 cannot tell.

    Example: hip audit verify /var/lib/hip/audit --public-key audit.pub --head kept.txt
    """
    if not public_key:
        _cannot_tell("without --public-key nobody can say who signed this journal; take audit.pub from the operator")
    auditor = _key(public_key)
    kept = _kept(head, auditor) if head else Kept()
    total = total_bytes(path)
    with Progress(
        "verifying",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=as_json or total < SLOW_BYTES,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total)
        found = verify(path, auditor, kept, lambda step: bar.advance(task, step))
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        _print(found, path)
    raise typer.Exit(int(found.status))


def _key(text: str) -> Verifier:
    try:
        path = Path(text)
        return Verifier.parse(path.read_text("ascii") if path.is_file() else text)
    except (NoteError, OSError, UnicodeDecodeError) as error:
        return _cannot_tell(f"--public-key: {error}")


def _kept(path: Path, auditor: Verifier) -> Kept:
    """Read kept heads: anchor lines (JSON) and checkpoints (signed notes), in any order."""
    kept = Kept()
    try:
        text = path.read_text("utf-8")
        for line in text.splitlines():
            if line.startswith("{"):
                raw = line.encode()
                kept.anchors[read(raw, auditor).n] = line_hash(raw)
        for start in (ORIGIN + part for part in ("\n" + text).split("\n" + ORIGIN)[1:]):
            checkpoint = Checkpoint.parse(start.partition("\n\n")[0] + "\n")
            stream = checkpoint.origin.removeprefix(ORIGIN)
            kept.checkpoints.setdefault(stream, {})[checkpoint.size] = checkpoint.root
    except (AnchorError, NoteError, OSError, UnicodeDecodeError) as error:
        _cannot_tell(f"--head: {error}")
    if not (kept.anchors or kept.checkpoints):
        _cannot_tell(f"--head: {path} holds neither an anchor line nor a checkpoint")
    return kept


def _cannot_tell(message: str) -> NoReturn:
    print(f"CANNOT TELL: {message}", file=sys.stderr)
    raise typer.Exit(int(Status.UNKNOWN))


def _when(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if t_ns else "-"


def _as_json(found: Verification) -> dict[str, object]:
    return {
        "status": _WORDS[found.status].lower().replace(" ", "_"),
        "exit_code": int(found.status),
        "streams": [
            msgspec.to_builtins(report) | {"unsealed": report.unsealed, "status": int(report.status)}
            for report in found.streams
        ],
        "faults": msgspec.to_builtins(found.faults),
        "removed_anchor_bytes": found.removed_bytes,
        "head": found.head,
    }


def _print(found: Verification, path: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("stream", "records", "sealed to", "at", "unsealed", "end", "allowed", "refused", "unpaired", "found")
    for report in found.streams:
        table.add_row(*_row(report))
    console.print(table)
    for fault in (*found.faults, *(fault for report in found.streams for fault in report.faults)):
        place = f"{fault.stream}" + ("" if fault.seq is None else f", record {fault.seq}")
        console.print(
            f"[{_STYLES[fault.status]}]{_WORDS[fault.status].lower()}[/]: {escape(place)}: {escape(fault.what)}"
        )
    for report in found.streams:
        if report.ending == "recovered":
            lost = f", {report.torn_bytes} bytes of an unfinished record" if report.torn_bytes else ""
            console.print(f"note: {report.stream} ended in a crash and was found by its successor{lost}")
    sealed = sum(report.sealed - report.first_seq for report in found.streams if report.sealed)
    unsealed = sum(report.unsealed for report in found.streams)
    status = found.status
    console.print(
        f"[{_STYLES[status]}]{_WORDS[status]}[/]: {len(found.streams)} streams, "
        f"{sealed} records sealed, {unsealed} unsealed"
    )
    if found.head:
        console.print("Keep this head in another place; next time give it with --head:")
        print(found.head)
    elif path.is_file():
        console.print("One file alone: other streams and the rest of this one were not looked at.")
        print("\n".join(report.head for report in found.streams))
    console.print(_LIMITS)


def _row(report: StreamReport) -> tuple[str, ...]:
    return (
        report.stream,
        str(report.records),
        str(report.sealed - 1) if report.sealed else "-",
        _when(report.sealed_ns),
        str(report.unsealed),
        report.ending,
        str(report.allowed),
        str(report.refused),
        str(report.unpaired),
        f"[{_STYLES[report.status]}]{_WORDS[report.status].lower()}[/]",
    )


@audit_app.command("show")
def show_command(
    path: Annotated[Path, typer.Argument(help="The journal's directory, or one of its files.", exists=True)],
    incident: Annotated[str, typer.Option("--incident", help="Only the records of this incident id.")] = "",
) -> None:
    """Print records readably, in each stream's order. Shows, does not verify.

    Example: hip audit show /var/lib/hip/audit --incident 4fd1…
    """
    wanted = incident.removeprefix("urn:hip:incident:")
    sources = (
        [file_lines(path)]
        if path.is_file()
        else [stream_lines(path, stream, indices[0]) for stream, indices in segments(path).items()]
    )
    shown = 0
    for lines in sources:
        for line in lines:
            if wanted and wanted.encode() not in line:
                continue
            shown += _show(line, wanted)
    if wanted and not shown:
        print(f"no record of incident {inert(wanted)}", file=sys.stderr)
        raise typer.Exit(1)


def _show(line: bytes, wanted: str) -> bool:
    """Print one line; what cannot be read is said so, not skipped."""
    try:
        envelope, body = split(line.rstrip(b"\n"))
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (LineError, msgspec.DecodeError) as error:
        print(f"? {len(line)} bytes that are no record: {inert(str(error))}")
        return True
    kind = msgspec.json.decode(fields.pop("type"), type=str)
    event = msgspec.json.decode(fields.get("event", b'""'), type=str)
    if wanted and event != wanted:
        return False
    print(f"{_when(envelope.t_ns)}  {envelope.stream}#{envelope.seq}  {inert(kind)}")
    for name, value in fields.items():
        print(f"    {inert(name)}: {inert(bytes(value).decode('utf-8', 'replace'), 1_000)}")
    return True
