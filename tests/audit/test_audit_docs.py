"""docs/audit.md and its reference point to fields, commands and tests: every pointer leads somewhere.

Its commands are run as they stand, over the journal of a real proxy.
"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from test_audit_reconcile import ALLOWED, served
from typer.main import get_command
from typer.testing import CliRunner

from proxy.audit.chain import Envelope
from proxy.audit.withheld import Withheld
from proxy.cli.audit import audit_app
from proxy.config import Audit
from proxy.record import AnyEvent

__all__ = ["served"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text()
REFERENCE = (ROOT / "docs" / "audit-reference.md").read_text()
COMMANDS = [
    re.sub(r"\s+# .*|\[|\]", "", command)
    for command in re.findall(r"^    (\S.*)$", PAGE.replace("\\\n        ", ""), re.MULTILINE)
]
CONTROLS = [line.split("|")[1:4] for line in PAGE.partition("## Controls")[2].splitlines() if line.startswith("| ")][1:]


def names() -> set[str]:
    """Return every field and record type."""
    found = {field.name for kind in (Envelope, Withheld) for field in msgspec.structs.fields(kind)}
    for event in get_args(AnyEvent):
        found.add(str(event.__struct_config__.tag))
        found |= {field.name for field in msgspec.structs.fields(event)}
    return found


def test_every_control_points_to_a_field_and_a_test() -> None:
    assert len(CONTROLS) > 12
    for control, fields, test in CONTROLS:
        pointed = re.findall(r"`([^`]+)`", fields)
        assert pointed, control
        assert set(pointed) <= names(), control
        (path,) = re.findall(r"`([^`]+)`", test)
        assert (ROOT / path).is_file(), control


def test_every_record_type_is_described() -> None:
    for event in get_args(AnyEvent):
        assert f"`{event.__struct_config__.tag}`" in REFERENCE, event


def test_every_setting_is_described() -> None:
    for name in Audit.model_fields:
        assert f"`{name}`" in REFERENCE, name


def test_every_command_of_the_page_exists_and_every_command_is_on_the_page() -> None:
    commands = set(get_command(audit_app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"hip audit ([a-z]+)", PAGE)) == commands


def test_the_page_is_followed_from_the_first_command_to_the_last(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clean place, by an auditor who has the journal, audit.pub, and what the others know."""
    here = shutil.copytree(served, tmp_path / "here")
    monkeypatch.chdir(here)
    shutil.copy(here / "audit" / "keys" / "audit.pub", here)
    (here / "staff.txt").write_text("alice\nbob\n")
    lines = "".join(path.read_text() for path in here.glob("audit/2*.jsonl")).splitlines()
    decided = next(line for line in map(json.loads, lines) if line["type"] == "decision" and "actor" in line)
    known = {"4fd1c0...": decided["event"], "4fd1c0de": decided["event"][:8], "iris=48211": f"models={ALLOWED + 1}"}
    known["efcab7.563j..."] = decided["actor"]["subject"]
    assert len(COMMANDS) > 11
    for command in COMMANDS:
        for example, real in known.items():
            command = command.replace(example, real)
        if not command.startswith("hip audit "):
            subprocess.run(["bash", "-ec", command], check=True)
        elif not command.startswith("hip audit decrypt"):  # of an encrypted journal: test_audit_sealing.py
            words = shlex.split(command)[2:]
            if "--head" in words:  # which the first verification has not yet
                (here / "kept.txt").write_text((here / "audit" / "anchors.jsonl").read_text())
            result = CliRunner().invoke(audit_app, words, input="y\n" * 20)
            assert result.exit_code == 0, (command, result.output)
    assert {"report.html", "i.json", "requests.parquet", "kept.txt"} <= {path.name for path in here.iterdir()}
    verified = CliRunner().invoke(audit_app, ["verify", "i.json", "--public-key", "audit.pub"])
    assert verified.exit_code == 0
