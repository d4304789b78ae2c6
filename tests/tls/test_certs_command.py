"""`hip certs`, as a user types it."""

import json
from pathlib import Path

from typer.testing import CliRunner

from proxy.cli.certs import certs_app


def test_command_line(tmp_path: Path) -> None:
    runner = CliRunner()
    made = runner.invoke(certs_app, ["init", str(tmp_path / "certs"), "--client", "analyst", "--json"])
    assert made.exit_code == 0
    certificate = json.loads(made.stdout)["client analyst"][0]
    shown = runner.invoke(certs_app, ["show", certificate, "--json"])
    (facts,) = json.loads(shown.stdout)
    assert facts["uris"] == ["spiffe://hip.test/analyst"]
    assert len(facts["x5t#S256"]) == 43
    assert 88 <= facts["days_left"] <= 90
    assert runner.invoke(certs_app, ["init", str(tmp_path / "certs")]).exit_code == 2
    assert runner.invoke(certs_app, ["show", str(tmp_path / "none")]).exit_code == 2
    assert "x5t#S256" in runner.invoke(certs_app, ["show", certificate]).stdout
    assert "server" in runner.invoke(certs_app, ["init", str(tmp_path / "more")]).stdout
