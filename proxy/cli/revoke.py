"""`hip revoke`: from now on a token, a subject, a certificate or everything issued before a moment is not believed.

Writes one line into each list that the configuration has: the file that `revocations` names, and the list that workers
and replicas share in the store of `state`. Every proxy that follows them knows within a second. A line of the shared
list is taken back with `--undo`; one of the file is deleted by hand.
"""

import json
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from proxy.adapters.watch import read_directory
from proxy.cli.revocation_lists import Done, FileList, SharedList, StoreAway
from proxy.config import Settings, read_settings
from proxy.documents import suggestion
from proxy.errors import ConfigError, Unauthenticated
from proxy.identity.claims import moment, text
from proxy.identity.revocation import Revocation, parse_revocation, revocation_members
from proxy.identity.token import peek
from proxy.identity.workload import MTLS
from proxy.policy.compile import compile_policy
from proxy.policy.model import Policy

FINDINGS = 1
WRONG_USE = 2
UNDECIDED = 3
MAX_TOKEN_BYTES = 16_384
AT_LEAST_SECONDS = 86_400  # that a token read here stays revoked: nobody has verified its `exp`


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
    token: Annotated[
        Path | None, typer.Option(help="The one token in this file; `-` reads it from the input.", show_default=False)
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            help="Then the line means nothing: when the token or certificate has expired.", show_default=False
        ),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, for whoever reads the list.", show_default=False)] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back from the shared list.")] = False,
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
        lists = _lists(config, settings)
        policies = config.parent / settings.policies
        if show:
            if members or issued_before is not None or until is not None or token is not None or undo:
                _wrong("--list stands alone")
            _print_lists(lists, _policy(policies), as_json=as_json)
            return
        if token is not None:
            members |= _of_token(token, members, policies)
        if issued_before is not None:
            members["issued_before"] = _moment("--issued-before", issued_before)
        if until is not None:
            members["until"] = _later(until)
        revocation = _revocation(members)
        if undo:
            _undo(revocation, lists, as_json=as_json)
            return
        if issuer is not None:
            _check_issuer(issuer, policies)
        _revoke(revocation, lists, as_json=as_json)
    except StoreAway as error:
        typer.echo(f"the shared list cannot be asked: {error}", err=True)
        raise typer.Exit(UNDECIDED) from None
    except ConfigError as error:
        _wrong("\n".join(map(str, error.findings)))


# ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Lists:
    """At least one of the two."""

    file: FileList | None
    shared: SharedList | None


def _settings(config: Path) -> Settings:
    try:
        data = config.read_bytes()
    except OSError as exc:
        _wrong(f"{config}: cannot be read ({(exc.strerror or 'error').lower()}); name the file: --config FILE")
    return read_settings(str(config), data)


def _lists(config: Path, settings: Settings) -> _Lists:
    file = FileList(config.parent / settings.revocations) if settings.revocations is not None else None
    shared = SharedList(settings.state, config.parent) if settings.state is not None else None
    if file is None and shared is None:
        _wrong(f"{config}: no proxy would read it; add the line `revocations: revoked.jsonl`, or `state` to share it")
    return _Lists(file, shared)


def _of_token(path: Path, members: Collection[str], policies: Path) -> dict[str, str | int]:
    """Return what revokes the token in a file. It is read, not verified."""
    if {"issuer", "jti", "subject", "certificate"} & set(members):
        _wrong("--token stands in the place of --issuer, --jti, --subject and --certificate")
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            data = file.read(MAX_TOKEN_BYTES)
    except OSError as exc:
        _wrong(f"{path}: cannot be read ({(exc.strerror or 'error').lower()})")
    try:
        read = peek(data.decode("ascii", "replace").strip().removeprefix("Bearer ").removeprefix("DPoP "))
        jti, ends = text(read.claims, "jti"), moment(read.claims, "exp")
    except Unauthenticated as error:
        _wrong(f"{path}: no token that we would accept: {error.detail}")
    policy = _policy(policies)
    if policy is None:
        _wrong("which issuer's token it is cannot be told: say --issuer and --jti")
    if read.issuer not in policy.issuers:
        _wrong(f"{path}: a token of `{read.issuer}`, which is no issuer of {policies}")
    named = policy.issuers[read.issuer]
    return {
        "issuer": named.name,
        "jti": jti,
        "until": max(ends + named.leeway + 1, int(time.time()) + AT_LEAST_SECONDS),
    }


def _revocation(members: dict[str, str | int]) -> Revocation:
    """Take the way that a line of the list takes, so that nothing is written that could not be read."""
    try:
        return parse_revocation(json.dumps({"at": int(time.time()), **members}).encode())
    except ValueError as exc:
        hint = "say --token, --certificate, or --issuer with --jti, --subject, --issued-before or the last two"
        _wrong(f"{exc}\n{hint}")


def _moment(option: str, text: str) -> int:
    if text == "now":
        return int(time.time()) + 1  # `iat` is in whole seconds: what was issued in this second is meant too
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        _wrong(f"{option} {text}: write `now`, UNIX seconds, or a time like 2026-11-21T10:00:00+00:00")
    return int(moment.timestamp())


def _later(text: str) -> int:
    until = _moment("--until", text)
    if until <= time.time() + 1:
        _wrong(f"--until {text}: that is over, so the line would revoke nothing")
    return until


def _policy(policies: Path) -> Policy | None:
    """Return the policy. One that is broken must not stop anybody."""
    try:
        return compile_policy(read_directory(policies), root=str(policies))
    except ConfigError:
        typer.echo(f"{policies}: not a good policy just now, so the issuer's name was not checked", err=True)
        return None


def _check_issuer(issuer: str, policies: Path) -> None:
    """Refuse a name that nobody has: the line would revoke nothing."""
    policy = _policy(policies)
    if policy is None:
        return
    known = _known(policy)
    if issuer not in known:
        _wrong(f"unknown issuer `{issuer}`{suggestion(issuer, known)} (known: {', '.join(sorted(known))})")


def _known(policy: Policy) -> Collection[str]:
    return {one.name for one in policy.issuers.values()} | {MTLS}


# ── what is done ────────────────────────────────────────────────────────────────────────────────────────────────


def _revoke(revocation: Revocation, lists: _Lists, *, as_json: bool) -> None:
    """Write every list, whatever becomes of the other."""
    away = broken = unfit = ""
    shared = in_file = None
    if lists.shared is not None:
        try:
            shared = lists.shared.add(revocation, time.time())
        except StoreAway as error:
            away = str(error)
        except ConfigError as error:  # it is full, or the configuration of the store is not good
            unfit = "\n".join(map(str, error.findings))
    if lists.file is not None:
        try:
            in_file = lists.file.add(revocation)
        except ConfigError as error:
            broken = "\n".join(map(str, error.findings))
    done = {in_file, shared}
    if as_json:
        told = {
            "new": Done.NEW in done,
            "file": str(lists.file.path) if lists.file is not None and in_file is not None else None,
            "shared": shared is not None if lists.shared is not None else None,
            "revocation": revocation_members(revocation),
        }
        typer.echo(json.dumps(told))
    else:
        if done != {None}:
            typer.echo(f"{'revoked' if Done.NEW in done else 'already revoked'}: {revocation}")
        if lists.file is not None and in_file is not None:
            more = "one line more; proxies that watch it follow within a second"
            typer.echo(f"{lists.file.path}: {more if in_file is Done.NEW else 'unchanged'}")
        if shared is not None:
            more = "one line more; every worker and replica follows within a second"
            typer.echo(f"shared list: {more if shared is Done.NEW else 'unchanged'}")
    if broken:
        typer.echo(f"not revoked in the file:\n{broken}", err=True)
    if away:
        typer.echo(f"shared list: NOT revoked there ({away}); say it again when the store is back", err=True)
    if unfit:
        typer.echo(f"shared list: NOT revoked there:\n{unfit}", err=True)
    if broken or away or unfit:
        raise typer.Exit(WRONG_USE if broken or unfit else UNDECIDED)


def _undo(revocation: Revocation, lists: _Lists, *, as_json: bool) -> None:
    taken = lists.shared.take_back(revocation) if lists.shared is not None else 0
    left = lists.file.same(revocation) if lists.file is not None else 0
    if as_json:
        typer.echo(json.dumps({"taken_back": taken, "left_in_file": left}))
    else:
        if taken:
            typer.echo(f"taken back: {revocation}\nshared list: {taken} fewer; everybody follows within a second")
        if left and lists.file is not None:
            typer.echo(f"{lists.file.path}: still has {left} such lines; delete them there")
        if not (taken or left):
            typer.echo(f"not on a list: {revocation}")
    if left or not taken:
        raise typer.Exit(FINDINGS)


def _print_lists(lists: _Lists, policy: Policy | None, *, as_json: bool) -> None:
    listed: list[tuple[str, Revocation]] = []
    counts: list[tuple[str, int]] = []
    if lists.file is not None:
        listed += (("file", line) for line in lists.file.read())
        counts.append((str(lists.file.path), len(listed)))
    if lists.shared is not None:
        shared = lists.shared.read()
        listed += (("shared", line) for line in shared)
        counts.append(("shared list", len(shared)))
    strangers = {one.issuer for _, one in listed if one.issuer is not None} - set(_known(policy)) if policy else set()
    if as_json:
        typer.echo(json.dumps([{"list": place, **revocation_members(one)} for place, one in listed], indent=2))
    else:
        for place, one in listed:
            at = datetime.fromtimestamp(one.at, UTC).isoformat(timespec="seconds")
            typer.echo(f"{at}  {place}  {one}" + (f"  ({one.note})" if one.note else ""))
        for name, count in counts:
            typer.echo(f"{name}: {count} revoked")
    for stranger in sorted(strangers):
        known = _known(policy) if policy else ()
        typer.echo(f"warning: no issuer of the policy is called `{stranger}`{suggestion(stranger, known)}", err=True)


def _wrong(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(WRONG_USE)
