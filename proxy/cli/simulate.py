"""`hip simulate`: what a policy is worth, as an attacker finds out.

Exit codes: 0 the campaign ran, 2 wrong use, 3 the route could not be attacked as asked.
"""

import asyncio
import ipaddress
import json
import logging
import os
import shlex
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from proxy.demo.digits import CLASSES, load_digits, scaled
from proxy.demo.world import DemoWorld, demo_world
from proxy.detection.rows import MAX_INPUT, Form, read_table
from proxy.errors import ConfigError
from proxy.simulate.campaign import ATTACKS, COLLUDERS, Row, campaign
from proxy.simulate.knowledge import Knowledge
from proxy.simulate.report import CAVEATS, as_json, page, table
from proxy.simulate.route import TIMEOUT, Pointers, RouteTarget, UnusableRouteError, speech_of
from proxy.simulate.session import Rows, Stop, Target

WRONG_USE, UNDECIDED = 2, 3
BATCH = 64  # rows of a request where nobody watches
WIDTH = 132  # columns, where nobody says how many there are
MIN_ROWS = 40  # of ordinary inputs: half for the attacker, half to compare its copy
TOKEN_SECONDS = 30  # that a token command may take

_ENDINGS = {".csv": Form.CSV, ".npy": Form.NPY, ".jsonl": Form.JSON_LINES}

Token = Callable[[int], str | None]


class WrongUseError(Exception):
    """What the caller of the command has to mend."""


def simulate_command(
    url: Annotated[
        str | None,
        typer.Argument(
            help="A model behind the proxy: https://HOST/v2/models/iris, /v1/models/iris, /invocations; else the demo."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Ordinary inputs: .csv, .npy or .jsonl. Needed with URL.")] = None,
    rows_at: Annotated[
        str | None, typer.Option(help="Of any other JSON route: where a question has its rows, like /inputs.")
    ] = None,
    scores_at: Annotated[
        str | None, typer.Option(help="… and where an answer has its scores, like /results/*/scores.")
    ] = None,
    undefended: Annotated[str | None, typer.Option(help="The same model without the proxy, to compare.")] = None,
    tokens: Annotated[Path | None, typer.Option(help="File with one token a line: one for each attacker.")] = None,
    token_command: Annotated[
        str | None, typer.Option(help="Prints a token; HIP_ATTACKER in its environment is the attacker's number.")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file of the CA of the proxy's certificate.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer queries: under 30 seconds on the demo.")] = False,
    as_json_text: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with plots.")] = None,
) -> None:
    """Attack a route as a client would, and show what each attack comes to with the defences and without.

    Example: hip simulate --quick --html attacks.html
    """
    logging.basicConfig(level=logging.ERROR)
    try:
        if url is None:
            rows, name = asyncio.run(_demo(quick=quick)), "the demo's digits"
        else:
            _agree([each for each in (url, undefended) if each])
            if (rows_at is None) != (scores_at is None):
                raise WrongUseError("give both --rows-at and --scores-at, or neither")  # noqa: TRY301
            pointers = None if rows_at is None or scores_at is None else (rows_at, scores_at)
            own, token = _rows(data), _tokens(tokens, token_command)
            rows, name = asyncio.run(_route(url, undefended, own, token, ca_file, pointers, quick=quick)), url
    except WrongUseError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WRONG_USE) from error
    except UnusableRouteError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNDECIDED) from error
    if html_file is not None:
        html_file.write_text(page(rows, name), "utf-8")
    if as_json_text:
        print(json.dumps(as_json(rows, name), indent=2))
        return
    console = Console()
    console = console if console.width >= WIDTH else Console(width=WIDTH)
    console.print(table(rows))
    for caveat in CAVEATS:
        console.print(f"· {caveat}", highlight=False)


# ── the demo ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _demo(*, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="hip-simulate-") as directory:
        async with demo_world(Path(directory)) as world, _http(world.certificates.ca.certificate) as http:
            return await _attack_demo(world, http, quick=quick)


async def _attack_demo(world: DemoWorld, http: httpx.AsyncClient, *, quick: bool) -> list[Row]:
    digits = load_digits()
    rows, labels = scaled(digits.heldout).astype(np.float64), digits.heldout_labels.astype(np.int64)
    held: dict[int, str] = {}

    def token(caller: int) -> str:
        if caller not in held:
            held[caller] = world.identity.token(f"attacker-{caller}", ["analyst"])
        return held[caller]

    speech, _ = await speech_of(http, world.url, token(-1))
    direct = RouteTarget(http, world.direct_url, lambda _: None, speech, BATCH)
    half = len(rows) // 2
    known = Knowledge(
        own=rows[:half],
        own_labels=labels[:half],
        judged=rows[half:],
        truth=await _truth(direct, rows[half:], 0),
        classes=CLASSES,
        members=scaled(digits.training).astype(np.float64),
    )
    return await _run(RouteTarget(http, world.url, token, speech, 1), direct, known, quick=quick)


# ── a route of somebody's ───────────────────────────────────────────────────────────────────────────────────────


async def _route(
    url: str,
    undefended: str | None,
    rows: Rows,
    token: Token,
    ca_file: Path | None,
    pointers: Pointers | None,
    *,
    quick: bool,
) -> list[Row]:
    async with _http(ca_file) as http:
        speech, features = await speech_of(http, url, token(0), pointers)
        if features not in {None, rows.shape[1]}:
            msg = f"the model takes {features} numbers, a row of --data has {rows.shape[1]}"
            raise WrongUseError(msg)
        defended = RouteTarget(http, url, token, speech, 1)
        direct = RouteTarget(http, undefended, lambda _: None, speech, BATCH) if undefended else None
        half = len(rows) // 2
        truth = await _truth(direct or defended, rows[half:], 0)
        known = Knowledge(rows[:half], None, rows[half:], truth, classes=int(truth.max()) + 1)
        classes = await (direct or defended).ask(0, rows[half : half + 1])
        if not isinstance(classes, Stop):
            known = replace(known, classes=classes.shape[1])
        return await _run(defended, direct, known, quick=quick, first_caller=1)


async def _truth(target: RouteTarget, rows: Rows, caller: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the target's labels, had by asking as a caller that does nothing else."""
    found = []
    for at in range(0, len(rows), BATCH):
        scores = await target.ask(caller, rows[at : at + BATCH])
        if isinstance(scores, Stop):
            msg = f"ordinary inputs are stopped ({scores}): give ordinary --data, and callers with a budget for it"
            raise UnusableRouteError(msg)
        found.append(scores.argmax(axis=1))
    return np.concatenate(found)


async def _run(
    defended: Target, undefended: Target | None, known: Knowledge, *, quick: bool, first_caller: int = 0
) -> list[Row]:
    attacks = [attack for attack in ATTACKS if known.members is not None or attack.metric != "AUC"]
    with _progress(len(attacks) * (1 + (undefended is not None))) as step:
        return await campaign(
            defended, undefended, known, quick=quick, attacks=attacks, step=step, first_caller=first_caller
        )


def _http(ca_file: str | Path | None) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=ca_file)
    return httpx.AsyncClient(verify=context, trust_env=False, timeout=TIMEOUT)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=total)
        begun = False

        def step(what: str) -> None:
            nonlocal begun
            progress.update(task, description=what, advance=int(begun))
            begun = True

        yield step


# ── what the caller gives ───────────────────────────────────────────────────────────────────────────────────────


def _agree(urls: list[str]) -> None:
    """Ask before anything leaves this machine: an attack on somebody else's server is theirs to allow."""
    hosts = [urlsplit(url).hostname or "" for url in urls]
    far = [host for host in hosts if not _loopback(host)]
    if not far:
        return
    if not sys.stdin.isatty():
        msg = f"{', '.join(far)} is not this machine: attacks on others are confirmed at a terminal"
        raise WrongUseError(msg)
    typer.confirm(f"Attack {', '.join(far)}? Only with the permission of whoever runs it.", abort=True)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _rows(path: Path | None) -> Rows:
    if path is None:
        raise WrongUseError("a route needs --data: ordinary inputs, as the attacker would have some")
    form = _ENDINGS.get(path.suffix.lower())
    if form is None:
        msg = f"{path}: unknown kind of file; name it {', '.join(_ENDINGS)}"
        raise WrongUseError(msg)
    try:
        if path.stat().st_size > MAX_INPUT:
            msg = f"{path} is larger than {MAX_INPUT:,} bytes; give a part of it"
            raise WrongUseError(msg)
        rows = read_table(path.read_bytes(), form, str(path)).rows.astype(np.float64)
    except OSError as exc:
        msg = f"{path} cannot be read: {exc.strerror}"
        raise WrongUseError(msg) from exc
    except ConfigError as exc:
        raise WrongUseError(str(exc)) from exc
    if len(rows) < MIN_ROWS:
        msg = f"{path} has {len(rows)} rows; give at least {MIN_ROWS}"
        raise WrongUseError(msg)
    return rows


def _tokens(file: Path | None, command: str | None) -> Token:
    """Return a token for each attacker; where there are fewer tokens than attackers, they share, and are told so."""
    if file is not None and command is not None:
        raise WrongUseError("give --tokens or --token-command, not both")
    if file is not None:
        try:
            lines = file.read_text("ascii").split()
        except (OSError, UnicodeDecodeError) as exc:
            msg = f"{file} cannot be read"
            raise WrongUseError(msg) from exc
        if not lines:
            msg = f"{file} has no token in it"
            raise WrongUseError(msg)
        needed = 1 + len(ATTACKS) * COLLUDERS
        if len(lines) < needed:
            typer.echo(
                f"{len(lines)} tokens for {needed} attackers: some share, and are stopped for each other", err=True
            )
        return lambda caller: lines[caller % len(lines)]
    if command is not None:
        words, held = shlex.split(command), dict[int, str]()

        def ask(caller: int) -> str:
            if caller not in held:
                held[caller] = _printed(words, caller)
            return held[caller]

        return ask
    return lambda _: None


def _printed(words: list[str], caller: int) -> str:
    environment = os.environ | {"HIP_ATTACKER": str(caller)}
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command, without a shell
            words, env=environment, capture_output=True, text=True, timeout=TOKEN_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as exc:
        msg = f"the token command failed: {exc}"
        raise WrongUseError(msg) from exc
    if not (token := done.stdout.strip()):
        raise WrongUseError("the token command printed nothing")
    return token
