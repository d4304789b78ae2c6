"""`hip token`: a token of the development issuer that `hip init` has made. Never for production."""

import time
from pathlib import Path
from typing import Annotated

import typer

from proxy.adapters.development_issuer import development_token
from proxy.errors import ConfigError

WRONG_USE = 2
MAX_MINUTES = 24 * 60


def token_command(
    directory: Annotated[Path, typer.Argument(help="A directory that `hip init` has made without --issuer.")] = Path(),
    user: Annotated[str, typer.Option(help="Whose token: the `sub`.")] = "developer",
    role: Annotated[list[str] | None, typer.Option(help="A role; again for more. Else analyst.")] = None,
    amr: Annotated[
        list[str] | None, typer.Option(help="A method of signing in; again for more. Else pwd, otp.")
    ] = None,
    minutes: Annotated[int, typer.Option(min=1, max=MAX_MINUTES, help="How long it is valid.")] = 60,
) -> None:
    """Print an access token for development: nobody is asked for a password or a second factor.

    Example: hip token hip --role analyst
    """
    try:
        token = development_token(
            directory / "issuer",
            subject=user,
            roles=tuple(role or ("analyst",)),
            amr=tuple(amr or ("pwd", "otp")),
            lifetime=minutes * 60,
            now=int(time.time()),
        )
    except ConfigError as error:
        typer.echo("\n".join(map(str, error.findings)), err=True)
        raise typer.Exit(WRONG_USE) from error
    typer.echo(token)
