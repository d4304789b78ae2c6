"""`hip serve` as a user starts it: what it refuses to start with, how it says so, and how it ends."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from proxy.adapters.mint import mint
from proxy.demo.identity import DemoIdentityProvider
from tests.hip import CONFIG, NOWHERE, hip_serve


def prepare(directory: Path, config: str = CONFIG, policy: str = NOWHERE) -> Path:
    mint(directory / "certs", ["localhost"], [])
    (directory / "policy").mkdir()
    (directory / "policy" / "policy.yaml").write_text(policy)
    (directory / "hip.yaml").write_text(config)
    return directory / "hip.yaml"


def serve(config: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def expose(directory: Path) -> None:
    (directory / "certs" / "server.key").chmod(0o644)


def swap(directory: Path) -> None:
    mint(directory / "other", ["localhost"], [])
    (directory / "other" / "server.key").replace(directory / "certs" / "server.key")


def drop(directory: Path) -> None:
    (directory / "certs" / "server.crt").unlink()


def spoil(directory: Path) -> None:
    (directory / "audit").write_text("a file where a directory should be")


WRONG = [
    # name, change of the configuration, change of the policy, change of the files, what is said
    ("an unknown key", ("admin:", "admn:"), None, None, "hip.yaml:6:1: unknown key `admn`, did you mean `admin`?"),
    ("a key twice", ("version: v1\n", "version: v1\nversion: v1\n"), None, None, "duplicate key `version`"),
    ("another version", ("version: v1", "version: v9"), None, None, "`version` cannot be `v9`"),
    ("a port that is none", ("port: 0\n", "port: 70000\n"), None, None, "`port` must be at most 65535"),
    (
        "neither TLS nor the word for it",
        ("  tls:", "  # tls:"),
        None,
        None,
        "exactly one of `tls` and `plaintext: allowed`",
    ),
    (
        "a CA that nobody is asked for",
        ("optional}", "off}"),
        None,
        None,
        "`client_ca` and `client_certificates` go together",
    ),
    ("no policy directory", ("policies: policy", "policies: elsewhere"), None, None, "elsewhere"),
    ("a policy with a fault", None, ("roles: [analyst]", "roels: [analyst]"), None, "did you mean `roles`?"),
    ("an unknown model", None, ("models: [digits]", "models: [digit]"), None, "did you mean `digits`?"),
    ("a key that others can read", None, None, expose, "a secret that others on this machine can read"),
    ("another certificate's key", None, None, swap, "the private key does not belong to the certificate"),
    ("no certificate", None, None, drop, "the file cannot be read"),
    ("an audit directory that is none", None, None, spoil, "audit"),
]


@pytest.mark.parametrize(("config", "policy", "files", "said"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_bad_configuration_never_starts(tmp_path, config, policy, files, said):
    path = prepare(
        tmp_path,
        CONFIG.replace(*config) if config else CONFIG,
        NOWHERE.replace(*policy) if policy else NOWHERE,
    )
    if files:
        files(tmp_path)
    done = serve(path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_every_fault_is_told_at_once(tmp_path):
    path = prepare(tmp_path, policy=NOWHERE.replace("roles:", "roels:").replace("decimals: 2", "decimals: 99"))
    expose(tmp_path)
    said = serve(path).stderr
    assert all(words in said for words in ("roels", "decimals", "chmod 600"))


def test_no_configuration_at_all(tmp_path):
    done = serve(tmp_path / "hip.yaml")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_it_serves_is_ready_counts_and_ends_in_order(tmp_path):
    identity = DemoIdentityProvider(port=1)
    (tmp_path / "jwks.json").write_bytes(identity.jwks())
    with hip_serve(tmp_path, NOWHERE) as hip, httpx.Client(verify=hip.trust(), trust_env=False) as http:
        headers = {"authorization": f"Bearer {identity.token('alice', ['analyst'])}"}
        down = http.get(f"{hip.url}/v2/models/digits/ready", headers=headers)
        assert down.status_code == 502
        assert down.headers["content-type"] == "application/problem+json"
        assert http.get(f"{hip.admin_url}/healthz").json() == {"status": "alive"}
        ready = http.get(f"{hip.admin_url}/readyz")
        assert ready.status_code == 200
        assert set(ready.json()["checks"]) == {"policy", "trail", "keys:corp", "certificate"}
        metrics = http.get(f"{hip.admin_url}/metrics").text
        assert (
            'hip_requests_total{action="health",dialect="oip-v2",reason="upstream_unreachable",status="502"} 1.0'
            in metrics
        )
        assert http.get(f"{hip.url}/metrics").status_code == 404, "the data path has no metrics"
    records = [json.loads(line) for line in hip.journal().splitlines()]
    kinds = [record["type"] for record in records if record["type"] not in ("segment", "checkpoint")]
    assert kinds == ["start", "decision", "completion", "decision", "stop"]


def test_a_raw_message_that_the_listener_refuses_has_its_record(tmp_path):
    identity = DemoIdentityProvider(port=1)
    (tmp_path / "jwks.json").write_bytes(identity.jwks())
    with hip_serve(tmp_path, NOWHERE) as hip, socket.create_connection(("127.0.0.1", hip.port)) as plain:
        secure = hip.trust().wrap_socket(plain, server_hostname="localhost")
        secure.sendall(b"GET /v2/../secret HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 400 " in secure.recv(4096)
        secure.close()
    (record,) = [json.loads(line) for line in hip.journal().splitlines() if '"type":"decision"' in line]
    assert (record["effect"], record["reason"], record["status"]) == ("deny", "malformed_message", 400)
