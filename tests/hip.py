"""`hip serve` as a process of its own, for the tests: its directory, its ports, its log, its end."""

import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.adapters.mint import Minted, mint

CONFIG = """\
version: v1
listen:
  host: 127.0.0.1
  port: 0
  tls: {certificate: certs/server.crt, key: certs/server.key, client_ca: certs/ca.crt, client_certificates: optional}
admin: {host: 127.0.0.1, port: 0}
policies: policy
audit: {directory: audit}
telemetry: {file: spans.jsonl}
"""

# A policy whose model server is never reached.
NOWHERE = """\
version: v1
issuers:
  corp: {issuer: "http://127.0.0.1:1", audience: inference-proxy, jwks_file: ../jwks.json,
         algorithms: [ES256], roles_claim: realm_access.roles}
upstreams:
  nowhere: {url: "http://127.0.0.1:9", dialect: oip-v2}
models:
  digits: {upstream: nowhere}
budgets:
  some: [100 requests/minute]
outputs:
  coarse: {decimals: 2}
rules:
  - id: analysts
    allow: {roles: [analyst], actions: [infer, health], models: [digits]}
    budget: some
    output: coarse
"""

_SERVING = re.compile(r"serving on port (\d+), admin on port (\d+)")
START_SECONDS = 30
END_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Hip:
    """A running proxy."""

    directory: Path
    certificates: Minted
    process: "subprocess.Popen[bytes]"
    port: int
    admin_port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificates.ca.certificate)

    def journal(self) -> str:
        """Every line of the journal so far."""
        files = sorted((self.directory / "audit").glob("*.jsonl"))
        return "".join(path.read_text() for path in files if path.name != "anchors.jsonl")


@contextmanager
def hip_serve(
    directory: Path, policy: str, config: str = CONFIG, program: Sequence[str] = ("-m", "proxy")
) -> Iterator[Hip]:
    """Write the files, start `hip serve`, and end it with SIGTERM; it must end in order."""
    certificates = mint(directory / "certs", ["localhost", "127.0.0.1"], ["analyst"])
    (directory / "policy").mkdir(exist_ok=True)
    (directory / "policy" / "policy.yaml").write_text(policy)
    (directory / "hip.yaml").write_text(config)
    with serving(directory, program) as (process, port, admin_port):
        yield Hip(directory, certificates, process, port, admin_port)


@contextmanager
def serving(
    directory: Path, program: Sequence[str] = ("-m", "proxy")
) -> Iterator["tuple[subprocess.Popen[bytes], int, int]"]:
    """Start `hip serve` with the files that are there, and end it; yield it with its two ports."""
    log = directory / "hip.log"
    command = [sys.executable, *program, "serve", "--config", str(directory / "hip.yaml")]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process, *_ports(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(END_SECONDS)
    assert process.returncode == 0, "hip did not end in order:\n" + log.read_text()


def _ports(process: "subprocess.Popen[bytes]", log: Path) -> tuple[int, int]:
    """Wait until the log says where it serves: port 0 is the kernel's to choose."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        ports = _SERVING.search(log.read_text())
        if ports:
            return int(ports[1]), int(ports[2])
        time.sleep(0.02)
    pytest.fail("hip did not start:\n" + log.read_text())
