"""Heads at a syslog collector that others wrote: what arrives, over TLS, and what its loss does."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from stories import Place, place, serve
from typer.testing import CliRunner

from proxy.adapters.journal import State, second_place
from proxy.adapters.journal.disk import ANCHOR_FILE
from proxy.adapters.journal.second_place import MAX_WAITING, FilePlace, SecondPlace
from proxy.adapters.mint import mint
from proxy.cli.audit import audit_app
from proxy.demo.identity import DemoIdentityProvider
from proxy.errors import ConfigError
from tests.hip import CONFIG, NOWHERE, hip_serve
from tests.servers.running import PYTHON, free_ports, require_environment

RECEIVER = Path(__file__).with_name("syslog_receiver.py")
WITHIN = 20.0  # seconds


@dataclass
class Receiver:
    """A running collector and what it has read."""

    process: "subprocess.Popen[str]"
    messages: list[dict[str, str]] = field(default_factory=list)

    @property
    def heads(self) -> list[str]:
        return [message["text"] for message in self.messages]


@contextlib.contextmanager
def receiving(address: str, *pem: Path) -> Iterator[Receiver]:
    require_environment(PYTHON, ci=os.environ.get("CI") == "true")
    if not list(PYTHON.parents[1].glob("lib/python*/site-packages/hat/syslog")):
        reason = "no hat-syslog in the servers' environment: make .venv-servers/.ready"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    process = subprocess.Popen([PYTHON, RECEIVER, address, *pem], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    receiver, lines = Receiver(process), process.stdout

    def follow() -> None:
        for line in lines:
            receiver.messages.append(json.loads(line))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield receiver
    finally:
        process.kill()
        process.wait()
        thread.join()
        lines.close()


@pytest.fixture
def where(tmp_path: Path) -> Place:
    return place(tmp_path)


def pem(directory: Path) -> tuple[Path, Path]:
    """Return a certificate with its key in one file, and the CA."""
    minted = mint(directory / "certs", ["localhost", "127.0.0.1"], [])
    both = directory / "both.pem"
    certs = directory / "certs"
    both.write_bytes((certs / "server.crt").read_bytes() + (certs / "server.key").read_bytes())
    return both, minted.ca.certificate


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not true():
            await asyncio.sleep(0.01)


def anchors(where: Place) -> list[str]:
    return (where.directory / ANCHOR_FILE).read_text().splitlines()


async def test_every_head_arrives_over_tls_and_serves_the_auditor(where: Place, tmp_path: Path) -> None:
    """What the collector keeps is what `verify --head` takes: it sees that journal and anchors were rolled back."""
    both, authority = pem(tmp_path)
    (port,) = free_ports(1)
    with receiving(f"tls://127.0.0.1:{port}", both) as receiver:
        journal = await where.open(
            second_place=second_place(f"syslog+tls://127.0.0.1:{port}", tmp_path, str(authority))
        )
        await serve(journal, 3)
        shutil.copytree(where.directory, tmp_path / "earlier")
        await until(lambda: len(receiver.heads) > 2)
        await journal.close()
        await until(lambda: len(receiver.heads) == len(anchors(where)))
    assert receiver.heads == anchors(where)
    assert {(one["facility"], one["severity"], one["app"], one["id"]) for one in receiver.messages} == {
        ("AUDIT", "NOTICE", "hip", "head")
    }
    kept = tmp_path / "kept.log"
    kept.write_text("".join(f"<109>1 2026-01-01T00:00:00Z host hip 1 head - {head}\n" for head in receiver.heads))
    arguments = ["verify", "--public-key", str(where.auditor), "--head", str(kept)]
    assert CliRunner().invoke(audit_app, [*arguments, str(where.directory)]).exit_code == 0
    rolled_back = CliRunner().invoke(audit_app, [*arguments, str(tmp_path / "earlier")])
    assert rolled_back.exit_code == 1, rolled_back.output


async def test_half_a_head_that_a_full_disk_left_does_not_spoil_the_others(where: Place, tmp_path: Path) -> None:
    """A short write is tried again: the whole line stands behind its first half."""
    kept = tmp_path / "heads.jsonl"
    kept.write_text('{"v":1,"n":0,"prev":"00')
    journal = await where.open(second_place=SecondPlace(FilePlace(kept)))
    await serve(journal, 2)
    await journal.close()
    arguments = ["verify", "--public-key", str(where.auditor), "--head", str(kept), str(where.directory)]
    told = CliRunner().invoke(audit_app, arguments)
    assert told.exit_code == 0, told.output


async def test_a_collector_that_dies_stops_nothing_and_gets_the_newest_head_again(where: Place, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    with receiving(f"tcp://{address}") as first:
        journal = await where.open(second_place=second_place(f"syslog+tcp://{address}", tmp_path, None))
        await until(lambda: len(first.heads) > 0)
    await until(lambda: journal.status().second_place_error != "")
    assert journal.status().state is State.OK
    await serve(journal, 2)
    with receiving(f"tcp://{address}") as second:
        await until(lambda: journal.status().second_place_error == "")
        await journal.close()
        await until(lambda: second.heads[-1:] == anchors(where)[-1:])
    assert set(first.heads) | set(second.heads) == set(anchors(where))


async def test_a_collector_with_a_strangers_certificate_gets_nothing(where: Place, tmp_path: Path) -> None:
    both, _ = pem(tmp_path)
    stranger = mint(tmp_path / "other", ["localhost"], []).ca.certificate
    (port,) = free_ports(1)
    with receiving(f"tls://127.0.0.1:{port}", both) as receiver:
        journal = await where.open(second_place=second_place(f"syslog+tls://127.0.0.1:{port}", tmp_path, str(stranger)))
        await until(lambda: "syslog at" in journal.status().second_place_error)
        await serve(journal, 1)
        await journal.close()
    assert receiver.messages == []


def test_heads_that_find_nobody_are_dropped_from_the_oldest(tmp_path: Path) -> None:
    place = SecondPlace(FilePlace(tmp_path / "missing" / "heads"))
    for number in range(MAX_WAITING + 5):
        place.send(b"%d" % number)
    assert len(place._waiting) == MAX_WAITING
    assert place._waiting[-1] == b"%d" % (MAX_WAITING + 4)
    place.close()
    assert "missing" in place.error


WRONG = ["syslog://127.0.0.1:1", "syslog+tls://", "syslog+tls://host", "syslog+tls://host:0", "syslog+tls://host:70000"]


@pytest.mark.parametrize("text", [*WRONG, "https://host:1", "syslog+tls://user@host:1"])
def test_an_address_that_is_none_stops_the_start(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        second_place(text, tmp_path, None)


@pytest.mark.parametrize("text", ["heads.jsonl", "syslog+tcp://127.0.0.1:1", "syslog+tls://127.0.0.1:1"])
def test_a_ca_that_serves_nothing_stops_the_start(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        second_place(text, tmp_path, "missing.pem")


def trail(url: str) -> tuple[str, str]:
    check = httpx.get(f"{url}/readyz", trust_env=False).json()["checks"]["trail"]
    return check["health"], check["detail"]


def test_hip_serve_warns_until_its_collector_is_there(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "jwks.json").write_bytes(DemoIdentityProvider(port=1).jwks())
    config = CONFIG.replace("audit: {", f'audit: {{heads: "syslog+tcp://127.0.0.1:{port}", ')
    with hip_serve(tmp_path, NOWHERE, config) as hip:
        while trail(hip.admin_url)[0] == "ok":
            time.sleep(0.3)
        health, detail = trail(hip.admin_url)
        assert health == "warning"
        assert f"heads do not reach their second place: syslog at 127.0.0.1:{port}" in detail
        with receiving(f"tcp://127.0.0.1:{port}") as receiver:
            while trail(hip.admin_url)[0] != "ok":
                time.sleep(0.3)
            while not receiver.heads:
                time.sleep(0.05)
            assert receiver.heads[0] == (tmp_path / "audit" / ANCHOR_FILE).read_text().splitlines()[0]


@pytest.mark.parametrize("heads", ["heads: 'syslog://x:1', ", "heads_ca_file: certs/ca.crt, "], ids=["scheme", "ca"])
def test_hip_serve_does_not_start_with_a_second_place_that_is_none(tmp_path: Path, heads: str) -> None:
    (tmp_path / "jwks.json").write_bytes(DemoIdentityProvider(port=1).jwks())
    mint(tmp_path / "certs", ["localhost"], [])
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.yaml").write_text(NOWHERE)
    (tmp_path / "hip.yaml").write_text(CONFIG.replace("audit: {", f"audit: {{{heads}"))
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(tmp_path / "hip.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2, done.stderr
    assert "audit.heads" in done.stderr


@pytest.mark.parametrize("host", ["a..b", ".collector"])
async def test_a_host_that_is_no_name_is_shown(tmp_path: Path, host: str) -> None:
    place = second_place(f"syslog+tls://{host}:6514", tmp_path, None)
    place.send(b"head")
    await until(lambda: bool(place.error))
    assert "UnicodeError" in place.error
    await asyncio.to_thread(place.close)
