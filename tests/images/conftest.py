"""The image, built twice, and a network that leads nowhere and counts what is sent into it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from proxy.adapters.mint import mint
from proxy.demo.detector import fit_digits_detector
from proxy.demo.identity import DemoIdentityProvider
from tests.images.place import ROOT, UID, Container, Nowhere, command

TOOLS = ("buildah", "podman", "runc", "ip")
SOURCE = (".ci", ".dockerignore", "Dockerfile", "LICENSE", "README.md", "proxy", "pyproject.toml", "requirements")
WANTED = "HIP_IMAGE_TESTS"  # set by `make image-test`; the tests then fail where they would skip

CONFIG = """\
version: v1
listen:
  tls: {certificate: certs/server.crt, key: certs/server.key}
policies: policy
audit: {directory: /var/lib/hip/audit}
telemetry: {file: /var/lib/hip/spans.jsonl}
"""

POLICY = """\
version: v1
issuers:
  demo: {{issuer: {issuer}, audience: inference-proxy, jwks_file: keys.json, algorithms: [ES256, EdDSA],
         roles_claim: realm_access.roles}}
upstreams:
  models: {{url: "http://127.0.0.1:8080", dialect: oip-v2, timeout: 20s}}
models:
  digits: {{upstream: models}}
budgets:
  some: [60 requests/minute]
outputs:
  coarse: {{decimals: 2, top_k: 3}}
detectors:
  digits: {{file: digits.onnx, sha256: {sha256}}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer], models: [digits]}}
    budget: some
    output: coarse
    detector: {{use: digits, mode: shadow}}
"""


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    os.environ.setdefault("CONTAINERS_CONF", str(ROOT / ".ci" / "containers.conf"))
    wanted = WANTED in os.environ
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None] + (["root"] if os.geteuid() else [])
    if not wanted:
        pytest.skip("builds and runs containers: make image-test")
    if lacking:
        pytest.fail(f"make image-test needs {', '.join(lacking)}")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build may see: two builds are of the same source, whoever works in the tree meanwhile."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCE:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    (ROOT / ".cache").mkdir(exist_ok=True)  # wheels and the base image's archive outlive the copy
    (copy / ".cache").symlink_to(ROOT / ".cache")
    return copy


def _built(source: Path, tag: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, source / ".ci" / "image.py", *flags],
        env={**os.environ, "IMAGE": tag},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return command("podman", "image", "inspect", "--format", "{{.Id}}", tag)


@pytest.fixture(scope="session")
def image(source: Path) -> str:
    """The image."""
    return _built(source, "localhost/hip:test")


@pytest.fixture(scope="session")
def again(source: Path) -> str:
    """The image, built from nothing."""
    return _built(source, "localhost/hip:again", "--no-cache")


@pytest.fixture(scope="session")
def files(image: str) -> Iterator[Path]:
    """The image's file system."""
    yield Path(command("podman", "image", "mount", image))
    command("podman", "image", "unmount", image)


@pytest.fixture
def nowhere() -> Iterator[Nowhere]:
    """Everything that is not loopback goes over out0, and ends in out1."""
    network = Nowhere(f"hip-{os.getpid()}")
    command("ip", "netns", "add", network.name)
    try:
        for line in (
            "link set lo up",
            "link add out0 type veth peer name out1",
            "link set out0 arp off addrgenmode none",
            "link set out1 arp off addrgenmode none",
            "addr add 192.0.2.2/24 dev out0",  # RFC 5737
            "link set out0 up",
            "link set out1 up",
            "route add default via 192.0.2.1",
        ):
            command("ip", "-n", network.name, *line.split())
        yield network
    finally:
        command("ip", "netns", "del", network.name)


@pytest.fixture
def container(image: str, nowhere: Nowhere, tmp_path: Path) -> Iterator[Container]:
    """The proxy with everything dropped, behind it whatever listens on its loopback."""
    etc, state, journey = tmp_path / "etc", tmp_path / "state", tmp_path / "journey.json"
    minted = mint(etc / "certs", ["localhost"], [])
    identity, detector = DemoIdentityProvider(port=1), fit_digits_detector()
    (etc / "policy").mkdir()
    (etc / "policy" / "keys.json").write_bytes(identity.jwks())
    (etc / "policy" / "digits.onnx").write_bytes(detector)
    (etc / "policy" / "policy.yaml").write_text(
        POLICY.format(issuer=identity.issuer, sha256=sha256(detector).hexdigest())
    )
    (etc / "hip.yaml").write_text(CONFIG)
    journey.write_text(json.dumps({"token": identity.token("alice", ["analyst"]), "ca": str(minted.ca.certificate)}))
    (etc / "resolv.conf").write_text("nameserver 192.0.2.53\n")  # whoever asks for a name is counted
    state.mkdir(mode=0o700)
    for path in (state, *etc.rglob("*")):
        os.chown(path, UID, UID)
    found = Container(f"hip-test-{os.getpid()}", nowhere, state, journey)
    command(
        "podman", "run", "--detach", "--name", found.name, "--network", f"ns:/run/netns/{nowhere.name}",
        "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--memory", "512m", "--pids-limit", "64",
        "--volume", f"{etc}:/etc/hip:ro", "--volume", f"{etc / 'resolv.conf'}:/etc/resolv.conf:ro",
        "--volume", f"{state}:/var/lib/hip", image,
    )  # fmt: skip
    try:
        yield found
    finally:
        command("podman", "rm", "--force", "--time", "5", found.name)
