"""The fault matrix is whole, its tests exist, and the document shows it as it is."""

import ast
from pathlib import Path

import pytest

from tests.faults.matrix import DOCUMENT, FAULTS, MATRIX, Cell, document

TESTS = Path(__file__).parents[1]


def test_every_part_has_every_fault_once() -> None:
    parts = {cell.part for cell in MATRIX}
    assert sorted((cell.part, cell.fault) for cell in MATRIX) == sorted((p, f) for p in parts for f in FAULTS)


@pytest.mark.parametrize("cell", MATRIX, ids=lambda cell: f"{cell.part}-{cell.fault}")
def test_the_test_is_there(cell: Cell) -> None:
    file, function = cell.test.split("::")
    tree = ast.parse((TESTS / file).read_text())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    (node,) = [node for node in found if node.name == function]
    assert not any("slow" in ast.unparse(mark) for mark in node.decorator_list), "`make test` holds the matrix"


def test_the_document_has_the_table_of_today() -> None:
    """Mend it with `python -m tests.faults.matrix`."""
    text = DOCUMENT.read_text()
    assert document(text) == text
