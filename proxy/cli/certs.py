"""`hip certs`: certificates for development, and a look at any others."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from rich.console import Console
from rich.table import Table

from proxy.adapters.mint import Minted, mint, renew
from proxy.errors import ConfigError

WRONG_USE = 2  # the design's exit code for wrong use or bad configuration
LOOPBACK = ("localhost", "127.0.0.1", "::1")

certs_app = typer.Typer(no_args_is_help=True, help="Certificates for development, and a look at any others.")


@certs_app.command("init")
def init(
    directory: Annotated[Path, typer.Argument(help="Where the files go; nothing there is overwritten.")],
    host: Annotated[
        list[str] | None, typer.Option(help=f"A name or address of the proxy, repeatable. Else {', '.join(LOOPBACK)}.")
    ] = None,
    client: Annotated[list[str] | None, typer.Option(help="A client to make a certificate for, repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Make a development CA, a server pair and client pairs: ECDSA P-256, files 0600, 90 days.

    Example: hip certs init certs/dev --host localhost --client analyst
    """
    try:
        minted = mint(directory, host or LOOPBACK, client or ())
    except ConfigError as error:
        _fail(error)
    if as_json:
        print(json.dumps(_paths(minted), indent=2))
        return
    table = Table("what", "certificate", "key", title="For development only: the CA's key lies beside the rest")
    for what, (certificate, key) in _paths(minted).items():
        table.add_row(what, certificate, key)
    Console().print(table)


@certs_app.command("renew")
def renew_command(
    directory: Annotated[Path, typer.Argument(help="A directory that `hip certs init` has made.")],
    days_left: Annotated[int, typer.Option(min=1, help="Renew what has fewer days left.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Issue again what ends soon: the same names, new keys. A proxy that runs with the files loads them by itself.

    Example: hip certs renew certs/dev --days-left 30
    """
    try:
        renewed = renew(directory, days_left)
    except ConfigError as error:
        _fail(error)
    if as_json:
        print(json.dumps({name: (str(pair.certificate), str(pair.key)) for name, pair in renewed.items()}, indent=2))
    elif renewed:
        print("\n".join(f"renewed: {name} ({pair.certificate})" for name, pair in renewed.items()))
    else:
        print(f"nothing ends within {days_left} days")


@certs_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A PEM file with one or more certificates.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show what a certificate says: names, days left, and the fingerprint that a bound token carries.

    Example: hip certs show certs/dev/server.crt
    """
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as exc:
        Console(stderr=True).print(f"{file}: no certificate can be read here ({type(exc).__name__})", markup=False)
        raise typer.Exit(WRONG_USE) from exc
    facts = [_facts(certificate, datetime.now(UTC)) for certificate in certificates]
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for fact in facts:
        table = Table("", "", show_header=False)
        for name, value in fact.items():
            table.add_row(name, ", ".join(value) if isinstance(value, list) else str(value))
        Console().print(table)


def _fail(error: ConfigError) -> NoReturn:
    for finding in error.findings:
        Console(stderr=True).print(str(finding), markup=False, soft_wrap=True)
    raise typer.Exit(WRONG_USE) from error


def _paths(minted: Minted) -> dict[str, tuple[str, str]]:
    pairs = {
        "ca": minted.ca,
        "server": minted.server,
        **{f"client {name}": one for name, one in minted.clients.items()},
    }
    return {what: (str(pair.certificate), str(pair.key)) for what, pair in pairs.items()}


def _facts(certificate: x509.Certificate, now: datetime) -> dict[str, str | int | list[str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    fingerprint = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=")
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "valid_from": certificate.not_valid_before_utc.isoformat(),
        "valid_to": certificate.not_valid_after_utc.isoformat(),
        "days_left": (certificate.not_valid_after_utc - now).days,
        "dns_names": names.get_values_for_type(x509.DNSName),
        "addresses": [str(address) for address in names.get_values_for_type(x509.IPAddress)],
        "uris": names.get_values_for_type(x509.UniformResourceIdentifier),
        "x5t#S256": fingerprint.decode("ascii"),  # RFC 8705 section 3.1: what `cnf` of a bound token holds
    }
