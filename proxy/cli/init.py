"""`hip init`: looks at a running model server, and writes the directory that `hip serve` starts from.

Exit codes: 0 good, 1 written but `hip check` has findings, 2 wrong use (nothing is written), 3 the server cannot be
reached or is not recognised (nothing is written). The questions to the server only read; what is written is closed but
for one role, one rule and the models that were found.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from proxy.adapters import development_issuer as development
from proxy.adapters.mint import mint
from proxy.cli.certs import LOOPBACK
from proxy.cli.check import inspect
from proxy.cli.init_looking import WRONG_USE, Stop, look
from proxy.cli.init_telling import Told, first_request, generic_help, lines
from proxy.dialects import DIALECTS
from proxy.documents import json_schema, render, suggestion
from proxy.errors import ConfigError, Finding
from proxy.policy.address import read_url
from proxy.policy.compile import compile_policy
from proxy.policy.schema import PolicyFile
from proxy.policy.starter import Ports, Provider, Server, starter

GOOD, FINDINGS = 0, 1

SCHEMA = "policies/policy.schema.json"
REQUEST = "first-request.json"
SERVED = ("certs/server.crt", "certs/server.key")
CERTIFICATES = (*SERVED, "certs/ca.crt", "certs/ca.key")
ISSUER = (f"issuer/{development.KEY_FILE}", f"issuer/{development.JWKS_FILE}")


def init_command(
    upstream: Annotated[str, typer.Option(help="The running model server, as http://127.0.0.1:8080.")],
    directory: Annotated[Path, typer.Option(help="Where the files go.")] = Path(),
    dialect: Annotated[str | None, typer.Option(help="Its dialect, instead of what is recognised.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model; again for more. Else all that it lists.")] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Your identity provider's `iss`. Else an issuer for development is made.")
    ] = None,
    audience: Annotated[str | None, typer.Option(help="With --issuer: the `aud` of its tokens for this proxy.")] = None,
    jwks_uri: Annotated[str | None, typer.Option(help="With --issuer: its keys. Else OpenID discovery.")] = None,
    roles_claim: Annotated[str, typer.Option(help="The claim that lists a caller's roles.")] = "realm_access.roles",
    role: Annotated[str, typer.Option(help="The role that may ask.")] = "analyst",
    host: Annotated[
        list[str] | None, typer.Option(help="A name of the proxy for its certificate; again for more.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The proxy's port; 0 takes a free one.")] = 8443,
    admin_port: Annotated[int, typer.Option(min=0, max=65_535, help="The port of health and metrics.")] = 9090,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file of the CA of the server's certificate.")] = None,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Speak plain HTTP to another machine: the way there is trusted.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write the configuration anew; keys and certificates that are there stay.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found and written as JSON.")] = False,
) -> None:
    """Look at a running model server, and write a configuration, a policy with tests, certificates and an issuer.

    Example: hip init --upstream http://127.0.0.1:8080 --directory hip
    """
    named = tuple(model or ())
    try:
        _check_use(upstream, dialect, named, plaintext=plaintext)
        provider = _provider(issuer, audience, jwks_uri, roles_claim)
        _refuse_overwriting(directory, force=force)
        trust = str(ca_file.resolve()) if ca_file else None
        found = look(upstream, dialect, named, trust)
        url = read_url(upstream)
        open_wire = bool(url and url.clear_on_the_wire)
        server = Server(upstream, found.family.dialect, found.models, open_wire, trust)
        files = {**starter(server, provider, role, Ports(port, admin_port)), SCHEMA: _schema()}
        request = first_request(server.dialect, found.models, found.answers)
        if request.body is not None:
            files[REQUEST] = request.body + "\n"
        _try(files)
    except Stop as stop:
        _fail(stop.code, str(stop), "nothing was written")
    except ConfigError as error:
        _fail(WRONG_USE, render(error.findings, {}), "nothing was written")
    try:
        kept = _write(directory, files, tuple(dict.fromkeys((*(host or ()), *LOOPBACK))), own_issuer=issuer is None)
    except ConfigError as error:
        _fail(WRONG_USE, render(error.findings, {}), "not everything was written; mend this, then say --force")
    report = inspect(directory / "policies")
    told = Told(
        directory=directory,
        upstream=upstream,
        family=found.family,
        models=found.models,
        left=found.left,
        others=found.others,
        answers=found.answers,
        plaintext=open_wire,
        role=role,
        development=issuer is None,
        port=port,
        files=tuple(sorted((*files, *_there(directory, CERTIFICATES), *(ISSUER if issuer is None else ())))),
        kept=kept,
        tests=report.outcome.total if report.outcome else 0,
        request=request,
    )
    if as_json:
        typer.echo(json.dumps({**told.as_json(), "findings": list(map(str, report.findings))}, indent=2))
    else:
        typer.echo("\n".join(lines(told)))
        if report.findings:
            typer.echo("\n" + render(report.findings, report.sources), err=True)
            typer.echo(f"other files in {directory}/policies say otherwise: mend them, then run hip check", err=True)
    raise typer.Exit(FINDINGS if report.findings else GOOD)


def _fail(code: int, message: str, written: str) -> NoReturn:
    typer.echo(message, err=True)
    typer.echo(written, err=True)
    raise typer.Exit(code)


# ── what was asked for ──────────────────────────────────────────────────────────────────────────────────────────


def _check_use(upstream: str, dialect: str | None, named: Sequence[str], *, plaintext: bool) -> None:
    url = read_url(upstream)
    if url is None or url.query:
        raise Stop(
            WRONG_USE, "--upstream: not the address of a server; like http://127.0.0.1:8080: lower case, no query"
        )
    if url.clear_on_the_wire and not plaintext:
        raise Stop(
            WRONG_USE,
            f"--upstream: plain HTTP to another machine, `{url.host}`: everyone on the way reads inputs and scores,\n"
            "can change them, and can ask the server itself. Give it https, or put hip on the server's own machine;\n"
            "if the network between them is trusted, say so with --plaintext",
        )
    if plaintext and not url.clear_on_the_wire:
        raise Stop(WRONG_USE, "--plaintext: nothing here goes in the clear to another machine; leave it out")
    if dialect == "generic":
        raise Stop(WRONG_USE, "--dialect generic: " + generic_help(upstream))
    if dialect is not None and dialect not in DIALECTS:
        known = ", ".join(sorted(DIALECTS))
        raise Stop(WRONG_USE, f"--dialect: unknown `{dialect}`{suggestion(dialect, DIALECTS)}; known: {known}")
    if len(set(named)) != len(named):
        raise Stop(WRONG_USE, "--model: the same one twice")


def _provider(issuer: str | None, audience: str | None, jwks_uri: str | None, roles_claim: str) -> Provider:
    """Return the issuer of the policy. One without an audience is refused: a token for anything would do."""
    if issuer is None:
        if audience is not None or jwks_uri is not None:
            raise Stop(WRONG_USE, "--audience and --jwks-uri belong to an --issuer: name it, or leave them out")
        return Provider(
            name="development",
            issuer=development.ISSUER,
            audience=development.AUDIENCE,
            keys=f"jwks_file: ../issuer/{development.JWKS_FILE}",
            algorithms="[ES256]",
            roles_claim="realm_access.roles",
            remark="# For development: `hip token` makes tokens for whoever can read issuer/signing.key.\n"
            "# Before others may reach the proxy, name your provider here: issuer, audience, `discovery: true`.\n",
        )
    if audience is None:
        raise Stop(WRONG_USE, "--issuer: needs --audience, the `aud` of the tokens that are meant for this proxy")
    return Provider(
        name="corp",
        issuer=issuer,
        audience=audience,
        keys=f"jwks_uri: {json.dumps(jwks_uri)}" if jwks_uri is not None else "discovery: true",
        algorithms="[ES256, EdDSA, PS256, RS256] # keep those that it signs with",
        roles_claim=roles_claim,
        remark="# Without `mfa`, a token's `amr` must say `mfa` or name two methods of different kinds.\n",
    )


def _refuse_overwriting(directory: Path, *, force: bool) -> None:
    """Refuse what would be lost; with --force, only what would be lost and cannot be made again stays."""
    if directory.exists() and not directory.is_dir():
        raise Stop(WRONG_USE, f"{directory}: not a directory")
    if force:
        return
    ours = ("hip.yaml", "policies", "certs", "issuer", REQUEST)
    there = [str(directory / name) for name in ours if (directory / name).exists()]
    if there:
        hint = "name another --directory, or say --force: the configuration is written anew, keys and certificates stay"
        raise Stop(WRONG_USE, f"already there, and not overwritten: {', '.join(there)}\n{hint}")


# ── what is written ─────────────────────────────────────────────────────────────────────────────────────────────


def _schema() -> str:
    return json.dumps(json_schema(PolicyFile), indent=2) + "\n"


def _try(files: Mapping[str, str]) -> None:
    """Compile the policy before a byte of it is on the disk: an option that makes no policy is wrong use."""
    policy = {
        path.removeprefix("policies/"): text.encode()
        for path, text in files.items()
        if path.startswith("policies/") and path.count("/") == 1 and path.endswith(".yaml")
    }
    compile_policy(policy, dialects=DIALECTS)


def _there(directory: Path, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if (directory / name).exists())


def _write(directory: Path, files: Mapping[str, str], hosts: Sequence[str], *, own_issuer: bool) -> tuple[str, ...]:
    """Write everything, the configuration last; return what was there and stays. Raise ConfigError."""
    kept: list[str] = []
    if (there := _there(directory, CERTIFICATES))[: len(SERVED)] == SERVED:  # a CA's key may be kept elsewhere
        kept += there
    else:
        mint(directory / "certs", hosts, ())
    if own_issuer and _there(directory, ISSUER) == ISSUER:
        kept += ISSUER
    elif own_issuer:
        development.make_issuer(directory / "issuer")
    try:
        for name in sorted(files, key=lambda name: (name == "hip.yaml", name)):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.draft")
            draft.write_text(files[name])
            draft.replace(path)
    except OSError as exc:
        raise ConfigError([Finding(str(directory), 0, 0, f"cannot be written: {exc.strerror}")]) from exc
    return tuple(kept)
