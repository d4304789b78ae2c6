"""`hip check`: what it prints and how it ends."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import typer
from policy_building import BASE, READERS
from typer.testing import CliRunner, Result

from proxy.cli.check import check_command

EXAMPLE = Path(__file__).parents[2] / "policies"

GOOD_TEST = """\
version: v1
tests:
  - name: readers read
    principal: {roles: [reader], amr: [pwd, otp]}
    request: {action: infer, model: iris}
    expect: {effect: allow, rule: readers}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "policy.yaml").write_text(BASE + READERS)
    (tmp_path / "tests/readers.yaml").write_text(GOOD_TEST)
    return tmp_path


def hip_check(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(check_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_example_is_good() -> None:
    result = hip_check(EXAMPLE)
    assert result.exit_code == 0
    assert "4 rules, 2 models, 1 issuer, 9 tests, no findings" in result.output
    assert "no test touches" not in result.output


def test_a_good_policy_is_summed_up(directory: Path) -> None:
    result = hip_check(directory)
    assert result.exit_code == 0
    assert "readers\n    allow: reader: infer on iris\n    under: MFA, budget trial, 2 decimals\n" in result.output
    assert "1 rule, 1 model, 1 issuer, 1 test, no findings" in result.output


def test_what_comes_next_is_said(directory: Path) -> None:
    """The directory above, as `hip init` makes one; then what to do once it is good."""
    house = directory / "house"
    (house / "policies").mkdir(parents=True)
    (house / "policies" / "policy.yaml").write_text(BASE + READERS)
    above = hip_check(house)
    assert above.exit_code == 1
    assert "move them up, or name that one if it is the policy" in above.output
    shutil.rmtree(house)
    assert f"next: hip diff SERVING {directory} says what it changes" in hip_check(directory).output
    (directory / "tests/readers.yaml").unlink()
    untested = hip_check(directory).output
    assert f"no test touches: readers; write one in {directory}/tests" in untested
    assert "next:" not in untested


def test_what_is_wide_open_stands_out(directory: Path) -> None:
    text = READERS.replace("roles: [reader]", "roles: any") + "    mfa: not_required\n"
    (directory / "policy.yaml").write_text(BASE + text + "  - id: stop\n    deny: {roles: [bad]}\n    shadow: true\n")
    output = hip_check(directory).output
    assert "allow: ANY ROLE: infer on iris" in output
    assert "under: NO MFA, budget trial" in output
    assert "deny, in shadow: bad: ANYTHING on iris" in output
    assert "no test touches: stop" in output


def test_a_fault_is_shown_where_it_stands(directory: Path) -> None:
    (directory / "policy.yaml").write_text((BASE + READERS).replace("{roles:", "{roels:"))
    result = hip_check(directory)
    assert result.exit_code == 1
    assert f"{directory}/policy.yaml:19:13: unknown key `roels`, did you mean `roles`?" in result.output
    assert (
        "   19 |     allow: {roels: [reader], actions: [infer], models: [iris]}\n      |             ^^^^^\n"
        in result.output
    )
    assert "1 finding, not a policy" in result.output


def test_a_warning_is_a_finding(directory: Path) -> None:
    (directory / "policy.yaml").write_text(BASE + "  spare: {decimals: 1}\n" + READERS)
    result = hip_check(directory)
    assert result.exit_code == 1
    assert "warning: no rule uses output `spare`" in result.output


def test_a_failing_and_a_broken_test_are_findings(directory: Path) -> None:
    (directory / "tests/readers.yaml").write_text(GOOD_TEST.replace("effect: allow", "effect: deny"))
    result = hip_check(directory)
    assert result.exit_code == 1
    assert f"{directory}/tests/readers.yaml:6:22: readers read: `effect` is `allow`, not `deny`" in result.output
    (directory / "tests/readers.yaml").write_text(GOOD_TEST.replace("expect:", "expects:"))
    result = hip_check(directory)
    assert result.exit_code == 1
    assert "unknown key `expects`, did you mean `expect`?" in result.output
    assert "tests not run" in result.output


def test_files_that_the_policy_names_are_looked_at(directory: Path) -> None:
    right = hashlib.sha256(b"right").hexdigest()
    text = BASE.replace("jwks_uri: https://idp.example.com/jwks", "jwks_file: keys.json")
    text += f"detectors:\n  iris: {{file: detectors/iris.onnx, sha256: {right}}}\n"
    (directory / "policy.yaml").write_text(text + READERS + "    detector: {use: iris}\n")
    output = hip_check(directory).output
    assert f"{directory}/keys.json: this key set is not there" in output
    assert f"{directory}/detectors/iris.onnx: the file of detector `iris` is not there" in output
    (directory / "keys.json").write_text("{}")
    (directory / "detectors").mkdir()
    (directory / "detectors/iris.onnx").write_bytes(b"wrong")
    output = hip_check(directory).output
    assert "not the file that detector `iris` names" in output
    assert f"write `sha256: {hashlib.sha256(b'wrong').hexdigest()}`" in output
    (directory / "detectors/iris.onnx").write_bytes(b"right")
    assert hip_check(directory).exit_code == 0


def test_json_says_the_same(directory: Path) -> None:
    good = json.loads(hip_check(directory, "--json").output)
    assert good["good"] is True
    assert good["rules"] == ["readers"]
    assert good["tests"] == 1
    assert len(good["digest"]) == 64
    (directory / "policy.yaml").write_text("version: v2\n")
    result = hip_check(directory, "--json")
    bad = json.loads(result.output)
    assert result.exit_code == 1
    assert bad["good"] is False
    assert bad["findings"] == [
        {
            "file": f"{directory}/policy.yaml",
            "line": 1,
            "column": 10,
            "message": "`version` cannot be `v2`",
            "hint": "write `v1`",
            "severity": "error",
        }
    ]


def test_no_directory_is_wrong_use(directory: Path) -> None:
    assert hip_check(directory / "gone").exit_code == 2
    assert hip_check(directory / "policy.yaml").exit_code == 2


def test_a_link_out_of_the_directory_is_a_finding(directory: Path) -> None:
    (directory / "other.yaml").symlink_to("/etc/hostname")
    result = hip_check(directory)
    assert result.exit_code == 1
    assert "other.yaml: a link that leads out of the directory" in result.output


def test_the_schema_can_be_printed() -> None:
    assert json.loads(hip_check("--schema").output)["properties"]["version"]["const"] == "v1"
