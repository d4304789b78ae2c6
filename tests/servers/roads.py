"""A second policy file for the tests of every road: who may classify and stream, and who gets labels only."""

from pathlib import Path

from tests.oracle.scanner import Profile, findings
from tests.servers.asking import Answer
from tests.servers.through import DECIMALS

POLICY = f"""\
version: v1
outputs:
  two: {{decimals: {DECIMALS}, top_k: 2}}
  label: {{label_only: true}}
parameters:
  classes: {{classification: {{at_most: 5}}, tensors: {{at_most: 64}}}}
rules:
  - id: classifiers
    allow: {{roles: [classifier], actions: [infer, stream], models: [digits]}}
    budget: plenty
    output: two
    parameters: classes
  - id: labellers
    allow: {{roles: [labeller], actions: [infer, stream], models: [digits]}}
    budget: plenty
    output: label
    parameters: classes
  - id: operators
    allow: {{roles: [operator], actions: [repository, statistics, config], models: [digits]}}
    budget: plenty
    output: label
"""

PROFILES = {
    "analyst": Profile(decimals=DECIMALS),
    "classifier": Profile(decimals=DECIMALS, top_k=2),
    "labeller": Profile(label_only=True),
}


def open_roads(directory: Path) -> Path:
    """Write the file where `hip_before` will put its own, and return the directory."""
    (directory / "policy").mkdir()
    (directory / "policy" / "roads.yaml").write_text(POLICY)
    return directory


def seen(answer: Answer, role: str = "analyst") -> list[str]:
    """Return what the oracle sees beyond a role's profile."""
    return findings({name.lower(): value for name, value in answer.headers}, answer.body, PROFILES[role])
