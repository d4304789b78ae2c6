"""The shared store in the configuration: what does not start, and how it says so."""

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.adapters.mint import mint
from proxy.config import read_settings
from proxy.errors import ConfigError
from tests.faults.house import config, identity, policy

WITHOUT_REDIS = """\
import sys
for name in ("redis", "redis.asyncio", "redis.asyncio.connection", "redis.exceptions"):
    sys.modules[name] = None
from proxy.cli import main
sys.argv = ["hip", "serve", "--config", sys.argv[1]]
main()
"""


def test_a_missing_extra_says_what_to_install(tmp_path: Path) -> None:
    identity(tmp_path)
    mint(tmp_path / "certs", ["localhost"], [])
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.yaml").write_text(policy("http://127.0.0.1:9"))
    (tmp_path / "hip.yaml").write_text(config("state: {url: 'valkey://127.0.0.1:9'}"))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_REDIS, str(tmp_path / "hip.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "hardened-inference-proxy[redis]" in done.stderr
    assert "Traceback" not in done.stderr


WRONG = [
    ("state: {url: 'valkey://a', ca_file: ca.pem}", "a CA for a store that is not asked over TLS"),
    ("state: {url: 'valkey://u:p@a', password_file: p}", "a second password"),
    ("workers: 0", "`workers` must be at least 1"),
    ("workers: 65\nstate: {url: 'valkey://a'}", "`workers` must be at most 64"),
    ("workers: 2", "2 workers without `state`"),
]


@pytest.mark.parametrize(("more", "said"), WRONG)
def test_what_does_not_start(more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings("hip.yaml", config(more).encode())


def test_a_list_of_clients_that_no_ca_issues() -> None:
    text = config().replace("client_ca: certs/ca.crt, client_certificates: optional", "client_crl: list.pem")
    with pytest.raises(ConfigError, match="client certificates that no CA issues"):
        read_settings("hip.yaml", text.encode())
