"""`hip revoke`: from now on a token, a subject, a certificate or everything issued before a moment is not believed.

Writes one line into the file that `revocations` names in the configuration; every proxy that watches the file follows
within a second. Nothing is taken back here: who wants that deletes the line.
"""

import json
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from proxy.adapters.revocations import append_revocation, read_revocations
from proxy.adapters.watch import read_directory
from proxy.config import Settings, read_settings
from proxy.documents import suggestion
from proxy.errors import ConfigError
from proxy.identity.revocation import Revocation, parse_revocation, revocation_members
from proxy.identity.workload import MTLS
from proxy.policy.compile import compile_policy

WRONG_USE = 2


def revoke_command(
    issuer: Annotated[
        str | None, typer.Option(help="The issuer's name in the policy; `mtls` for a workload.", show_default=False)
    ] = None,
    jti: Annotated[str | None, typer.Option(help="The one token with this `jti`.", show_default=False)] = None,
    subject: Annotated[str | None, typer.Option(help="Every token of this `sub`.", show_default=False)] = None,
    certificate: Annotated[
        str | None,
        typer.Option(help="A client certificate: its x5t#S256, as `hip certs show` prints it.", show_default=False),
    ] = None,
    issued_before: Annotated[
        str | None,
        typer.Option(help="Only what was issued before: `now`, UNIX seconds, or a time with its zone."),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, for whoever reads the list.", show_default=False)] = None,
    show: Annotated[bool, typer.Option("--list", help="Print what is revoked, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")] = Path("hip.yaml"),
) -> None:
    """Revoke a token, a subject, a client certificate, or what was issued before a moment.

    Example: hip revoke --issuer corp --subject alice --issued-before now --note "laptop stolen"
    """
    wanted = {"issuer": issuer, "jti": jti, "subject": subject, "certificate": certificate, "note": note}
    members: dict[str, str | int] = {name: value for name, value in wanted.items() if value is not None}
    try:
        settings = _settings(config)
        file = _file(config, settings)
        if show:
            if members or issued_before is not None:
                _wrong("--list stands alone")
            _print_list(file, as_json=as_json)
            return
        if issued_before is not None:
            members["issued_before"] = _moment(issued_before)
        revocation = _revocation(members)
        if issuer is not None:
            _check_issuer(issuer, config.parent / settings.policies)
        _tell(revocation, file, new=append_revocation(file, revocation), as_json=as_json)
    except ConfigError as error:
        _wrong("\n".join(map(str, error.findings)))


def _settings(config: Path) -> Settings:
    try:
        data = config.read_bytes()
    except OSError as exc:
        _wrong(f"{config}: cannot be read ({(exc.strerror or 'error').lower()}); name the file: --config FILE")
    return read_settings(str(config), data)


def _file(config: Path, settings: Settings) -> Path:
    if settings.revocations is None:
        _wrong(f"{config}: no proxy would read it; add the line `revocations: revoked.jsonl`")
    return config.parent / settings.revocations


def _revocation(members: dict[str, str | int]) -> Revocation:
    """Take the way that a line of the list takes, so that nothing is written that could not be read."""
    try:
        return parse_revocation(json.dumps({"at": int(time.time()), **members}).encode())
    except ValueError as exc:
        hint = "say --certificate, or --issuer with --jti, --subject, --issued-before or the last two"
        _wrong(f"{exc}\n{hint}")


def _moment(text: str) -> int:
    if text == "now":
        return int(time.time()) + 1  # `iat` is in whole seconds: what was issued in this second is meant too
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        _wrong(f"--issued-before {text}: write `now`, UNIX seconds, or a time like 2026-11-21T10:00:00+00:00")
    return int(moment.timestamp())


def _check_issuer(issuer: str, policies: Path) -> None:
    """Refuse a name that nobody has: the line would revoke nothing. A policy that is broken must not stop anybody."""
    known: Collection[str]
    try:
        policy = compile_policy(read_directory(policies), root=str(policies))
    except ConfigError:
        typer.echo(f"{policies}: not a good policy just now, so the issuer's name was not checked", err=True)
        return
    known = {one.name for one in policy.issuers.values()} | {MTLS}
    if issuer not in known:
        _wrong(f"unknown issuer `{issuer}`{suggestion(issuer, known)} (known: {', '.join(sorted(known))})")


def _tell(revocation: Revocation, file: Path, *, new: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"new": new, "file": str(file), "revocation": revocation_members(revocation)}))
    elif new:
        typer.echo(f"revoked: {revocation}\n{file}: one line more; proxies that watch it follow within a second")
    else:
        typer.echo(f"already revoked: {revocation}\n{file}: unchanged")


def _print_list(file: Path, *, as_json: bool) -> None:
    listed = read_revocations(file)
    if as_json:
        typer.echo(json.dumps([revocation_members(one) for one in listed], indent=2))
        return
    for one in listed:
        at = datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds")
        typer.echo(f"{at}  {one}" + (f"  ({one.note})" if one.note else ""))
    typer.echo(f"{file}: {len(listed)} revoked")


def _wrong(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(WRONG_USE)
