"""`hip audit report` and `hip audit bundle`: what an auditor takes away from a journal."""

import secrets
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from proxy import __version__
from proxy.adapters.journal.reading import Kept, verify
from proxy.audit.bundle import write
from proxy.audit.findings import Status
from proxy.audit.inert import inert
from proxy.audit.report.page import Source, page
from proxy.audit.witnesses import Incident, Reporter
from proxy.cli.audit_input import (
    WORDS,
    JournalDirectory,
    PublicKey,
    count,
    progress,
    read_heads,
    read_key,
    readable,
    warn_of_withheld,
    write_private,
)
from proxy.cli.audit_others import MetricsFiles, SpanFiles, UpstreamCounts, read_others


def report_command(
    directory: JournalDirectory,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")],
    public_key: PublicKey = "",
    head: Annotated[
        Path | None, typer.Option("--head", help="A file with heads kept from earlier verifications.", exists=True)
    ] = None,
    seed: Annotated[str, typer.Option("--seed", help="Repeat the random sample of an earlier report.")] = "",
    spans: SpanFiles = None,
    metrics: MetricsFiles = None,
    upstreams: UpstreamCounts = None,
) -> None:
    """Write a report of a verified journal, as one HTML file that needs no network. Exits as `verify` does.

    Example: hip audit report export/ --public-key audit.pub -o report.html --spans spans.jsonl --metrics metrics.txt
    """
    auditor = read_key(public_key)
    kept = read_heads(head, auditor) if head else Kept()
    reporter = Reporter(seed or secrets.token_hex(8), read_others(spans, metrics, upstreams))
    with readable(directory), progress(directory, "reading") as advance:
        found = verify(directory, auditor, kept, advance, witness=reporter.stream)
    source = Source(
        name=directory.resolve().name,
        made_at=int(time.time()),
        version=__version__,
        status=found.status,
        streams=found.streams,
        faults=found.faults,
        head=found.head,
        sample=tuple(reporter.sample.proven()),
        seed=reporter.sample.seed,
        reconciled=tuple(reporter.others.rows()) if reporter.others is not None else (),
    )
    write_private(output, page(source, reporter.summary).encode("utf-8", "replace"), int(Status.UNKNOWN))
    print(f"{WORDS[found.status]}: the report is in {output}")
    warn_of_withheld(found)
    raise typer.Exit(int(found.status))


def bundle_command(
    directory: JournalDirectory,
    incident: Annotated[str, typer.Option("--incident", help="The incident id that the caller was told.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.")],
    public_key: PublicKey = "",
) -> None:
    """Write the records of one incident with their proofs: `hip audit verify BUNDLE` needs nothing else.

    Example: hip audit bundle export/ --incident 4fd1c0... -o incident.json --public-key audit.pub
    """
    auditor = read_key(public_key)
    wanted = incident.removeprefix("urn:hip:incident:")
    finder = Incident(wanted)
    with progress(directory, "reading") as advance:
        found = verify(directory, auditor, Kept(), advance, witness=finder.stream)
    proven, unsealed = finder.proven()
    if unsealed:
        print(f"{unsealed} records are not under a signed head yet; wait a second and repeat", file=sys.stderr)
    if not proven:
        print(f"no record of incident {inert(wanted)} can be proven", file=sys.stderr)
        warn_of_withheld(found)
        raise typer.Exit(1)
    write_private(output, write(f"incident {wanted}", proven))
    print(f"{count(len(proven), 'record')} of incident {inert(wanted)}: written to {output}")
    print(f"The journal they were taken from: {WORDS[found.status]}")
    raise typer.Exit(1 if unsealed else 0)
