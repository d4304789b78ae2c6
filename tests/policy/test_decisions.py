"""The corpus in tests/decisions, the example in policies/ and the page docs/policy.md: all decide as they say."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.adapters.watch import read_directory
from proxy.documents import json_schema
from proxy.policy.compile import compile_policy
from proxy.policy.expectations import run_expectations
from proxy.policy.reference import reference
from proxy.policy.schema import PolicyFile

ROOT = Path(__file__).parents[2]
FOLDERS = [*sorted(path.parent for path in ROOT.glob("tests/decisions/*/tests")), ROOT / "policies"]

_BLOCK = re.compile(r"^```yaml\n# file: (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def holds(files: Mapping[str, bytes], tests: Mapping[str, bytes]) -> None:
    """Compile without a finding, pass every test, and leave no rule untouched."""
    policy = compile_policy(files)
    assert policy.warnings == ()
    outcome = run_expectations(policy, tests)
    assert outcome.failures == ()
    assert outcome.untouched == ()
    assert outcome.total > 0


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_folder_decides_as_its_tests_say(folder: Path) -> None:
    holds(read_directory(folder), read_directory(folder / "tests"))


@pytest.mark.parametrize("page", ["policy", "programs"])
def test_a_page_that_teaches_the_language_is_true(page: str) -> None:
    """Every YAML block of the page that names a file is part of one policy directory, which holds."""
    text = (ROOT / f"docs/{page}.md").read_text()
    blocks: dict[str, bytes] = {}
    for name, content in _BLOCK.findall(text):
        blocks[name] = blocks.get(name, b"") + content.encode()
    assert text.count("```yaml") == len(_BLOCK.findall(text))
    tests = {name: content for name, content in blocks.items() if name.startswith("tests/")}
    holds({name: content for name, content in blocks.items() if name not in tests}, tests)


def test_the_published_schema_is_current() -> None:
    """If not: `hip check --schema > policies/policy.schema.json`."""
    assert json.loads((ROOT / "policies/policy.schema.json").read_text()) == json_schema(PolicyFile)


def test_the_reference_page_is_current() -> None:
    """If not: `hip check --reference > docs/policy-reference.md`."""
    assert (ROOT / "docs/policy-reference.md").read_text() == reference()


def test_the_published_schema_describes_every_key() -> None:
    schema = json_schema(PolicyFile)
    objects = [schema, *(part for part in schema["$defs"].values() if part.get("type") == "object")]
    bare = [key for part in objects for key, value in part["properties"].items() if "description" not in value]
    assert bare == []
    assert "null" not in json.dumps(schema)
