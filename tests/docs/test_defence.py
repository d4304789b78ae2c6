"""docs/defence.md: what it says to write is a policy, and who reads the policy hears that inputs are kept."""

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from proxy.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "defence.md").read_text()
(RECORD,) = re.findall(r"```yaml\nmodels:\n  iris:\n    upstream: iris\n(    record_inputs:\n.*?)```", PAGE, re.DOTALL)
POLICY = """\
version: v1
issuers:
  corp: {issuer: https://idp.example.com, audience: a, jwks_file: keys.json, algorithms: [ES256], roles_claim: roles}
upstreams:
  iris: {url: "http://127.0.0.1:8080", dialect: oip-v2}
budgets:
  few: [10 requests/minute]
outputs:
  coarse: {decimals: 2}
rules:
  - id: analysts
    allow: {roles: [analyst], actions: [infer], models: [iris]}
    budget: few
    output: coarse
    mfa: not_required
models:
  iris:
    upstream: iris
"""
run = CliRunner().invoke


def told(*words: str | Path) -> str:
    done = run(app, [str(word) for word in words])
    assert done.exit_code in {0, 1}, done.output
    return " ".join(done.stdout.replace("│", " ").split())


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    """A policy without the recording, and one with the page's."""
    public = X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _, middle, _ = public.decode().strip().split("\n")
    found = []
    for name, text in (("before", POLICY), ("after", POLICY + RECORD.replace("…", middle))):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "policy.yaml").write_text(text)
        (directory / "keys.json").write_text('{"keys": []}')
        found.append(directory)
    return found[0], found[1]


WORDS = "up to 10 a minute are kept for 30d, encrypted to the key "


def test_explain_says_that_inputs_are_kept(directories) -> None:
    before, after = directories
    asked = ("explain", "POST", "/v2/models/iris/infer", "--role", "analyst", "--policy")
    assert f"INPUTS: {WORDS}" in told(*asked, after)
    assert "INPUTS" not in told(*asked, before)


def test_the_difference_is_that_inputs_are_kept(directories) -> None:
    before, after = directories
    assert WORDS in told("diff", before, after)
    assert "none are kept" in told("diff", before, after)


def test_the_inventory_says_that_inputs_are_kept(directories) -> None:
    before, after = directories
    assert "encrypted to the key" in told("inventory", after, "--profile", "none")
    assert "encrypted to the key" not in told("inventory", before, "--profile", "none")
