"""`hip diff`: who may do more, less or other things under another policy. The difference in access, not in text.

Exit codes: 0 no difference, 1 differences, 2 wrong use.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.directory import good_policy
from proxy.exchange import Action
from proxy.policy.access import OTHERWISE
from proxy.policy.difference import Cell, Change, Difference, Kind, difference
from proxy.policy.wording import listed

SAME, DIFFERENT = 0, 1

_TITLES: Mapping[Kind, str] = {
    Kind.OPENED: "OPENED",
    Kind.WAYS: "other ways in",
    Kind.MFA: "another sign-in",
    Kind.CONDITIONS: "other conditions",
    Kind.FINER: "finer output",
    Kind.DETECTOR: "another detector",
    Kind.PARAMETERS: "other request parameters",
    Kind.BUDGET: "another budget",
    Kind.OTHER_OUTPUT: "another output",
    Kind.COARSER: "coarser output",
    Kind.CLOSED: "CLOSED",
}


def diff_command(
    old: Annotated[Path, typer.Argument(help="The policy directory that serves.")],
    new: Annotated[Path, typer.Argument(help="The one that is to serve.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare what two policies allow: 0 no difference, 1 differences.

    Example: hip diff policies policies.next
    """
    before, after = good_policy(old), good_policy(new)
    found = difference(before, after)
    different = bool(found.access or found.parties)
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2))
    elif different:
        issuers = before.factors.keys() | after.factors.keys()
        typer.echo("\n".join(_lines(found, several_issuers=len(issuers) > 1)))
        typer.echo(f"next: hip replay JOURNAL --policy {new} says whom it would have met")
    else:
        typer.echo("no difference in access")
    raise typer.Exit(DIFFERENT if different else SAME)


def _lines(found: Difference, *, several_issuers: bool) -> Iterator[str]:
    title = ""
    for change, cells in found.access:
        if title != _TITLES[change.kind]:
            title = _TITLES[change.kind]
            yield title
        for cell in cells:
            yield f"  {_cell(cell, several_issuers=several_issuers)}"
        yield f"      {_turn(change)}"
    if found.parties:
        yield "who is believed, and who is asked"
        yield from (f"  {line}" for line in found.parties)


def _turn(change: Change) -> str:
    return f"{change.before} → {change.after}" if change.before and change.after else change.before or change.after


def _cell(cell: Cell, *, several_issuers: bool) -> str:
    roles = listed(role for role in cell.roles if role != OTHERWISE)
    if OTHERWISE in cell.roles:
        roles = f"{roles}, any other role" if roles else "any other role"
    of = f" of {listed(cell.issuers)}" if several_issuers else ""
    actions = "ANYTHING" if len(cell.actions) == len(Action) else ", ".join(sorted(cell.actions))
    return f"{roles}{of}: {actions} on {listed(cell.models)}"


def _as_json(found: Difference) -> Mapping[str, object]:
    return {
        "access": [
            {
                "change": change.kind.name.lower(),
                "before": change.before,
                "after": change.after,
                "cells": [
                    {
                        "issuers": sorted(cell.issuers),
                        "roles": sorted(cell.roles - {OTHERWISE}),
                        "any_other_role": OTHERWISE in cell.roles,
                        "actions": sorted(cell.actions),
                        "models": sorted(cell.models),
                    }
                    for cell in cells
                ],
            }
            for change, cells in found.access
        ],
        "parties": list(found.parties),
    }
