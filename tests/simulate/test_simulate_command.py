"""`hip simulate` as a user runs it."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from proxy.cli import app

RUNNER = CliRunner()


def test_the_demo_in_quick() -> None:
    """Defences show, and so do the three rows that look bad."""
    done = RUNNER.invoke(app, ["simulate", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["attack"]: row for row in json.loads(done.stdout)["attacks"]}
    solving = rows["equation solving"]
    assert solving["undefended"]["result"] == 1.0
    assert solving["defended"]["answers"] <= 10
    assert solving["defended"]["result"] <= 0.4
    assert rows["bisection"]["defended"]["stopped_at"] <= 12
    assert rows["HopSkipJump"]["defended"]["result"] >= 2 * rows["HopSkipJump"]["undefended"]["result"]
    assert rows["natural data"]["defended"]["stopped_at"] is None
    assert {name for name, row in rows.items() if row["always_shown"]} == {
        "natural data",
        "adaptive, spaced",
        "20 colluding clients",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["https://models.example.com/v2/models/iris"], "confirmed at a terminal"),
        (["https://127.0.0.1:1/v2/models/iris", "--undefended", "http://10.0.0.1/v2/models/iris"], "10.0.0.1 is not"),
        (["https://127.0.0.1:1/v2/models/iris"], "needs --data"),
        (["https://127.0.0.1:1/v2/models/iris", "--data", "none.npy"], "cannot be read"),
        (["https://127.0.0.1:1/v2/models/iris", "--data", "few.npy"], "at least 40"),
        (["https://127.0.0.1:1/v2/models/iris", "--data", "rows.txt"], "unknown kind of file"),
        (
            ["https://127.0.0.1:1/v2/models/iris", "--data", "rows.npy", "--tokens", "a", "--token-command", "b"],
            "not both",
        ),
        (["https://127.0.0.1:1/v2/models/iris", "--data", "rows.npy", "--tokens", "none"], "cannot be read"),
        (["https://127.0.0.1:1/v2/models/iris", "--data", "rows.npy", "--token-command", "false"], "command failed"),
        (["https://127.0.0.1:1/v2/models/iris", "--data", "rows.npy", "--token-command", "true"], "printed nothing"),
    ],
)
def test_wrong_use_is_told(arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", np.zeros((3, 2)))
    np.save("rows.npy", np.random.default_rng(0).uniform(size=(50, 2)))
    done = RUNNER.invoke(app, ["simulate", *arguments])
    assert done.exit_code == 2, done.output
    assert message in done.output


def test_a_route_that_is_not_there_is_undecided(tmp_path) -> None:
    rows = tmp_path / "rows.npy"
    np.save(rows, np.random.default_rng(0).uniform(size=(50, 2)))
    done = RUNNER.invoke(app, ["simulate", "http://127.0.0.1:1/v2/models/iris", "--data", str(rows)])
    assert done.exit_code == 3
    assert "cannot be reached" in done.output
