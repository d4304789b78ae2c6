"""The podman lines of docs/deploy.md, as they stand there, beside the files that the page tells to make."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from proxy.adapters.mint import mint
from proxy.demo.identity import DemoIdentityProvider
from tests.images.conftest import POLICY
from tests.images.place import ROOT, UID, Nowhere, command

TEXT = (ROOT / "docs" / "deploy.md").read_text()
(SETTINGS,) = re.findall(r"```yaml\n# file: hip.yaml\n(.*?)```", TEXT, re.DOTALL)
(SERVE,) = re.findall(r"^\$ (podman run .*?localhost/hip)$", TEXT, re.MULTILINE | re.DOTALL)
(CHECK,) = re.findall(r"`(podman run --rm [^`]*localhost/hip check [^`]*)`", TEXT)
(HEALTHY,) = re.findall(r"^HEALTHCHECK .*\\\n *CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The two directories of the page."""
    etc, state = tmp_path / "etc", tmp_path / "state"
    mint(etc / "certs", ["localhost"], [])
    (etc / "hip.yaml").write_text(SETTINGS)
    (etc / "policy").mkdir()
    identity = DemoIdentityProvider(port=1)
    (etc / "policy" / "keys.json").write_bytes(identity.jwks())
    policy = POLICY.format(issuer=identity.issuer, sha256="").splitlines()
    plain = [line for line in policy if "detector" not in line and "digits.onnx" not in line]
    (etc / "policy" / "policy.yaml").write_text("\n".join(plain))
    state.mkdir(mode=0o700)
    for path in (etc, state, *etc.rglob("*")):
        os.chown(path, UID, UID)
    tmp_path.chmod(0o755)
    return tmp_path


def _words(line: str, image: str, here: Path, *more: str) -> list[str]:
    """The line, its paths as seen from `here`, with the image of these tests."""
    line = re.sub(r"(?<=--volume )\./", f"{here}/", line.replace("\\\n", " "))
    podman, run, *rest = shlex.split(line)
    return [podman, run, *more, *(image if word == "localhost/hip" else word for word in rest)]


def test_the_check_line(image, here):
    command(*_words(CHECK, image, here, "--network", "none"))


def test_the_serve_line(image, here, nowhere: Nowhere):
    """It becomes healthy as the Dockerfile's health check asks it, and keeps its journal in the second directory."""
    name = f"hip-line-{os.getpid()}"
    inside = ("nsenter", f"--net=/run/netns/{nowhere.name}")
    command(*inside, *_words(SERVE, image, here, "--detach", "--name", name, "--network", "host"))
    try:
        asking = "import sys, time, subprocess as s; w = sys.argv[1:]\nwhile s.run(w, capture_output=True).returncode: "
        words = [*inside, "podman", "exec", name, *json.loads(HEALTHY)]
        command("timeout", "30", "python3", "-c", asking + "time.sleep(0.2)", *words)
        command("podman", "stop", "--time", "30", name)
        assert command("podman", "inspect", "--format", "{{.State.ExitCode}}", name) == "0"
        assert list((here / "state" / "audit").glob("*.jsonl"))
    finally:
        command("podman", "rm", "--force", "--time", "5", name)
