"""Lookup and review: both on record before anything is told, and the journal stays intact."""

import asyncio
from pathlib import Path

from stories import Place, place, plain_decision, serve
from typer.testing import CliRunner

from proxy.adapters.journal.disk import segments
from proxy.adapters.journal.reading import Kept, stream_lines, verify
from proxy.audit.chain import read_event, split
from proxy.audit.findings import Status
from proxy.audit.pseudonym import Pseudonyms
from proxy.cli.audit import audit_app
from proxy.cli.audit_upkeep import MAX_CANDIDATES
from proxy.record import AnyEvent, Lookup, Review


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(audit_app, [*arguments])
    return result.exit_code, result.output


def events(where: Place) -> list[AnyEvent]:
    lines = [line for stream in segments(where.directory) for line in stream_lines(where.directory, stream)]
    return [read_event(split(line[:-1])[1]) for line in lines]


async def closed(tmp_path: Path) -> tuple[Place, Path]:
    where = place(tmp_path)
    journal = await where.open()
    await serve(journal, 2, refused=1)
    await journal.close()
    return where, tmp_path / "keys"


def test_a_lookup_finds_whom_it_is_asked_for_and_is_on_record(tmp_path: Path) -> None:
    where, keys = asyncio.run(closed(tmp_path))
    names = Pseudonyms(where.keys.pseudonym_secret)
    wanted = [names.subject("corp", "alice"), names.address("192.0.2.7"), names.subject("corp", "mallory")]
    (tmp_path / "staff").write_text("bob\nalice\n192.0.2.7\n")
    code, text = run_lookup(where, keys, tmp_path, wanted)
    assert code == 1  # one was not found
    assert "subject alice" in text
    assert "address 192.0.2.7" in text
    assert "none of the candidates" in text
    (event,) = [event for event in events(where) if isinstance(event, Lookup)]
    assert (event.by, event.purpose, event.candidates, event.found) == ("me", "case 7", 3, 2)
    assert event.pseudonyms == tuple(wanted)
    assert verify(where.directory, where.auditor, Kept()).status is Status.INTACT
    assert run_lookup(where, keys, tmp_path, wanted[:2])[0] == 0


def run_lookup(where: Place, keys: Path, tmp_path: Path, wanted: list[str]) -> tuple[int, str]:
    options = ["--candidates", str(tmp_path / "staff"), "--issuer", "corp", "--by", "me", "--purpose", "case 7"]
    return run("lookup", str(where.directory), *wanted, *options, "--keys", str(keys))


def test_without_the_keys_nothing_is_told_and_none_are_made(tmp_path: Path) -> None:
    where, _ = asyncio.run(closed(tmp_path))
    (tmp_path / "staff").write_text("alice\n")
    code, text = run_lookup(where, tmp_path / "nowhere", tmp_path, ["x"])
    assert (code, "does not hold" in text) == (2, True)
    assert not (tmp_path / "nowhere").exists()


def test_candidates_that_would_not_be_tried_are_not_left_out_in_silence(tmp_path: Path) -> None:
    where, keys = asyncio.run(closed(tmp_path))
    (tmp_path / "staff").write_text("x\n" * (MAX_CANDIDATES + 1))
    code, text = run_lookup(where, keys, tmp_path, ["x"])
    assert (code, "more than 1,000,000 lines" in text) == (2, True)
    assert not [event for event in events(where) if isinstance(event, Lookup)]


async def more(where: Place) -> None:
    journal = await where.open()
    await journal.append(plain_decision("a" * 32, "deny"))
    await journal.append(plain_decision("b" * 32, "deny", reason="mfa_missing"))
    await journal.close()


def test_a_review_shows_what_is_new_and_only_that(tmp_path: Path) -> None:
    where, keys = asyncio.run(closed(tmp_path))
    arguments = ["review", str(where.directory), "--by", "J. Doe", "--keys", str(keys)]
    arguments += ["--public-key", str(where.auditor), "--yes"]
    code, text = run(*arguments, "--remark", "nothing odd")
    assert (code, "First review: INTACT" in text) == (0, True)
    assert "no_rule, no rule: 1" in text
    asyncio.run(more(where))
    code, text = run(*arguments)
    assert code == 0
    assert "2 requests, 2 refused" in text
    assert "Refusals of a new kind: 1" in text
    assert "mfa_missing" in text
    first, second = [event for event in events(where) if isinstance(event, Review)]
    assert (first.by, first.remark, first.verified, first.decisions, first.refused) == (
        "J. Doe",
        "nothing odd",
        "intact",
        3,
        1,
    )
    assert (second.decisions, second.anchor_line > first.anchor_line) == (2, True)
    assert verify(where.directory, where.auditor, Kept()).status is Status.INTACT


def test_a_reviewer_who_stops_has_not_reviewed(tmp_path: Path) -> None:
    where, keys = asyncio.run(closed(tmp_path))
    arguments = ["review", str(where.directory), "--by", "me", "--keys", str(keys), "--public-key", str(where.auditor)]
    result = CliRunner().invoke(audit_app, arguments, input="n\n")
    assert result.exit_code == 1
    assert not [event for event in events(where) if isinstance(event, Review)]
