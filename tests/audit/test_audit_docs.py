"""docs/audit.md and its reference point to fields, commands and tests: every pointer leads somewhere."""

import re
from pathlib import Path
from typing import get_args

import msgspec
from typer.main import get_command

from proxy.audit.chain import Envelope
from proxy.audit.withheld import Withheld
from proxy.cli.audit import audit_app
from proxy.config import Audit
from proxy.record import AnyEvent

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text()
REFERENCE = (ROOT / "docs" / "audit-reference.md").read_text()
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
