"""The README tells the truth: its files are accepted, its verbs exist, its tour is the tour that runs."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.cli import app
from proxy.config import read_settings
from proxy.demo import tour
from proxy.policy.compile import compile_policy

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS, POLICY = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def test_the_configuration_is_one():
    assert read_settings("hip.yaml", SETTINGS.encode()).policies == "policies"


def test_the_policy_is_one():
    assert [rule.id for rule in compile_policy({"policy.yaml": POLICY.encode()}).rules] == ["analysts"]


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^\$ hip (.*?)(?: +#.*)?$", README, re.MULTILINE))))
def test_every_command_is_one(line):
    words = [word for word in line.split() if not word.startswith("-")]
    help_of = words[:2] if words[0] in {"certs", "detector", "audit"} else words[:1]
    shown = CliRunner().invoke(app, [*help_of, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in re.findall(r"(?<=\s)--[a-z-]+", line):
        assert option in shown.output


def test_the_tour_is_the_tour():
    shown = re.search(r"<!-- tour -->\n```text\n(.*?)```", README, re.DOTALL)
    source = Path(tour.__file__).read_text()
    titles = re.findall(r'(?:title=|Stop\(\s*|_refused\(\s*)f?"([^"{]+)', source)
    assert shown
    assert len(titles) == 8
    cells = " ".join(re.findall(r"│ .? +│ ([^│]*)│", shown[1]))
    flat = " ".join(cells.split())
    assert all(" ".join(title.split()) in flat for title in titles), flat


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
