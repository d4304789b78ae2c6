"""The Dockerfile and what it may see, without building anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images.place import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    """None are needed here."""


def test_hadolint_finds_nothing():
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_base_is_for_the_builder_to_name():
    """No default: nobody builds on a tag by accident."""
    assert re.findall(r"^ARG PYTHON_IMAGE.*$", DOCKERFILE, re.MULTILINE) == ["ARG PYTHON_IMAGE"]


def test_all_is_closed_but_what_is_named():
    rules = [line for line in IGNORED if line and not line.startswith("#")]
    opened = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    assert all((ROOT / name).exists() for name in opened)
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert opened == {name for names in copied for name in names.split()}


def test_it_ends_as_a_number_that_is_not_root():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["65532:65532"]


def test_no_command_needs_a_shell():
    """The exec form, so that signals reach hip, and there is no shell that could be asked."""
    for word in ("ENTRYPOINT", "CMD"):
        (form,) = re.findall(rf"^{word} (.*)$", DOCKERFILE, re.MULTILINE)
        assert form.startswith("[")
