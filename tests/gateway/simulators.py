"""Simulators that implement the ports, and a gateway over them. Nothing of ours is patched."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from proxy.audit.pseudonym import Pseudonyms
from proxy.errors import DependencyFault, Malformed, RequestError, Unauthenticated
from proxy.exchange import (
    Budget,
    Call,
    Certificate,
    Charge,
    Cost,
    Exhausted,
    Features,
    Headers,
    Outbound,
    Peer,
    Principal,
    Reply,
    Scheme,
    Score,
    SequenceFinding,
    SequenceUse,
    Sightings,
    Streamed,
    Texts,
    Upstream,
    WindowState,
)
from proxy.gateway import Gateway, Snapshot, World
from proxy.policy.compile import compile_policy
from proxy.policy.route import routes
from proxy.reasons import Reason
from proxy.record import Event, Position

NOW = 1_800_000_000.0
JSON: Headers = ((b"content-type", b"application/json"),)
EVENT = "0123456789abcdef0123456789abcdef"
RAW = [0.9815572050622741, 0.018442780456807827, 1.4480918258509202e-8]

POLICY = """
version: v1
issuers:
  corp: {issuer: "https://idp.example", audience: proxy, jwks_file: keys.json, algorithms: [ES256], roles_claim: roles}
upstreams:
  iris-server: {url: "http://127.0.0.1:9999", dialect: oip-v2}
models:
  iris: {upstream: iris-server}
budgets:
  few: [3 requests/minute, 100 rows/day]
outputs:
  coarse: {decimals: 2}
detectors:
  iris: {file: iris.onnx, sha256: "%s"}
rules:
  - id: analysts
    allow: {roles: [analyst], actions: [infer, metadata], models: [iris]}
    budget: few
    output: coarse
    detector: {use: iris, mode: MODE, on_suspicion: RESPONSE}
  - id: streamers
    allow: {roles: [streamer], actions: [stream], models: [iris]}
    budget: few
    output: coarse
    detector: {use: iris, mode: MODE, on_suspicion: RESPONSE}
  - id: second-factor-today
    allow: {roles: [auditor], actions: [infer], models: [iris]}
    mfa: {max_age: 1h}
    budget: few
    output: coarse
""" % ("0" * 64)


class StillClock:
    """It stands still; who sleeps is back at once, and noted."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 5.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def principal(*roles: str, **changes: object) -> Principal:
    facts = {
        "issuer": "corp",
        "subject": "alice@example",
        "roles": frozenset(roles),
        "factors": frozenset({"pwd", "otp"}),
        "acr": None,
        "auth_time": int(NOW) - 60,
        "issued_at": int(NOW) - 60,
        "expires_at": int(NOW) + 600,
        "token_id": "jti-1",
        "token_digest": b"\0" * 32,
        "key_id": "k1",
    } | changes
    return Principal(**facts)  # type: ignore[arg-type]


@dataclass
class SimulatedRevocations:
    """A list that revokes everybody once there is a `reason`; who sets one counts `generation` up."""

    generation: int = 0
    reason: Reason | None = None
    looks: int = 0

    def revoked(self, principal: Principal, certificate: Certificate | None) -> Reason | None:
        self.looks += 1
        return self.reason


@dataclass
class SimulatedAuthenticator:
    who: Principal | RequestError = field(default_factory=lambda: principal("analyst"))
    revocations: SimulatedRevocations = field(default_factory=SimulatedRevocations)

    def believe(self, principal: Principal, certificate: Certificate | None) -> None:
        if reason := self.revocations.revoked(principal, certificate):
            raise Unauthenticated(reason)

    def schemes(self, call: Call) -> tuple[Scheme, ...]:
        return (Scheme.BEARER,)

    async def authenticate(self, call: Call, issuers: object, policy: str, workloads: object) -> Principal:
        if isinstance(self.who, RequestError):
            raise self.who
        return self.who


@dataclass
class SimulatedSources:
    wait: int | None = None
    failures: list[str] = field(default_factory=list)

    def blocked(self, address: str) -> int | None:
        return self.wait

    def failed(self, address: str) -> None:
        self.failures.append(address)


@dataclass
class SimulatedLedger:
    left: int = 3
    fault: RequestError | None = None
    charges: list[Cost] = field(default_factory=list)
    settled: list[Cost] = field(default_factory=list)
    settling: RequestError | None = None  # the fault of a settlement

    async def charge(self, account: str, budget: Budget, cost: Cost) -> Charge | Exhausted:
        if self.fault is not None:
            raise self.fault
        states = tuple(WindowState(window, self.left, 30) for window in budget.windows)
        if self.left < cost.requests:
            return Exhausted(budget, cost, states, budget.windows[0], 7)
        if cost.rows > 100:
            return Exhausted(budget, cost, states, budget.windows[1], None)
        self.left -= cost.requests
        self.charges.append(cost)
        return Charge(account, budget, cost, states, len(self.charges))

    async def settle(self, charge: Charge, actual: Cost) -> None:
        if self.settling is not None:
            raise self.settling
        self.settled.append(actual)


@dataclass
class SimulatedUpstream:
    reply: Reply | BaseException = field(default_factory=lambda: infer_reply())
    sent: list[Outbound] = field(default_factory=list)
    pieces: list[bytes | asyncio.Event | BaseException] = field(default_factory=list)
    open: int = 0
    taken: int = 0  # pieces

    async def send(self, upstream: Upstream, request: Outbound) -> Reply:
        self.sent.append(request)
        await asyncio.sleep(0)
        if isinstance(self.reply, BaseException):
            raise self.reply
        return self.reply

    @asynccontextmanager
    async def stream(self, upstream: Upstream, request: Outbound) -> AsyncIterator[Streamed]:
        """Hand out `pieces`: bytes, an event to wait for, or what is raised then; `open` counts what nobody closed."""
        reply = await self.send(upstream, request)
        self.open += 1
        try:
            yield Streamed(reply.status, reply.headers, self._coming(reply))
        finally:
            self.open -= 1

    async def _coming(self, reply: Reply) -> AsyncIterator[bytes]:
        for piece in (reply.body, *self.pieces):
            if isinstance(piece, BaseException):
                raise piece
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif piece:
                self.taken += 1
                yield piece


@dataclass
class SimulatedTrail:
    """Accepts `accepts` records, then fails as a full disk does."""

    accepts: int = 1_000_000
    records: list[Event] = field(default_factory=list)

    async def append(self, event: Event) -> Position:
        await asyncio.sleep(0)
        if len(self.records) >= self.accepts:
            raise DependencyFault(Reason.AUDIT_UNWRITABLE, "disk full")
        self.records.append(event)
        return Position("simulated", len(self.records) - 1, "00")


@dataclass
class SimulatedDetector:
    score: Score | RequestError = field(default_factory=lambda: Score(0.5, 0.01, 1.0, 9.0, 0))
    features: int = 4

    async def judge(self, rows: Features | Texts) -> Score:
        if isinstance(rows, Texts):
            raise Malformed(Reason.SCHEMA_MISMATCH, "texts, and the detector is one of numbers")
        if isinstance(self.score, RequestError):
            raise self.score
        return self.score

    async def examine(self, rows: Features | Texts) -> tuple[Score, Sightings]:
        score = await self.judge(rows)
        assert not isinstance(rows, Texts)
        marks = np.zeros(len(rows), np.bool_)
        return score, Sightings(marks.astype(np.uint64), np.zeros((len(rows), 64), np.float32), marks, 1.0)


@dataclass
class SimulatedSequences:
    finding: SequenceFinding | RequestError | None = None
    observed: list[tuple[str, str]] = field(default_factory=list)

    async def observe(
        self, account: str, detector: str, sightings: Sightings, use: SequenceUse, now: float
    ) -> SequenceFinding | None:
        self.observed.append((account, detector))
        if isinstance(self.finding, RequestError):
            raise self.finding
        return self.finding


@dataclass
class SimulatedObserver:
    seen: list[object] = field(default_factory=list)

    def finished(self, exchange: object, decision: object, completion: object) -> None:
        self.seen.append((exchange, decision, completion))


@dataclass
class House:
    """A gateway and everything around it."""

    mode: str = "enforce"
    response: str = "label"
    more: str = ""  # of the detector in the policy
    authenticator: SimulatedAuthenticator = field(default_factory=SimulatedAuthenticator)
    sources: SimulatedSources = field(default_factory=SimulatedSources)
    ledger: SimulatedLedger = field(default_factory=SimulatedLedger)
    upstream: SimulatedUpstream = field(default_factory=SimulatedUpstream)
    trail: SimulatedTrail = field(default_factory=SimulatedTrail)
    detector: SimulatedDetector = field(default_factory=SimulatedDetector)
    sequences: SimulatedSequences = field(default_factory=SimulatedSequences)
    clock: StillClock = field(default_factory=StillClock)
    observer: SimulatedObserver = field(default_factory=SimulatedObserver)

    def __post_init__(self) -> None:
        text = POLICY.replace("MODE", self.mode).replace("RESPONSE", self.response + self.more)
        policy = compile_policy({"policy.yaml": text.encode()})
        snapshot = Snapshot(policy, routes(policy), {"iris": self.detector})
        self.gateway = Gateway(
            World(
                snapshot=lambda: snapshot,
                authenticator=self.authenticator,  # type: ignore[arg-type]
                sources=self.sources,
                ledger=self.ledger,
                upstreams=self.upstream,
                sequences=self.sequences,
                trail=self.trail,
                observers=(self.observer,),
                pseudonyms=Pseudonyms(b"p" * 32),
                clock=self.clock,
                new_id=lambda: EVENT,
                via=b"hip-test",
            )
        )

    async def ask(self, method: str = "POST", path: str = "/v2/models/iris/infer", **changes: object):
        answer = await self.gateway.handle(call(method, path, **changes))
        assert isinstance(answer.body, bytes)
        return answer

    @property
    def reasons(self) -> list[str]:
        return [record.reason for record in self.trail.records]  # type: ignore[attr-defined]


def call(
    method: str = "POST",
    path: str = "/v2/models/iris/infer",
    *,
    body: bytes | BaseException | None = None,
    headers: Headers = JSON,
    query: str = "",
) -> Call:
    content = infer_body() if body is None and method == "POST" else body or b""

    async def read_body() -> bytes:
        if isinstance(content, BaseException):
            raise content
        return content

    return Call(method, path, query, headers, Peer("192.0.2.7"), read_body)


def infer_body(**changes: object) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]} | changes
    return json.dumps({"inputs": [tensor]}).encode()


def infer_reply(status: int = 200, body: bytes | None = None, headers: Headers = JSON) -> Reply:
    outputs = [{"name": "p", "shape": [1, 3], "datatype": "FP64", "data": RAW}]
    default = json.dumps({"model_name": "iris", "outputs": outputs}).encode()
    return Reply(status, headers, default if body is None else body)


def said(answer: object) -> Mapping[str, object]:
    return json.loads(answer.body)  # type: ignore[attr-defined]


def header(answer: object, name: bytes) -> bytes | None:
    values = [value for key, value in answer.headers if key == name]  # type: ignore[attr-defined]
    assert len(values) < 2
    return values[0] if values else None
