"""The report: inert whatever stands in a record, complete, and clean in a real browser."""

import asyncio
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from stories import PSEUDONYMS, Place, crash, exchange, place, plain_decision, serve
from typer.testing import CliRunner

from proxy.audit.bundle import read, verify
from proxy.audit.chain import Envelope
from proxy.audit.describe import completion, decision
from proxy.audit.report.events import changes
from proxy.audit.report.judging import detectors
from proxy.audit.report.markup import tag
from proxy.audit.report.page import SECTIONS
from proxy.audit.report.wording import Facts
from proxy.audit.summary import MAX_CHANGES, MAX_DETECTORS, Summary, _kept
from proxy.audit.timeline import MAX_STEPS, Lowest, Timeline
from proxy.cli.audit import audit_app
from proxy.exchange import Reply
from proxy.reasons import Reason
from proxy.record import (
    Actor,
    AnyEvent,
    CertificateChange,
    Checkpoint,
    Gap,
    Judged,
    Obligations,
    PolicyChange,
    Probed,
    Sequence,
    Source,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARTEFACTS = Path(__file__).resolve().parents[2] / "build"
EVIL = "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(1)>&#x3c;=cmd|' /C calc'!A0"


async def make(tmp_path: Path) -> Place:
    """Return a journal that has something for every section, with hostile words wherever a string can stand."""
    where = place(tmp_path)
    first = await where.open()
    await serve(first, 5, refused=2)
    await crash(first, torn=b"{")
    journal = await where.open()
    for story in (
        exchange(),
        exchange(
            status=502, reply=Reply(500, (), b'File "/x/handlers.py", line 8 ValueError'), reason=Reason.UPSTREAM_ERROR
        ),
    ):
        await journal.append(decision(exchange(event=story.event), PSEUDONYMS))
        await journal.append(completion(story, PSEUDONYMS))
    who = Actor(EVIL, EVIL, (EVIL,), (EVIL,), EVIL, EVIL)
    sequence = Sequence(EVIL, 9, 8, 100, 1, 1.0, "refuse")
    judged = Judged(EVIL, "e" * 64, EVIL, 0.001, 0.01, 9.0, 3.0, 0, "refuse", sequence)
    for reason in ("mfa_missing", "anomalous_input", EVIL):
        await journal.append(
            plain_decision(
                os.urandom(16).hex(),
                "deny",
                reason=reason,
                model=EVIL,
                rule=EVIL,
                actor=who,
                judged=judged,
                source=Source(address=EVIL),
                detail=EVIL,
                status=403,
            )
        )
    await journal.append(PolicyChange(effect="loaded", policy=EVIL, previous=EVIL))
    await journal.append(CertificateChange(effect="rejected", place=EVIL, findings=2))
    await journal.append(
        Probed(probe=EVIL, model=EVIL, baseline=EVIL, outcome="changed", quarantined=True, detail=EVIL)
    )
    await journal.append(Gap(cause=EVIL, refused=3, seconds=1.5))
    await journal.close()
    return where


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Path]:
    root = tmp_path_factory.mktemp("report")
    where = asyncio.run(make(root))
    output = root / "report.html"
    result = CliRunner().invoke(
        audit_app,
        ["report", str(where.directory), "-o", str(output), "--public-key", str(where.auditor), "--seed", "s"],
    )
    assert result.exit_code == 0, result.output
    return where, output


class Elements(HTMLParser):
    """What a browser would build."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        self.ids |= {value for name, value in attrs if name == "id" and value}


def policy_of(page: Elements) -> str:
    return next(value for name, value in page.attributes if name == "content" and value and "-src" in value)


def test_the_page_runs_nothing_and_loads_nothing(made: tuple[Place, Path]) -> None:
    text = made[1].read_text()
    page = Elements(text)
    assert not {"script", "img", "iframe", "object", "embed", "link", "form", "base"} & set(page.names)
    links = {value for name, value in page.attributes if name in {"href", "src", "srcset", "action", "xlink:href"}}
    assert all(link is not None and link.startswith("#") for link in links)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "url(http" not in text
    assert "default-src 'none'" in policy_of(page)
    assert {link[1:] for link in links if link} <= page.ids


def test_every_section_has_its_words_and_numbers(made: tuple[Place, Path]) -> None:
    text = made[1].read_text()
    page = Elements(text)
    assert {key for key, *_ in SECTIONS} | {"summary", "sample", "limits"} <= page.ids
    for words in (
        "Intact:",
        "12 requests",
        "MFA missing",
        "handlers.py:8",
        "ValueError",
        "ended in a crash",
        "1 gap",
        "window 1",
        "threshold",
        "Patterns in sequences",
        "rejected, 2 faults",
        "and the model is closed",
        "probed with golden inputs 1 times",
        "Requests, for each",
        *[question for _, _, question, _ in SECTIONS],
    ):
        assert words in text, words
    assert page.names.count("svg") > 5
    assert page.names.count("details") > 4
    assert {"main", "nav", "header"} <= set(page.names)


def test_the_sample_in_the_page_proves_itself(made: tuple[Place, Path]) -> None:
    where, output = made
    (raw,) = re.findall(r"<pre>(\{.*?\})\n?</pre>", output.read_text(), re.DOTALL)[:1]
    bundle = read(raw.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").encode())
    assert len(bundle.records) > 5
    assert verify(bundle, where.auditor) == []


def test_a_report_of_a_tampered_journal_says_so(made: tuple[Place, Path], tmp_path: Path) -> None:
    where, _ = made
    copy = tmp_path / "copy"
    shutil.copytree(where.directory, copy)
    path = next(path for path in copy.glob("2*.jsonl") if b'"no_rule"' in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"no_rule"', b'"allowed"', 1))
    arguments = ["report", str(copy), "-o", str(tmp_path / "r.html"), "--public-key", str(where.auditor)]
    assert CliRunner().invoke(audit_app, arguments).exit_code == 1
    text = (tmp_path / "r.html").read_text()
    for words in (
        "Tampered:",
        "one of the two was changed",
        "may have held anything",
        "Only records under a signature",
    ):
        assert words in text, words


def test_an_empty_journal_has_a_report(tmp_path: Path) -> None:
    where = place(tmp_path)
    asyncio.run(opened_and_closed(where))
    arguments = ["report", str(where.directory), "-o", str(tmp_path / "r.html"), "--public-key", str(where.auditor)]
    assert CliRunner().invoke(audit_app, arguments).exit_code == 0
    text = (tmp_path / "r.html").read_text()
    assert "No request is on record" in text
    page = Elements(text)
    assert {value for name, value in page.attributes if name == "href"} <= {f"#{key}" for key in page.ids}
    assert "Only records under a signature are counted." not in text


async def opened_and_closed(where: Place) -> None:
    await (await where.open()).close()


@pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true", reason="no chromium; CI installs it (apt-get install chromium)"
)
def test_a_browser_finds_nothing_to_complain_about(made: tuple[Place, Path], tmp_path: Path) -> None:
    """The console stays empty (the content policy would speak there), and no request leaves the page."""
    assert CHROMIUM is not None, "CI must have chromium"
    picture, net = tmp_path / "report.png", tmp_path / "net.json"
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        f"--log-net-log={net}",
        "--window-size=1100,4200",
    ]
    page = f"file://{made[1]}"
    shot = subprocess.run([*command, f"--screenshot={picture}", page], capture_output=True, text=True, timeout=120)
    assert picture.stat().st_size > 20_000, shot.stderr
    assert "CONSOLE" not in shot.stderr
    urls = set(re.findall(r'"url":\s*"((?:https?|wss?|ftp)://[^"]+)"', net.read_text()))
    assert not [url for url in urls if "evil" in url]
    dom = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, timeout=120)
    seen = Elements(dom.stdout)
    assert seen.names.count("table") == Elements(made[1].read_text()).names.count("table") > 8
    assert seen.names.count("svg") > 5
    if os.environ.get("CI") == "true":
        ARTEFACTS.mkdir(exist_ok=True)
        shutil.copy(picture, ARTEFACTS / "audit-report.png")


def test_markup_escapes_children_and_attributes() -> None:
    made = tag("p", EVIL, class_=EVIL)
    page = Elements(made)
    assert page.names == ["p"]
    assert dict(page.attributes)["class"] == EVIL


def test_a_timeline_stays_bounded_and_loses_nothing() -> None:
    line, lowest = Timeline(), Lowest()
    for minute in range(10 * MAX_STEPS):
        line.count(minute * 60 * 10**9, "a" if minute % 3 else "b")
        lowest.note(minute * 60 * 10**9, 10_000 - minute)
    rows = line.rows(60)
    assert len(rows) <= 60
    assert sum(number for _, row in rows for number in row.values()) == 10 * MAX_STEPS
    assert len(lowest.points()) <= MAX_STEPS
    assert lowest.points()[-1][1] == 10_000 - 10 * MAX_STEPS + 1


def test_every_record_type_is_counted_somewhere() -> None:
    """A new type of record that the report passes over in silence would be a hole in it."""
    assert set(get_args(AnyEvent)) - set(Summary()._takes) == {Checkpoint}


def test_detectors_are_told_apart_by_version_and_a_flood_of_versions_is_counted() -> None:
    """A caller names versions: they cost bounded memory, crowd out no change, and none is passed over in silence."""
    summary = Summary()
    judged = Judged("d", "e" * 64, "enforce", 0.4, 0.01, 1.0, 3.0, 0, "pass")
    for seq in range(MAX_DETECTORS + 7):
        event = plain_decision("e" * 32, model="m", version=str(seq), judged=judged)
        summary.take(Envelope(1, "s", seq, "0", "0", seq + 1, 1), event)
    assert len(summary.detectors) == MAX_DETECTORS
    assert [change.kind for change in summary.changes] == ["detector"]
    text = "".join(detectors(Facts((), (), summary)))
    assert "m version 0" in text
    assert "7 requests were judged for versions beyond those told apart" in text


def test_a_timeline_that_begins_late_says_so() -> None:
    summary = Summary()
    for seq in range(MAX_CHANGES + 9):
        event = PolicyChange(effect="loaded", policy="n", previous="p")
        summary.take(Envelope(1, "s", seq, "0", "0", seq + 1, 1), event)
    assert f"newest {MAX_CHANGES} of {MAX_CHANGES + 9} changes" in "".join(changes(Facts((), (), summary)))


def test_a_probe_is_in_the_timeline_when_it_is_news() -> None:
    summary = Summary()
    for seq, (outcome, closed) in enumerate(
        [("same", False), ("same", False), ("changed", True), ("changed", True), ("same", False)]
    ):
        event = Probed(probe="p", model="m", baseline="b", outcome=outcome, quarantined=closed, detail="3 of 9 labels")
        summary.take(Envelope(1, "s", seq, "0", "0", seq + 1, 1), event)
    assert [change.what for change in summary.changes] == [
        "p of m: changed, and the model is closed: 3 of 9 labels",
        "p of m: same: 3 of 9 labels",
    ]
    assert summary.probes == {"same": 3, "changed": 2}


@pytest.mark.parametrize(
    ("asked", "applied", "kept"),
    [
        (Obligations("a", 2, 1), Obligations("a", 2, 1), True),
        (Obligations("a", 2, 1), Obligations("b", label_only=True), True),
        (Obligations("a", 2), Obligations("a", 3), False),
        (Obligations("a", 2), Obligations("a"), False),
        (Obligations("a", top_k=1), Obligations("a", top_k=3), False),
        (Obligations("a", label_only=True), Obligations("a", 2, 1), False),
    ],
)
def test_an_answer_finer_than_its_rule_is_counted(asked: Obligations, applied: Obligations, kept: bool) -> None:
    assert _kept(asked, applied) is kept
