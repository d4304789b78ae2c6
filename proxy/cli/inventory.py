"""`hip inventory`: which models there are, who answers for them, who reaches them how, and what protects them.

For a platform team that has to say what it runs, and for an auditor. What a profile asks for and nobody said is a
finding; so are files that are not what the policy names, a certificate near its end, a model that changed.
Exit codes: 0 nothing missing, 1 findings, 2 wrong use.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from proxy.adapters.watch import read_directory
from proxy.app.reading import read_config
from proxy.cli.inventory_facts import Facts, gather
from proxy.dialects import DIALECTS
from proxy.documents import render
from proxy.errors import ConfigError
from proxy.policy.compile import compile_policy
from proxy.policy.inventory import CARD, Item, Profile, missing
from proxy.policy.model import Policy

COMPLETE, FINDINGS, WRONG_USE = 0, 1, 2
SOON = 30  # days: a certificate that ends within them is a finding


def inventory_command(
    directory: Annotated[Path | None, typer.Argument(help="The policy directory. Else the one of --config.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="hip.yaml: its certificates, and what its journal knows, are looked at too.")
    ] = None,
    profile: Annotated[Profile, typer.Option(help="What the cards of the models must say.")] = Profile.BASIC,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page, for a review, into this file.")] = None,
) -> None:
    """List the models: owners, data, lineage, exposure, detectors, probes; versions and certificates.

    Example: hip inventory --config hip.yaml --profile full --html inventory.html
    """
    try:
        settings = read_config(config)[1] if config else None
    except ConfigError as error:
        typer.echo("\n".join(map(str, error.findings)), err=True)
        raise typer.Exit(WRONG_USE) from error
    here = config.parent if config else Path()
    place = directory or (here / settings.policies if settings else Path("policies"))
    facts = gather(place, _policy(place), datetime.now(UTC), settings, here)
    findings = list(_findings(facts, profile))
    if html is not None:
        from proxy.cli.inventory_page import page

        try:
            html.write_text(page(facts, findings, profile))
        except OSError as error:
            typer.echo(f"{html}: {error.strerror}", err=True)
            raise typer.Exit(WRONG_USE) from error
    if as_json:
        typer.echo(json.dumps({"complete": not findings, "findings": findings, "profile": profile, **_plain(facts)}))
    elif html is None:
        typer.echo("\n".join(_lines(facts, findings, profile)))
    else:
        typer.echo(f"{html}: {len(facts.models)} models, {len(findings)} findings")
    raise typer.Exit(FINDINGS if findings else COMPLETE)


def _policy(directory: Path) -> Policy:
    """Return the policy, file names in it as seen from here."""
    files: dict[str, bytes] = {}
    try:
        files.update(read_directory(directory))
        return compile_policy(files, dialects=DIALECTS, root=str(directory))
    except ConfigError as error:
        typer.echo(render(error.findings, files), err=True)
        typer.echo(f"{directory}: not a good policy; `hip check {directory}` says more", err=True)
        raise typer.Exit(WRONG_USE) from error


def _findings(facts: Facts, profile: Profile) -> Iterator[str]:
    for item in facts.models:
        yield from (f"model {item.name}: {words}" for words in missing(item, profile))
    for file in facts.detectors:
        if file.state != "as named":
            yield f"detector {file.name}: {file.file} is {file.state}"
    for probe in facts.probes:
        if probe.state != "as named":
            yield f"probe {probe.name}: {probe.file} is {probe.state}"
        if probe.outcome in {"changed", "failed"}:
            quarantined = ", and is in quarantine" if probe.quarantined else ""
            yield f"model {probe.model}: probe {probe.name} found it {probe.outcome} on {probe.asked}{quarantined}"
    for one in facts.certificates:
        if one.fault:
            yield f"{one.what}: {one.file} {one.fault}"
        elif one.days_left is not None and one.days_left < SOON:
            ended = "has ended" if one.days_left < 0 else f"ends in {one.days_left} days"
            yield f"{one.what}: {one.file} {ended}"
    if facts.serving and facts.serving.policy != facts.policy:
        yield f"the journal's last worker serves another policy: {facts.serving.policy}"


def _plain(facts: Facts) -> dict[str, object]:
    models = [{**_model(item), "open": item.open} for item in facts.models]
    rest = {name: [asdict(one) for one in getattr(facts, name)] for name in ("detectors", "probes", "certificates")}
    return {
        "made": facts.made,
        "directory": facts.directory,
        "policy": facts.policy,
        "versions": facts.versions,
        "serving": asdict(facts.serving) if facts.serving else None,
        "models": models,
        **rest,
    }


def _model(item: Item) -> dict[str, object]:
    return {
        "name": item.name,
        "upstream": item.upstream,
        "servers": item.servers,
        "dialect": item.dialect,
        "served_as": item.served_as,
        "labels": dict(item.labels),
        "card": {**{name: getattr(item.card, name) for name in CARD}, "lineage": dict(item.card.lineage)},
        "exposure": [asdict(one) for one in item.exposure],
        "detectors": item.detectors,
        "enforced": item.enforced,
        "probes": item.probes,
        "recorded_inputs": item.recorded,
    }


# ── as text ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(facts: Facts, findings: list[str], profile: Profile) -> Iterator[str]:
    for item in facts.models:
        yield item.name + ("" if item.open else " (closed: no rule allows anything)")
        for title, words in told(item):
            yield f"    {title + ':':<16}{words}"
        for one in item.exposure:
            under = f" under {', '.join(one.under)}" if one.under else ""
            yield f"    {one.effect}: {one.who}: {one.actions}{under} ({one.rule}, {one.place})"
    yield ""
    for file in facts.detectors:
        yield f"detector {file.name}: {file.file}, {file.state}{_age(file.days)}, sha256 {file.sha256}"
    for probe in facts.probes:
        last = f"{probe.outcome} on {probe.asked}" if probe.outcome else "no answer is known here"
        yield f"probe {probe.name}: {probe.file}, {probe.state}{_age(probe.days)}; {last}"
    for certificate in facts.certificates:
        days = certificate.fault or f"ends {certificate.ends}, {certificate.days_left} days left"
        yield f"certificate, {certificate.what}: {certificate.file}, {days}"
    if facts.serving:
        yield f"serving since {facts.serving.since}: hip {facts.serving.version}, policy {facts.serving.policy}"
    yield f"policy {facts.policy}"
    yield ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    yield ""
    yield from (f"missing: {finding}" for finding in findings)
    yield f"{len(facts.models)} models, {len(findings)} findings (profile {profile})"


def told(item: Item) -> Iterator[tuple[str, str]]:
    """Yield what is known of a model, each with its title."""
    card = item.card
    yield "owner", card.owner or "-"
    yield "purpose", card.purpose or "-"
    yield "classification", card.classification or "-"
    yield "processors", "-" if card.processors is None else ", ".join(card.processors) or "nobody else"
    yield "datasheet", card.datasheet or "-"
    yield "lineage", ", ".join(f"{name} sha256 {digest}" for name, digest in card.lineage.items()) or "-"
    yield "server", f"{', '.join(item.servers)} ({item.upstream}, {item.dialect})"
    if item.labels:
        yield "labels", ", ".join(f"{name}: {word}" for name, word in item.labels.items())
    yield "detectors", ", ".join(item.detectors) or "-"
    yield "probes", ", ".join(item.probes) or "-"
    if item.recorded:
        yield "inputs", item.recorded


def _age(days: int | None) -> str:
    return "" if days is None else f", {days} days old"
