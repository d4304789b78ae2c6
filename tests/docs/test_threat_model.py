"""Every threat leads to code and to a test that exist, or says why it is accepted."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
CODE = re.compile(r"`((?:proxy|\.ci)/[\w/.]+\.py)(?::([\w.]+))?`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ACCEPTED = "accepted, because "

# Lines of the tables about threats: those under a head with `mitigation`.
ROWS = [
    line
    for table in re.findall(r"^\|[^\n]*mitigation[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", TEXT, re.MULTILINE)
    for line in table.splitlines()
]


@cache
def _names(path: Path) -> frozenset[str]:
    """Everything that a module defines: functions, classes, their methods, and what it assigns."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            found.update(f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name"))
    return frozenset(found)


def test_there_are_threats():
    assert len(ROWS) > 80
    numbers = re.findall(r"^\| ([STRIDE]\d+) \|", TEXT, re.MULTILINE)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("row", ROWS)
def test_a_threat_is_met_or_accepted(row):
    assert ACCEPTED in row or (CODE.search(row) and TEST.search(row))


@pytest.mark.parametrize(("file", "symbol"), sorted(set(CODE.findall(TEXT))))
def test_the_code_is_there(file, symbol):
    assert (ROOT / file).is_file()
    assert not symbol or symbol in _names(ROOT / file)


@pytest.mark.parametrize(("file", "name"), sorted(set(TEST.findall(TEXT))))
def test_the_test_is_there(file, name):
    assert (ROOT / file).is_file()
    assert name in _names(ROOT / file)


def test_no_pointer_is_written_in_another_way():
    """A path in a code span that neither pattern reads would be checked by nobody."""
    for span in re.findall(r"`((?:proxy|tests|\.ci)/[^`]*)`", TEXT):
        assert CODE.fullmatch(f"`{span}`") or TEST.fullmatch(f"`{span}`"), span
