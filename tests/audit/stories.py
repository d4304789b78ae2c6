"""Exchanges and journals for the audit tests: made through the real parts, with small rhythms."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.adapters.journal import Disk, Durability, Journal, Keys, Limits, ensure_keys
from proxy.audit.note import Verifier
from proxy.audit.pseudonym import Pseudonyms
from proxy.exchange import (
    Action,
    Budget,
    Call,
    Certificate,
    Charge,
    Cost,
    DetectorUse,
    Exchange,
    Grant,
    Mode,
    Output,
    Passed,
    Peer,
    Principal,
    Query,
    Reply,
    Score,
    Suspicion,
    Target,
    Unit,
    Upstream,
    Window,
    WindowState,
)
from proxy.record import Completion, Decision, Source, Start

SECRET = bytes(range(32))
PSEUDONYMS = Pseudonyms(SECRET)
FACTS = Start(version="0.1.0", configuration="c" * 64, policy="p" * 64, replica="r1", worker=0, boot="b")
NOW = 1_790_000_000.0


@dataclass(slots=True)
class ManualClock:
    """A clock that goes on only when it is told to."""

    seconds: float = NOW
    mono: float = 100.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.mono

    def go(self, seconds: float) -> None:
        self.seconds += seconds
        self.mono += seconds


class SystemClock:
    """The machine's clock."""

    def __init__(self) -> None:
        import time

        self.now = time.time
        self.monotonic = time.monotonic


async def _no_body() -> bytes:
    return b""


def call(**changes: Any) -> Call:
    facts: dict[str, Any] = {
        "method": "POST",
        "path": "/v2/models/digits/infer",
        "query": "",
        "headers": ((b"content-type", b"application/json"),),
        "peer": Peer("192.0.2.7", "TLSv1.3", "TLS_AES_256_GCM_SHA384", Certificate("fp" * 16, "0a")),
        "read_body": _no_body,
    }
    return Call(**(facts | changes))


def principal(**changes: Any) -> Principal:
    facts: dict[str, Any] = {
        "issuer": "corp",
        "subject": "alice",
        "roles": frozenset({"analyst", "reader"}),
        "factors": frozenset({"pwd", "otp"}),
        "acr": "aal2",
        "auth_time": int(NOW) - 60,
        "issued_at": int(NOW) - 30,
        "expires_at": int(NOW) + 300,
        "token_id": "jti-1",
        "token_digest": b"d" * 32,
        "key_id": "k1",
    }
    return Principal(**(facts | changes))


UPSTREAM = Upstream("digits", "http", "127.0.0.1", 8080, "", "oip-v2", 10, 2, 1 << 20, 8)
BUDGET = Budget("trial", (Window(Unit.REQUESTS, 60, 60), Window(Unit.ROWS, 1000, 86400)))
DETECTOR = DetectorUse("digits", "digits.onnx", "d" * 64, Mode.ENFORCE, Suspicion.LABEL)


def grant(who: Principal, **changes: Any) -> Grant:
    facts: dict[str, Any] = {
        "rule": "analysts-read-scores",
        "principal": who,
        "target": Target(Action.INFER, "digits", "1"),
        "upstream": UPSTREAM,
        "budget": BUDGET,
        "output": Output("coarse", 2, 1),
        "detector": DETECTOR,
        "mfa": True,
        "policy": "p" * 64,
    }
    return Grant(**(facts | changes))


def exchange(**changes: Any) -> Exchange:
    """Return an allowed exchange, answered by its upstream."""
    who = principal()
    states = tuple(WindowState(window, window.limit - 1, window.seconds) for window in BUDGET.windows)
    event = os.urandom(16).hex()
    facts: dict[str, Any] = {
        "event": event,
        "call": call(),
        "started": NOW,
        "policy": "p" * 64,
        "trace_id": event,
        "span_id": event[:16],
        "dialect": "oip-v2",
        "target": Target(Action.INFER, "digits", "1"),
        "principal": who,
        "grant": grant(who),
        "query": Query(Cost(1, 1, 0), b'{"inputs":[]}', ()),
        "charge": Charge(who.account, BUDGET, Cost(1, 1, 0), states, 7),
        "score": Score(0.4, 0.01, 1.5, 3.0, 0),
        "verdict": Passed(),
        "reply": Reply(200, ((b"content-type", b"application/json"),), b"{}"),
        "upstream_seconds": 0.0123,
        "status": 200,
        "finished": NOW + 0.02,
    }
    return Exchange(**(facts | changes))


def plain_decision(event: str, effect: str = "allow", **changes: Any) -> Decision:
    facts: dict[str, Any] = {
        "event": event,
        "effect": effect,
        "reason": "allowed" if effect == "allow" else "no_rule",
        "policy": "p" * 64,
        "method": "POST",
        "source": Source(address="e.x"),
        "trace": event,
        "span": event[:16],
    }
    return Decision(**(facts | changes))


def plain_completion(event: str) -> Completion:
    return Completion(event=event, reason="allowed", status=200)


QUICK = Limits(
    segment_bytes=6_000,
    checkpoint_records=8,
    checkpoint_seconds=0.05,
    heartbeat_seconds=0.2,
    sync_seconds=0.05,
    stuck_seconds=10,  # a shared disk can be slow; the tests of a stuck one have their own
    retry_seconds=0.02,
    warn_free=0.0,
    deny_free=0.0,
    tick_seconds=0.01,
)


@dataclass(frozen=True, slots=True)
class Place:
    """A journal's directory, its keys and what an auditor is given."""

    directory: Path
    keys: Keys

    @property
    def auditor(self) -> Verifier:
        return self.keys.signer.verifier

    async def open(self, **changes: Any) -> Journal:
        facts: dict[str, Any] = {
            "signer": self.keys.signer,
            "clock": SystemClock(),
            "facts": FACTS,
            "durability": Durability.GROUP,
            "limits": QUICK,
            "disk": Disk(),
        }
        return await Journal.open(self.directory, **(facts | changes))


def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "audit", ensure_keys(tmp_path / "keys"))


async def serve(journal: Journal, pairs: int, refused: int = 0) -> list[str]:
    """Append pairs of records, and refusals; return the events."""
    events = []
    for _ in range(pairs):
        event = os.urandom(16).hex()
        await journal.append(plain_decision(event))
        await journal.append(plain_completion(event))
        events.append(event)
    for _ in range(refused):
        event = os.urandom(16).hex()
        await journal.append(plain_decision(event, "deny"))
        events.append(event)
    return events


async def crash(journal: Journal, torn: bytes = b"") -> None:
    """End a journal as kill -9 would: nothing more is written, and its locks are gone; `torn` is what was under way."""
    keeper, stream = journal._keeper._task, journal._writer.stream
    keeper.cancel()
    await asyncio.wait({keeper})
    await asyncio.get_running_loop().run_in_executor(journal._executor, lambda: None)
    journal._watchdog.stop()
    if torn:
        os.write(stream._fd, torn)
    stream.abandon()
    journal._executor.shutdown()
