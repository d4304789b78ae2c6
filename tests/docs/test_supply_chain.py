"""Every dependency has its line, every line its dependency, and the lock a hash for each."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("core.txt", "build.txt")


def _names(requirements) -> list[str]:
    return [re.split(r"[\[<>=~ ;]", requirement)[0] for requirement in requirements]


def _lines() -> dict[str, list[str]]:
    table = re.search(
        r"## What is in it\n\n\|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", (ROOT / "docs/supply-chain.md").read_text()
    )
    assert table
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_every_dependency_has_its_line():
    project = PROJECT["project"]
    wanted = _names(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += _names(extra)
    lines = _lines()
    assert set(lines) == set(wanted)
    assert all(len(cells) == 3 and all(cells) for cells in lines.values())


@pytest.mark.parametrize("lock", LOCKS)
def test_nothing_is_locked_without_a_hash(lock):
    text = (ROOT / "requirements" / lock).read_text()
    entries = re.split(r"\n(?=[A-Za-z])", text.strip())
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


def test_what_the_project_names_is_locked():
    locked = (ROOT / "requirements" / "core.txt").read_text()
    for name in _names(PROJECT["project"]["dependencies"]):
        assert re.search(rf"^{re.escape(name.replace('.', '-'))}==", locked, re.MULTILINE), name


def test_the_wheel_is_built_by_what_the_project_says():
    (wanted,) = PROJECT["build-system"]["requires"]
    assert wanted in (ROOT / "requirements" / "build.in").read_text()


def test_the_bill_of_materials_is_the_lock(tmp_path):
    """As `make sbom` writes it: name, version and where it is from, for each."""
    target = tmp_path / "sbom.json"
    subprocess.run(
        [Path(sys.executable).with_name("cyclonedx-py"), "requirements", "--pyproject", ROOT / "pyproject.toml",
         "--output-reproducible", "--output-file", target, ROOT / "requirements" / "core.txt"],
        check=True, capture_output=True,
    )  # fmt: skip
    bill = json.loads(target.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == PROJECT["project"]["name"]
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    locked = set(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements" / "core.txt").read_text(), re.MULTILINE))
    assert listed == locked
    assert all(part["purl"].startswith("pkg:pypi/") for part in bill["components"])
