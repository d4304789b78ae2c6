"""What docs/deploy.md says can be done."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from proxy.cli import app
from proxy.config import read_settings
from tests.k8s.rendered import NAMES, rendered

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


LINES = re.findall(r"^\$ ((?:hip|kubectl) .*)$", TEXT, re.MULTILINE)


def test_the_lines_for_kubernetes_make_what_the_overlays_expect(tmp_path, monkeypatch):
    """Each as it stands there, without a cluster: what would be created is what `hip/brought` names, key by key."""
    if shutil.which("kubectl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("kubectl is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "keys").mkdir()
    for name in ("audit-signing.pem", "audit-pseudonym.hex", "audit.pub"):
        (tmp_path / "keys" / name).write_text(name)
    made = {}
    for line in LINES:
        words = shlex.split(line)
        if words[0] == "hip":
            assert CliRunner().invoke(app, words[1:]).exit_code == 0, line
        elif "apply" in words:
            assert words[words.index("--kustomize") + 1] == "k8s/overlays/dev"
            assert rendered("dev").objects
        else:
            dry = [*words, "--dry-run=client", "--output=yaml"]
            done = subprocess.run(dry, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stderr)
            found = yaml.safe_load(done.stdout)
            made[f"{found['kind']}/{found['metadata']['name']}"] = set(found.get("data") or {})
    assert made.pop("Namespace/hip") == set()
    assert set(made) == rendered("prod").hip.brought
    assert made["Secret/hip-tls"] == {"tls.crt", "tls.key"}
    assert made["Secret/hip-valkey"] == {"password"}
    assert made["Secret/hip-audit-keys"] == {"audit-signing.pem", "audit-pseudonym.hex", "audit.pub"}
