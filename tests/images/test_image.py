"""The image as it was built, and as it runs: everything dropped, nothing to call, and the proxy does its work."""

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.images.place import PATIENCE, ROOT, UID, Nowhere, command

# What `docker build` takes along and the OCI format has no place for.
(_WORDS,) = re.findall(r"^HEALTHCHECK .*\\\n *CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
HEALTHCHECK: list[str] = json.loads(_WORDS)

# Names that would let somebody who got in do more than the proxy can.
TOOLS_OF_OTHERS = {
    "apt", "ash", "bash", "busybox", "curl", "dash", "dpkg", "env", "gcc", "nc", "perl", "pip", "pip3", "sh", "su",
    "sudo", "wget",
}  # fmt: skip


def _paths(files: Path) -> list[Path]:
    return [Path(folder) / name for folder, folders, names in os.walk(files) for name in (*folders, *names)]


# ── as it was built ─────────────────────────────────────────────────────────────────────────────────────────────


def test_two_builds_are_one_image(image, again):
    assert image == again


def test_nothing_in_it_is_anybody_elses_tool(files):
    assert TOOLS_OF_OTHERS.isdisjoint(path.name for path in _paths(files))


def test_its_commands_are_hip_and_its_interpreter(files):
    assert sorted(path.name for path in (files / "opt/hip/bin").iterdir()) == ["hip", "python"]


def test_nothing_raises_privileges(files):
    raising = stat.S_ISUID | stat.S_ISGID
    assert [path for path in _paths(files) if not path.is_symlink() and path.lstat().st_mode & raising] == []


def test_the_user_can_write_in_one_place(files):
    """Owned by root and writable by nobody else, but for the state directory and the empty, sticky /tmp."""
    others = stat.S_IWGRP | stat.S_IWOTH
    found = [(path, path.lstat()) for path in _paths(files) if not path.is_symlink()]
    writable = {str(path.relative_to(files)) for path, facts in found if facts.st_uid == UID or facts.st_mode & others}
    assert writable == {"tmp", "var/lib/hip"}
    assert not any((files / "tmp").iterdir())


def test_every_module_is_compiled_for_good(files):
    """A cached module that names its source's time would be compiled again at each start: here all times are zero."""
    for path in (files / "opt").rglob("*.pyc"):
        assert int.from_bytes(path.read_bytes()[4:8], "little") == 1, path  # PEP 552: a hash, and never checked


def test_it_says_what_it_is(image):
    (facts,) = json.loads(command("podman", "image", "inspect", image))
    config = facts["Config"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["Entrypoint"] == ["/opt/hip/bin/hip"]
    assert config["StopSignal"] == "SIGTERM"
    assert {"ORT_DISABLE_TELEMETRY=1", "PYTHONDONTWRITEBYTECODE=1"} <= set(config["Env"])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert config["Labels"]["org.opencontainers.image.version"] == version


def test_what_is_installed_is_what_is_locked(files):
    """Name by name and version by version; pip is not among them."""
    installed = {path.name.removesuffix(".dist-info") for path in (files / "opt/hip").rglob("*.dist-info")}
    locked = (ROOT / "requirements" / "core.txt").read_text()
    for entry in installed - {f"hardened_inference_proxy-{_version()}"}:
        name, _, version = entry.rpartition("-")
        assert f"\n{name.replace('_', '-').lower()}=={version} " in f"\n{locked.replace('.yaml==', '-yaml==')}", entry


def test_the_bill_in_it_names_what_is_in_it(files):
    """Every installed package, the system's libraries, and a form that CycloneDX's own schema takes."""
    text = (files / "usr/share/sbom/hip.cdx.json").read_text()
    bill = json.loads(text)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {(part["name"], part["version"]) for part in bill["components"] if part["purl"].startswith("pkg:pypi/")}
    installed = {path.name.removesuffix(".dist-info") for path in (files / "opt/hip").rglob("*.dist-info")}
    names = {tuple(re.sub(r"[._](?=[^-]*-)", "-", entry).lower().rsplit("-", 1)) for entry in installed}
    assert listed == names - {("hardened-inference-proxy", _version())}
    assert bill["metadata"]["component"]["version"] == _version()
    systems = {part["name"] for part in bill["components"] if part["purl"].startswith("pkg:deb/")}
    assert {"libc6", "libpython3.11-minimal", "libssl3", "tzdata"} <= systems


def _version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


# ── as it runs ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_serves_with_everything_dropped_and_calls_nobody(image, container, nowhere):
    """From a token to rounded scores, a signed journal, and not one packet to the world."""
    with container.inside("ask") as asking:
        said = container.said(asking)
    assert said["statuses"] == [200, 401, 403], container.logs()
    (scores,) = [output for output in said["outputs"] if output["datatype"] in {"FP32", "FP64"}]
    assert all(score == round(score, 2) for score in scores["data"])
    assert 'reason="allowed"' in said["metrics"]

    status = container.status()
    assert status["Uid"].split() == [str(UID)] * 4
    assert status["Gid"].split() == [str(UID)] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    command("podman", "exec", container.name, *HEALTHCHECK)

    assert nowhere.sent() == 0
    command("podman", "stop", "--time", "30", container.name)
    assert container.inspect("{{.State.ExitCode}}") == "0", container.logs()
    assert nowhere.sent() == 0
    words = ("audit", "verify", "/var/lib/hip/audit", "--public-key", "/var/lib/hip/audit/keys/audit.pub")
    told = command(
        "podman", "run", "--rm", "--network", "none", "--volume", f"{container.state}:/var/lib/hip", image, *words
    )
    assert "INTACT" in told


def test_the_counter_counts(nowhere: Nowhere):
    """What the test above trusts: a packet to the world is seen."""
    knock = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('203.0.113.9', 9))"
    nowhere.run(sys.executable, "-c", knock)
    assert nowhere.sent() == 1


def test_a_request_in_flight_is_answered_before_it_stops(container):
    """SIGTERM; readiness goes; the answer comes; the process ends with 0."""
    with container.inside("drain") as asking:
        assert asking.stdout
        first = asking.stdout.readline()
        assert first == "in flight\n", first + asking.communicate()[1] + container.logs()
        stopping = subprocess.Popen(["podman", "stop", "--time", "30", container.name], stdout=subprocess.DEVNULL)
        assert container.said(asking)["statuses"] == [200], container.logs()
    assert stopping.wait(PATIENCE) == 0
    assert container.inspect("{{.State.ExitCode}}") == "0", container.logs()


@pytest.mark.parametrize("words", [["check", "/etc/hip/policy"], ["--version"]])
def test_the_other_verbs_run_in_it(image, words, tmp_path):
    """What a platform team's pipeline does with the same image."""
    tmp_path.chmod(0o755)
    (tmp_path / "policy").mkdir()
    for path in (ROOT / "policies").glob("*.yaml"):
        (tmp_path / "policy" / path.name).write_bytes(path.read_bytes())
    command(
        "podman", "run", "--rm", "--network", "none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL",
        "--volume", f"{tmp_path}:/etc/hip:ro", image, *words,
    )  # fmt: skip
