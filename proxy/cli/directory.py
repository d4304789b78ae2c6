"""A policy directory for a command that wants a good one: everything that is wrong with it, or the policy."""

from pathlib import Path

import typer

from proxy.adapters.watch import read_directory
from proxy.dialects import DIALECTS
from proxy.documents import render
from proxy.errors import ConfigError
from proxy.policy.compile import compile_policy
from proxy.policy.model import Policy

WRONG_USE = 2


def good_policy(directory: Path) -> Policy:
    """Return the policy, file names in it as they are written; or print what is wrong, and end with 2."""
    if not directory.is_dir():
        typer.echo(f"{directory}: not a directory; name the one with the policy files, here or with --policy", err=True)
        raise typer.Exit(WRONG_USE)
    files = {}
    try:
        files = dict(read_directory(directory))
        return compile_policy(files, dialects=DIALECTS)
    except ConfigError as error:
        typer.echo(render(error.findings, files), err=True)
        typer.echo(f"{directory}: not a good policy; `hip check {directory}` says more", err=True)
        raise typer.Exit(WRONG_USE) from error
