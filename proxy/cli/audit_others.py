"""What an auditor has beside the journal: exported spans, kept pages of metrics, an upstream's own count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from proxy.adapters.scrape import MAX_PAGE, ScrapeError, read_scrape
from proxy.audit.inert import inert
from proxy.audit.pointers import Pointer, PointerError, pointers
from proxy.audit.reconcile import Reconciliation, Scrape
from proxy.cli.audit_input import cannot_tell

SpanFiles = Annotated[
    list[Path] | None,
    typer.Option("--spans", help="Exported spans to compare with, OTLP JSON lines. May be repeated.", exists=True),
]
MetricsFiles = Annotated[
    list[Path] | None,
    typer.Option("--metrics", help="A kept page of /metrics to compare with. May be repeated.", exists=True),
]
UpstreamCounts = Annotated[
    list[str] | None,
    typer.Option("--upstream", help="NAME=COUNT: requests that the model server itself counted. May be repeated."),
]


def read_others(
    spans: list[Path] | None, metrics: list[Path] | None, upstreams: list[str] | None
) -> Reconciliation | None:
    """Return what the journal is to be compared with; None where nothing was given. Ends where something is wrong."""
    if not (spans or metrics or upstreams):
        return None
    found = Reconciliation(tuple(_scrape(path) for path in metrics or ()), _counts(upstreams or []))
    if spans:
        found.spans_given()
        for pointer in read_spans(spans):
            found.span(pointer)
    return found


def read_spans(paths: list[Path]) -> Iterator[Pointer]:
    """Yield the server spans of files of OTLP JSON lines."""
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield from pointers(line)
                except PointerError as error:
                    cannot_tell(f"--spans: {path}:{number}: {error}")


def _scrape(path: Path) -> Scrape:
    try:
        with path.open("rb") as file:
            return read_scrape(inert(path.name), file.read(MAX_PAGE))
    except ScrapeError as error:
        cannot_tell(f"--metrics: {path}: {error}")


def _counts(given: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in given:
        name, _, count = one.partition("=")
        if not (name and count.isascii() and count.isdigit()) or name in found:
            cannot_tell(f"--upstream: {one!r} is not NAME=COUNT, or the name stands twice")
        found[name] = int(count)
    return found
