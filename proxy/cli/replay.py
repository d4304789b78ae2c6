"""`hip replay`: yesterday's decisions, put to tomorrow's policy.

Exit codes: 0 nothing changes, 1 something does, 2 wrong use, 3 nothing changes as far as can be told. Reads the
journal, does not verify it: `hip audit verify` does.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from proxy.adapters.journal.reading import total_bytes
from proxy.cli.directory import WRONG_USE, good_policy
from proxy.cli.records import records
from proxy.policy.replaying import Change, Replay
from proxy.record import Decision

SAME, DIFFERENT, UNTOLD = 0, 1, 3

MAX_CALLERS = 5  # of one case that are named; the rest is counted
SLOW_BYTES = 16 << 20  # a progress bar appears from here: about two seconds

_ORDER = {change: number for number, change in enumerate(Change)}


def replay_command(
    journal: Annotated[Path, typer.Argument(help="The journal's directory.")],
    policy: Annotated[Path, typer.Option("--policy", help="The policy directory to try.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put a journal's decisions to another policy: 0 nothing changes, 1 something does.

    Example: hip replay audit --policy policies.next
    """
    if not journal.is_dir():
        typer.echo(f"{journal}: not a directory; name the one with the journal (`audit.directory`)", err=True)
        raise typer.Exit(WRONG_USE)
    replay = Replay(good_policy(policy))
    decisions = _replayed(replay, journal, quiet=as_json)
    if not decisions:
        hint = "name the directory that `audit.directory` names, or run `hip audit decrypt` first where it is encrypted"
        typer.echo(f"{journal}: no decisions in it; {hint}", err=True)
        raise typer.Exit(WRONG_USE)
    typer.echo(json.dumps(_as_json(replay), indent=2) if as_json else "\n".join(_lines(replay)))
    if replay.cases and not as_json:
        typer.echo("next: if that is meant, put it in the place of the policy that serves; it is read within a second")
    raise typer.Exit(DIFFERENT if replay.cases else UNTOLD if replay.untold else SAME)


def _replayed(replay: Replay, journal: Path, *, quiet: bool) -> int:
    decisions = 0
    with Progress(
        "replaying",
        BarColumn(pulse_style="green"),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        disable=quiet or total_bytes(journal) < SLOW_BYTES,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)
        for envelope, event in records(journal, '"type":"decision"'):
            if isinstance(event, Decision):
                replay.add(event, envelope.t_ns / 1e9)
                decisions += 1
                bar.advance(task)
    return decisions


def _lines(replay: Replay) -> Iterator[str]:
    title = ""
    for case, callers in sorted(replay.cases.items(), key=lambda each: (_ORDER[each[0].change], -each[1].total())):
        if title != case.change:
            title = case.change
            yield title
        yield f"  {_requests(callers.total())} of {_callers(callers)}: {case.before} → {case.after}"
        for caller, count in callers.most_common(MAX_CALLERS):
            yield f"      {count:>7}  {caller}"
        if len(callers) > MAX_CALLERS:
            yield f"      … and {len(callers) - MAX_CALLERS} more"
    yield f"the same: {_requests(replay.same)}"
    yield from _counted("cannot be told", replay.untold)
    yield from _counted("refused before a rule was asked", replay.before_rules)


def _counted(what: str, counts: Counter[str]) -> Iterator[str]:
    if counts:
        yield f"{what}: {_requests(counts.total())}"
        yield from (f"      {count:>7}  {why}" for why, count in counts.most_common())


def _requests(number: int) -> str:
    return f"{number} request{'' if number == 1 else 's'}"


def _callers(callers: Counter[str]) -> str:
    return f"{len(callers)} caller{'' if len(callers) == 1 else 's'}"


def _as_json(replay: Replay) -> Mapping[str, object]:
    return {
        "changes": [
            {"change": case.change, "before": case.before, "after": case.after, "callers": dict(callers.most_common())}
            for case, callers in sorted(replay.cases.items(), key=lambda each: _ORDER[each[0].change])
        ],
        "same": replay.same,
        "untold": dict(replay.untold),
        "before_rules": dict(replay.before_rules),
    }
