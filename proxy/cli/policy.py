"""`hip policy`: sign a policy directory, so that the proxy takes it from nobody else.

The private key belongs to the people who may change the policy, or to their pipeline, never to the proxy's machine.
"""

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from proxy.adapters.policy_seal import (
    PRIVATE_KEY_FILE,
    PUBLIC_KEY_FILE,
    make_keys,
    read_signature,
    read_signer,
    read_verifier,
    write_whole,
)
from proxy.cli.directory import WRONG_USE, good_policy
from proxy.errors import ConfigError, Finding
from proxy.policy.signature import KEY_NAME, MAX_VERSION, SIGNATURE_FILE, SignatureError, Signed, claimed, sign, verify

GOOD, FINDINGS = 0, 1

policy_app = typer.Typer(no_args_is_help=True, help="Sign a policy directory, and look at its signature.")


@policy_app.command("keygen")
def keygen(
    directory: Annotated[Path, typer.Argument(help="Where the two keys go; nothing there is overwritten.")],
) -> None:
    """Make a pair of keys for signing policies.

    Example: hip policy keygen keys
    """
    try:
        verifier = make_keys(directory, KEY_NAME)
    except ConfigError as error:
        _wrong(error)
    typer.echo(f"{directory / PRIVATE_KEY_FILE}  signs: keep it with whoever may change the policy, not with the proxy")
    typer.echo(
        f"{directory / PUBLIC_KEY_FILE}  verifies: `policy_signature: {{public_key: FILE}}` in hip.yaml names it"
    )
    typer.echo(str(verifier))


@policy_app.command("sign")
def sign_command(
    directory: Annotated[Path, typer.Argument(help="The policy directory.")],
    key: Annotated[Path, typer.Option("--key", help="The private key.", show_default=False)],
    version: Annotated[
        int | None, typer.Option(min=1, max=MAX_VERSION, help="Its number; without it, the next one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sign a good policy: writes policy.sig, with a number that only grows.

    Example: hip policy sign policies --key keys/policy-signing.pem
    """
    digest = good_policy(directory).digest
    file = directory / SIGNATURE_FILE
    try:
        signer = read_signer(key, KEY_NAME)
        statement = Signed(version or _last(read_signature(file)) + 1, digest)
        write_whole(file, sign(statement, signer))
    except ConfigError as error:
        _wrong(error)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "version": statement.version, "digest": digest}))
    else:
        typer.echo(f"{file}: version {statement.version}, digest {digest}")


@policy_app.command("verify")
def verify_command(
    directory: Annotated[Path, typer.Argument(help="The policy directory.")],
    public_key: Annotated[Path, typer.Option("--public-key", help="The public key.", show_default=False)],
) -> None:
    """Say whether the signature is the key's and of these files: 0 yes, 1 no.

    Example: hip policy verify policies --public-key keys/policy.pub
    """
    digest = good_policy(directory).digest
    try:
        verifier, note = read_verifier(public_key), read_signature(directory / SIGNATURE_FILE)
    except ConfigError as error:
        _wrong(error)
    if note is None:
        typer.echo(f"{directory}: not signed; `hip policy sign {directory} --key FILE` does it")
        raise typer.Exit(FINDINGS)
    try:
        version = verify(note, verifier, digest)
    except SignatureError as error:
        typer.echo(f"{directory / SIGNATURE_FILE}: does not hold: {error}")
        raise typer.Exit(FINDINGS) from error
    typer.echo(f"{directory}: version {version}, digest {digest}")


def _last(note: bytes | None) -> int:
    """Return the number of the signature that is there; one that nobody can read is refused, not counted as none."""
    try:
        return claimed(note).version if note is not None else 0
    except SignatureError as exc:
        raise ConfigError([Finding(SIGNATURE_FILE, 0, 0, str(exc), "say which number comes next: --version")]) from exc


def _wrong(error: ConfigError) -> NoReturn:
    typer.echo("\n".join(map(str, error.findings)), err=True)
    raise typer.Exit(WRONG_USE) from error
