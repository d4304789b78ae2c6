"""What docs/deploy.md says can be done."""

import re
from pathlib import Path

import pytest

from proxy.config import read_settings
from tests.k8s.rendered import NAMES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deploy.md").read_text()


def test_the_configuration_is_one():
    (example,) = re.findall(r"```yaml\n# file: hip.yaml\n(.*?)```", TEXT, re.DOTALL)
    settings = read_settings("hip.yaml", example.encode())
    assert settings.admin.port == 9090  # what the image's health check asks
    assert settings.listen.port == 8443  # what the image exposes


def test_every_overlay_is_told_of():
    assert sorted(re.findall(r"^\| `k8s/overlays/([\w-]+)` \|", TEXT, re.MULTILINE)) == sorted(NAMES)


def test_every_make_target_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = TEXT + (ROOT / "SECURITY.md").read_text() + (ROOT / "docs/supply-chain.md").read_text()
    assert set(re.findall(r"\bmake ([a-z-]+)\b", documents)) <= targets


@pytest.mark.parametrize("name", ["deploy.md", "supply-chain.md", "threat-model.md", "../SECURITY.md"])
def test_links_lead_somewhere(name):
    document = ROOT / "docs" / name
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target
