"""The corpus in tests/invalid_policies: each broken policy yields exactly the messages that stand with it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.documents import render
from proxy.errors import ConfigError, Finding
from proxy.policy.compile import compile_policy

CORPUS = Path(__file__).parents[1] / "invalid_policies"
FILES = sorted(CORPUS.glob("*.yaml"))
FOLDERS = sorted(path.parent for path in CORPUS.glob("*/expect.txt"))


def findings(files: Mapping[str, bytes]) -> tuple[Finding, ...]:
    try:
        return compile_policy(files).warnings
    except ConfigError as error:
        return error.findings


def told(finding: Finding) -> str:
    return ("warning: " if finding.severity == "warning" else "") + str(finding)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_broken_file_says_what_is_wrong_with_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    expected = [line.removeprefix("# expect: ") for line in lines if line.startswith("# expect: ")]
    found = findings({path.name: path.read_bytes()})
    assert [
        told(finding).replace(f"{path.name}:", "", 1).replace(": ", ": ", 1).lstrip() for finding in found
    ] == expected
    assert expected


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_broken_folder_says_what_is_wrong_with_it(folder: Path) -> None:
    lines = (folder / "expect.txt").read_text().splitlines()
    expected = [line for line in lines if not line.startswith("#")]
    files = {path.name: path.read_bytes() for path in folder.glob("*.yaml")}
    assert [told(finding) for finding in findings(files)] == expected
    assert expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_finding_can_be_shown_and_mended(path: Path) -> None:
    """The line is shown with its mark, no line of ours speaks of pydantic, and only `must …` may lack a hint."""
    source = path.read_bytes()
    for finding in findings({path.name: source}):
        shown = render([finding], {path.name: source})
        assert finding.line == 0 or "^" in shown
        assert "pydantic" not in shown.lower()
        assert "Input should" not in shown
        assert finding.hint or "must be" in finding.message or "did you mean" in finding.message or "must not" in shown


def test_the_corpus_is_large_enough() -> None:
    assert len(FILES) + len(FOLDERS) >= 100
