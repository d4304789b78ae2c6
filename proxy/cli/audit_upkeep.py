"""`hip audit decrypt`, `lookup` and `review`: what is done with a journal by those who hold a key of it.

Lookup and review are themselves on record, in a stream of their own, before anything is told.
"""

import asyncio
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from proxy.adapters.journal import Durability, Journal, Keys, ensure_keys
from proxy.adapters.journal.keys import SIGNING_FILE
from proxy.adapters.journal.reading import Kept, verify
from proxy.adapters.journal.unsealing import unseal
from proxy.audit.anchor import line_hash, unverified
from proxy.audit.inert import MAX_DETAIL, inert
from proxy.audit.pseudonym import Pseudonyms
from proxy.audit.review import Reviews, Since
from proxy.audit.sealing import Opener, SealError
from proxy.cli.audit_input import (
    WORDS,
    JournalDirectory,
    PublicKey,
    count,
    place_of,
    progress,
    read_key,
    warn_of_withheld,
    when,
)
from proxy.errors import ConfigError, DependencyFault
from proxy.record import Event, Lookup, Review

MAX_CANDIDATES = 1_000_000  # lines of a candidate file
MAX_LISTED = 20  # lines of one part of a review

By = Annotated[str, typer.Option("--by", help="Who you are; goes on record.")]


class _Clock:
    """The machine's clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)


def decrypt_command(
    directory: JournalDirectory,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new directory for the plain journal.")],
    private_key: Annotated[Path, typer.Option("--private-key", help="PEM file, X25519 or RSA.", exists=True)],
    password_file: Annotated[Path | None, typer.Option("--password-file", help="Of the key.", exists=True)] = None,
) -> None:
    """Write the plain form of an encrypted journal. It verifies as the encrypted one does.

    Example: hip audit decrypt export/ -o plain/ --private-key auditor.pem
    """
    try:
        password = None if password_file is None else password_file.read_bytes().rstrip(b"\r\n")
        found = unseal(directory, output, Opener(private_key.read_bytes(), password))
    except (SealError, ConfigError) as error:
        _wrong(str(error))
    except OSError as error:
        _wrong(f"{error.filename or output}: {error.strerror}")
    print(f"{found.opened:,} records opened into {output}")
    if found.missing:
        print(f"{found.missing:,} records stay withheld: their sealed part is not there", file=sys.stderr)
    raise typer.Exit(1 if found.missing else 0)


def lookup_command(
    directory: JournalDirectory,
    pseudonyms: Annotated[list[str], typer.Argument(help="As they stand in the records, like efcab7.563jNx...")],
    candidates: Annotated[Path, typer.Option("--candidates", help="File: one subject or address a line.", exists=True)],
    issuer: Annotated[str, typer.Option("--issuer", help="The issuer's name in the policy.")],
    purpose: Annotated[str, typer.Option("--purpose", help="Why; goes on record.")],
    by: By,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="The journal's keys; in its directory by default.")
    ] = None,
) -> None:
    """Find who, of a list of candidates, stands behind pseudonyms. The lookup is put on record first.

    Example: hip audit lookup audit/ efcab7.563jNx... --candidates staff.txt --issuer corp --by me --purpose "case 7"
    """
    held = _keys(directory, keys)
    names = Pseudonyms(held.pseudonym_secret)
    with candidates.open("r", encoding="utf-8", errors="replace") as file:
        tried = [line.rstrip("\r\n") for line in islice(file, MAX_CANDIDATES)]
        if next(file, None) is not None:
            _wrong(f"{candidates}: more than {MAX_CANDIDATES:,} lines; divide it, and look up in parts")
    found = {}
    for name in tried:
        found[names.subject(issuer, name)] = ("subject", name)
        found[names.address(name)] = ("address", name)
    hits = {pseudonym: found[pseudonym] for pseudonym in pseudonyms if pseudonym in found}
    event = Lookup(
        by=inert(by),
        purpose=inert(purpose, MAX_DETAIL),
        pseudonyms=tuple(inert(pseudonym) for pseudonym in pseudonyms),
        candidates=len(tried),
        found=len(hits),
    )
    _record(directory, held, event)
    for pseudonym in pseudonyms:
        kind, name = hits.get(pseudonym, ("", ""))
        print(f"{inert(pseudonym)}  {kind} {inert(name)}" if kind else f"{inert(pseudonym)}  none of the candidates")
        if not pseudonym.startswith(names.epoch + "."):
            print(f"    of another key epoch; this key's is {names.epoch}", file=sys.stderr)
    raise typer.Exit(0 if len(hits) == len(set(pseudonyms)) else 1)


def review_command(
    directory: JournalDirectory,
    by: By,
    public_key: PublicKey = "",
    remark: Annotated[str, typer.Option("--remark", help="What you found; goes on record.")] = "",
    keys: Annotated[
        Path | None, typer.Option("--keys", help="The journal's keys; in its directory by default.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for a review by a program.")] = False,
) -> None:
    """Walk through what is new since the last review, and put on record that you did.

    Example: hip audit review /var/lib/hip/audit --by "J. Doe" --public-key audit.pub
    """
    auditor, held = read_key(public_key), _keys(directory, keys)
    reviews = Reviews()
    found = verify(directory, auditor, Kept(), hash_only=True, witness=lambda: reviews)
    since_ns = 0 if reviews.last is None else reviews.last.until_ns
    since = Since(since_ns)
    with progress(directory, "reading") as advance:
        found = verify(directory, auditor, Kept(), advance, witness=lambda: since)
    warn_of_withheld(found)
    summary = since.summary
    print(f"Since {when(since_ns)}: {WORDS[found.status]}" if since_ns else f"First review: {WORDS[found.status]}")
    print(f"{count(summary.decisions, 'request')}, {sum(summary.refusals.values()):,} refused")
    faults = [*found.faults, *(fault for report in found.streams for fault in report.faults)]
    parts = {
        "Findings of the verification": [f"{place_of(fault)}: {fault.what}" for fault in faults],
        "Refusals of a new kind": [f"{reason}, {rule}: {number:,}" for rule, reason, number in since.refusals()],
        "New clients": [f"{name}: {count(number, 'request')}" for name, number in since.clients()],
        "Gaps": [f"{when(hole.t_ns)}: {hole.seconds:.1f} s, {hole.cause}" for hole in summary.holes],
        "Changes": [f"{when(change.t_ns)} {change.kind}: {change.what}" for change in since.changes()],
    }
    for title, lines in parts.items():
        print(f"\n{title}: {len(lines) or 'none'}")
        for line in lines[:MAX_LISTED]:
            print(f"    {inert(line)}")
        if len(lines) > MAX_LISTED:
            print(f"    … and {len(lines) - MAX_LISTED:,} more: see `hip audit report`")
        if lines and not yes:
            typer.confirm("Seen?", default=True, abort=True)
    raw = found.head.encode()
    event = Review(
        by=inert(by),
        anchor_line=unverified(raw).n if raw else 0,
        anchor_hash=line_hash(raw) if raw else "",
        until_ns=max(reviews.newest_ns, since_ns),
        verified=WORDS[found.status].lower(),
        decisions=summary.decisions,
        refused=sum(summary.refusals.values()),
        remark=inert(remark, MAX_DETAIL),
    )
    _record(directory, held, event)
    print("\nThe review is on record.")


def _keys(directory: Path, keys: Path | None) -> Keys:
    place = keys or directory / "keys"
    if not (place / SIGNING_FILE).is_file():
        _wrong(f"{place} does not hold the journal's keys; name them with --keys")
    try:
        return ensure_keys(place)
    except ConfigError as error:
        _wrong(str(error))


def _record(directory: Path, keys: Keys, event: Event) -> None:
    """Put one event on record, in a stream of its own."""

    async def once() -> None:
        journal = await Journal.open(
            directory, signer=keys.signer, clock=_Clock(), facts=event, durability=Durability.SYNC
        )
        await journal.close()

    try:
        asyncio.run(once())
    except (ConfigError, DependencyFault) as error:
        _wrong(f"not on record, and therefore not done: {error}")


def _wrong(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(2)
