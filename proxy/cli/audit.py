"""`hip audit`: what an auditor does with a journal, offline.

`verify` never says a bare OK: it says up to which record a signature vouches, and what it could not see.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from proxy.adapters.journal.disk import segments
from proxy.adapters.journal.reading import Kept, Verification, file_lines, stream_lines, verify
from proxy.audit.bundle import BundleError, is_bundle
from proxy.audit.bundle import read as read_bundle
from proxy.audit.bundle import verify as verify_bundle
from proxy.audit.chain import LineError, split
from proxy.audit.findings import Status, StreamReport
from proxy.audit.inert import inert
from proxy.audit.note import Verifier
from proxy.cli import audit_data, audit_report, audit_upkeep
from proxy.cli.audit_input import (
    WORDS,
    Judging,
    PublicKey,
    add_head,
    cannot_tell,
    count,
    place_of,
    progress,
    read_heads,
    read_key,
    readable,
    start_of,
    when,
)

audit_app = typer.Typer(help="Verify and read the audit journal, offline.", no_args_is_help=True)

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
_EVIDENCE = (
    "Keep this copy as evidence, and take no head from it. Only what is sealed above is still vouched for. Compare "
    "with an earlier export, the kept heads and the trace store."
)
_STRANGE = "Nothing here is signed by the key that you gave: is that this journal's audit.pub?"
MIN_INCIDENT = 8  # characters of an incident id, at the least, that `show` searches for


@audit_app.command("verify", cls=Judging)
def verify_command(
    path: Annotated[Path, typer.Argument(help="The journal's directory, one of its files, or a bundle.", exists=True)],
    public_key: PublicKey = "",
    head: Annotated[
        Path | None, typer.Option("--head", help="A file with heads kept from earlier verifications.", exists=True)
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="A file to which the head to keep is added, for the next --head.")
    ] = None,
    hash_only: Annotated[
        bool, typer.Option("--hash-only", help="Chain and signatures only: faster, and pairs are not counted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Verify a journal: 0 intact, 1 tampered, 2 incomplete or unsealed tail, 3 cannot tell.

    Example: hip audit verify export/ --public-key audit.pub --head kept.txt --keep kept.txt
    """
    auditor = read_key(public_key)
    with readable(path):
        if path.is_file() and is_bundle(start_of(path)):
            if head or keep:
                cannot_tell(f"{path}: a bundle is verified by itself: --head and --keep go with a journal")
            _verify_bundle(path, auditor, as_json=as_json)
        kept = read_heads(head, auditor) if head else Kept()
        with progress(path, "verifying", quiet=as_json) as advance:
            found = verify(path, auditor, kept, advance, hash_only=hash_only)
    saved = keep if keep and _heads(found) else None
    if saved:
        add_head(saved, _heads(found))
    if as_json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        _print(found, path, saved)
    raise typer.Exit(int(found.status))


def _heads(found: Verification) -> str:
    """Return what is worth keeping: nothing of a journal that somebody has worked on."""
    if found.status is Status.TAMPERED:
        return ""
    return found.head or "\n".join(report.head for report in found.streams)


def _verify_bundle(path: Path, auditor: Verifier, *, as_json: bool) -> NoReturn:
    try:
        bundle = read_bundle(path.read_bytes())
    except BundleError as error:
        cannot_tell(f"{path}: {error}")
    faults = verify_bundle(bundle, auditor)
    status = Status.TAMPERED if faults else Status.INTACT
    about = inert(bundle.about)
    if as_json:
        told = {"status": WORDS[status].lower(), "exit_code": int(status), "about": about}
        print(json.dumps(told | {"records": len(bundle.records), "faults": msgspec.to_builtins(faults)}, indent=2))
    else:
        for fault in faults:
            print(f"record {fault.seq} of the bundle: {fault.what}")
        print(f"{WORDS[status]}: {count(len(bundle.records), 'record')}, {about}")
        print("Proven: each stood at its place under a signed head. Not proven: that there are no others.")
    raise typer.Exit(int(status))


def _as_json(found: Verification) -> dict[str, object]:
    return {
        "status": WORDS[found.status].lower().replace(" ", "_"),
        "exit_code": int(found.status),
        "streams": [
            msgspec.to_builtins(report) | {"unsealed": report.unsealed, "status": int(report.status)}
            for report in found.streams
        ],
        "faults": msgspec.to_builtins(found.faults),
        "removed_anchor_bytes": found.removed_bytes,
        "head": found.head if _heads(found) else "",
    }


def _print(found: Verification, path: Path, saved: Path | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for report in found.streams:
        _print_stream(console, report)
    for fault in (*found.faults, *(fault for report in found.streams for fault in report.faults)):
        told = escape(f"{place_of(fault)}: {fault.what}")
        console.print(f"[{_STYLES[fault.status]}]{WORDS[fault.status].lower()}[/]: {told}")
    sealed = sum(report.sealed - report.first_seq for report in found.streams if report.sealed)
    unsealed = sum(report.unsealed for report in found.streams)
    status = found.status
    console.print(
        f"[{_STYLES[status]}]{WORDS[status]}[/]: {count(len(found.streams), 'stream')}, "
        f"{count(sealed, 'record')} sealed, {unsealed:,} unsealed"
    )
    if path.is_file() and found.streams:
        console.print("One file alone: other streams and the rest of this one were not looked at.")
    if status is Status.TAMPERED:
        console.print(_EVIDENCE if sealed or found.head else _STRANGE)
        return
    if saved:
        console.print(f"The head to keep was added to {escape(str(saved))}: store it where the operator cannot write.")
    elif heads := _heads(found):
        console.print("Keep this head in another place; next time give it with --head:")
        print(heads)
    console.print(_LIMITS)


def _print_stream(console: Console, report: StreamReport) -> None:
    """Print one stream as a block: 80 columns are enough."""
    console.print(f"[{_STYLES[report.status]}]{WORDS[report.status].lower()}[/]  {escape(report.stream)}")
    sealed = f"sealed to {report.sealed - 1} at {when(report.sealed_ns)}" if report.sealed else "nothing sealed"
    console.print(f"    {count(report.records, 'record')}, {sealed}, {report.unsealed:,} unsealed")
    if report.status is Status.TAMPERED:
        console.print("    read up to the fault; what stands behind it was not judged")
    if report.unread:
        pairs = f"{report.unread:,} read by hash only"
    else:
        pairs = f"{report.allowed:,} allowed, {report.refused:,} refused, {report.unpaired:,} unpaired"
    console.print(f"    {pairs}; end: {report.ending}")
    if report.withheld:
        console.print(f"    {report.withheld:,} records withheld: encrypted or left out, only their hashes are here")
    if report.pruned:
        console.print(f"    files 0 to {report.pruned - 1} were deleted by retention, which is on record")
    if report.ending == "recovered":
        lost = f", with {report.torn_bytes} bytes of an unfinished record" if report.torn_bytes else ""
        console.print(f"    crashed; found by its successor{lost}")


@audit_app.command("show")
def show_command(
    path: Annotated[Path, typer.Argument(help="The journal's directory, or one of its files.", exists=True)],
    incident: Annotated[
        str, typer.Option("--incident", help="Only the records of this incident id, or of its first 8 characters.")
    ] = "",
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
    if wanted and not (event == wanted or (len(wanted) >= MIN_INCIDENT and event.startswith(wanted))):
        return False
    print(f"{when(envelope.t_ns)}  {envelope.stream}#{envelope.seq}  {inert(kind)}")
    for name, value in fields.items():
        print(f"    {inert(name)}: {inert(bytes(value).decode('utf-8', 'replace'), 1_000)}")
    return True


audit_app.command("report", cls=Judging)(audit_report.report_command)
audit_app.command("bundle")(audit_report.bundle_command)
audit_app.command("query")(audit_data.query_command)
audit_app.command("export")(audit_data.export_command)
audit_app.command("decrypt")(audit_upkeep.decrypt_command)
audit_app.command("lookup")(audit_upkeep.lookup_command)
audit_app.command("review")(audit_upkeep.review_command)
