"""The command line, and nothing else. Exit codes: 0 good, 1 findings, 2 wrong use or bad configuration, 3 undecided.

Each verb is imported when it is used: `hip check` does not wait for onnxruntime.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from proxy import __version__

# verb -> the module and name of its command or sub-application, in the order of `hip --help`
VERBS = {
    "serve": ("proxy.cli.serve", "serve_command"),
    "demo": ("proxy.cli.demo", "demo_command"),
    "init": ("proxy.cli.init", "init_command"),
    "check": ("proxy.cli.check", "check_command"),
    "explain": ("proxy.cli.explain", "explain_command"),
    "policy": ("proxy.cli.policy", "policy_app"),
    "replay": ("proxy.cli.replay", "replay_command"),
    "diff": ("proxy.cli.diff", "diff_command"),
    "inventory": ("proxy.cli.inventory", "inventory_command"),
    "revoke": ("proxy.cli.revoke", "revoke_command"),
    "detector": ("proxy.cli.detector", "detector_app"),
    "probe": ("proxy.cli.probe", "probe_app"),
    "simulate": ("proxy.cli.simulate", "simulate_command"),
    "audit": ("proxy.cli.audit", "audit_app"),
    "certs": ("proxy.cli.certs", "certs_app"),
    "token": ("proxy.cli.development_token", "token_command"),
}


class _Verbs(TyperGroup):
    """A group whose commands are found by name."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature of click
        """Return the verbs."""
        return [*VERBS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the signature of click
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name]
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command(cmd_name)(found)
            found = alone
        command = get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    help="The hardened inference proxy: stands before a model server, and lets no more out than the policy says.",
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version, and end."),
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run `hip`."""
    app()
