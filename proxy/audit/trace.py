"""Spans of a finished exchange: at most three, a closed set of names, from the same evidence as the records.

Decides names, times and attributes. A span is a pointer into the journal and an independent witness of it
(`hip.journal.*`); it is NOT the record: a trace pipeline may lose it. The caller's own trace is linked, never joined,
so that no caller chooses our ids or switches our spans off; its header is read where spans are encoded. OpenTelemetry
semantic conventions where they are stable, `hip.*` for what is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import msgspec

from proxy.audit.describe import judged
from proxy.audit.inert import inert
from proxy.audit.pseudonym import Pseudonyms
from proxy.exchange import Call, Degraded, Exchange, Output
from proxy.record import Judged, Position

MAX_INT = (1 << 63) - 1  # OTLP integers are signed and have 64 bits; one beyond loses the whole batch
MAX_SECONDS = 9e9  # the year 2255: its nanoseconds still fit
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"})
OTHER_METHOD = "_OTHER"  # semantic conventions for HTTP: a method that is not one of the known
SERVER_FAULT = 500
CLIENT_FAULT = 400
MAX_TRACEPARENT = 512  # characters; version 00 has 55, a later one may have more
SHARED = 1_024  # shapes kept for the next span

Value = str | int | float | bool
Attributes = tuple[tuple[str, Value], ...]
Own = str | int | float


class Kind(IntEnum):
    """OTLP's numbers."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


INTERNAL, SERVER, CLIENT = Kind  # looking a member up costs as much as a call


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What all spans of one kind of request have in common: the same object in all of them, to be encoded once.

    `own` names the attributes whose values each span has itself, with the type of the values.
    """

    name: str
    kind: Kind
    error: bool
    shared: Attributes
    own: tuple[tuple[str, type[Own]], ...]


class Span(msgspec.Struct, frozen=True):
    """One span, ready to encode: ids in hexadecimal, every string inert, every number in range."""

    trace_id: str
    span_id: str
    parent_id: str | None
    start_ns: int
    end_ns: int
    shape: Shape
    values: tuple[Own, ...]  # of `shape.own`, in its order
    caller: str | None = None  # the caller's `traceparent`, as sent: nobody has read it yet

    @property
    def attributes(self) -> Attributes:
        """Return all of them."""
        return (
            *self.shape.shared,
            *[(name, value) for (name, _), value in zip(self.shape.own, self.values, strict=True)],
        )


def spans_of(
    exchange: Exchange, decision: Position | None, completion: Position | None, pseudonyms: Pseudonyms
) -> tuple[Span, ...]:
    """Return the spans of an exchange."""
    said = judged(exchange)
    server = _server(exchange, decision, completion, pseudonyms, said)
    spans = [server]
    if exchange.upstream_seconds is not None and exchange.grant is not None:
        spans.append(_client(exchange, server))
    if exchange.score is not None:
        spans.append(_detector(exchange, server, said))
    return tuple(spans)


def client_span_id(trace_id: str) -> str:
    """Return the id of the span around the upstream call; sent upstream, it makes the upstream's span a child."""
    return trace_id[16:]


def _detector_span_id(trace_id: str) -> str:
    return f"{int(trace_id[16:], 16) ^ 1:016x}"


# Attributes that a span has together, in one string each: such strings are hashed once and compared by identity.
_ANY = "http.response.status_code:int hip.client hip.incident hip.decision hip.reason"
_MODEL = "hip.model"
_FAILED = "error.type"
_CALLER = "user.hash"
_SPENT = "hip.budget.rows:int hip.budget.tokens:int"
_REMAINING = "hip.budget.remaining:int"
_REVISION = "hip.budget.revision:int"
_VERDICT = "hip.detector.verdict"
_DECISION = "hip.journal.stream hip.journal.decision.seq:int hip.journal.decision.hash"
_COMPLETION = "hip.journal.completion.seq:int hip.journal.completion.hash"
_ANSWERED = "http.response.status_code:int"
_JUDGED = "hip.detector.p_value:float hip.detector.statistic:float hip.detector.row:int hip.detector.verdict"
_SEQUENCE = "hip.sequence.pattern hip.sequence.count:int hip.sequence.limit:int hip.sequence.window:int"
_DISTANCE = "hip.sequence.distance:float"
_SEQUENCE_VERDICT = "hip.sequence.verdict"
_TYPES: Mapping[str, type[Own]] = {"": str, "int": int, "float": float}


def _server(
    exchange: Exchange,
    decision: Position | None,
    completion: Position | None,
    pseudonyms: Pseudonyms,
    said: Judged | None,
) -> Span:
    call, target, grant, principal = exchange.call, exchange.target, exchange.grant, exchange.principal
    state, status, reason = exchange.charge or exchange.exhausted, exchange.status, str(exchange.reason)
    effect = "deny" if exchange.upstream_seconds is None else "allow"
    names = [_ANY]
    values: list[Own] = [status, pseudonyms.address(call.peer.address), exchange.event, effect, reason]
    if grant is None and target is not None and target.model is not None:  # the caller's word: it is kept for nobody
        names.append(_MODEL)
        values.append(inert(target.model))
    if status >= SERVER_FAULT:
        names.append(_FAILED)
        values.append(reason)
    if principal is not None:
        names.append(_CALLER)
        values.append(pseudonyms.subject(principal.issuer, principal.subject))
    if state is not None:
        names.append(_SPENT)
        values += (_number(state.cost.rows), _number(state.cost.tokens))
        if state.states:
            names.append(_REMAINING)
            values.append(_number(min([window.remaining for window in state.states])))
        if exchange.charge is not None:
            names.append(_REVISION)
            values.append(_number(exchange.charge.revision))
    if said is not None:
        names.append(_VERDICT)
        values.append(said.verdict)
    if decision is not None:
        names.append(_DECISION)
        values += (decision.stream, decision.seq, decision.hash)
    if completion is not None:
        names.append(_COMPLETION)
        values += (completion.seq, completion.hash)
    start = _ns(exchange.started)
    applied = None if grant is None else grant.output
    if isinstance(exchange.verdict, Degraded):
        applied = exchange.verdict.output
    return Span(
        exchange.trace_id,
        exchange.span_id,
        None,
        start,
        max(start, _ns(exchange.finished)),
        _asked_for(
            call.method if call.method in METHODS else OTHER_METHOD,
            exchange.dialect,
            None if target is None else str(target.action),
            status >= SERVER_FAULT,
            call.peer.tls_version,
            exchange.policy,
            None if grant is None else grant.rule,
            None if principal is None else principal.issuer,
            None if target is None or grant is None else target.model,
            applied,
            None if state is None else state.budget.name,
            *names,
        ),
        tuple(values),
        _caller(call),
    )


@lru_cache(SHARED)
def _asked_for(
    method: str,
    dialect: str | None,
    action: str | None,
    failed: bool,
    tls_version: str | None,
    policy: str,
    rule: str | None,
    issuer: str | None,
    model: str | None,
    applied: Output | None,
    budget: str | None,
    *names: str,
) -> Shape:
    """Return what all requests of one kind have in common."""
    route = None if action is None else f"{dialect}/{action}"
    shared = _clean(
        {
            "http.request.method": method,
            "http.route": route,
            "tls.protocol.version": tls_version,
            "hip.policy": policy,
            "hip.rule": rule,
            "hip.issuer": issuer,
            "hip.dialect": dialect,
            "hip.action": action,
            "hip.model": model,
            "hip.output": None if applied is None else applied.name,
            "hip.output.decimals": None if applied is None else applied.decimals,
            "hip.output.top_k": None if applied is None else applied.top_k,
            "hip.output.label_only": None if applied is None else applied.label_only,
            "hip.budget": budget,
        }
    )
    name = ("HTTP" if method == OTHER_METHOD else method) + (f" {route}" if route else "")
    return Shape(name, SERVER, failed, shared, _apart(names))


def _client(exchange: Exchange, server: Span) -> Span:
    seconds, grant, reply = exchange.upstream_seconds or 0.0, exchange.grant, exchange.reply
    end = server.end_ns if exchange.forwarded is None else _ns(exchange.forwarded + seconds)
    failed = reply is None or reply.status >= CLIENT_FAULT
    upstream = None if grant is None else grant.upstream
    known = upstream if upstream is not None and not upstream.replicas else None  # a replica says where it is itself
    return Span(
        exchange.trace_id,
        client_span_id(exchange.trace_id),
        exchange.span_id,
        max(server.start_ns, end - _ns(seconds)),
        max(server.start_ns, end),
        _sent_to(
            exchange.call.method if exchange.call.method in METHODS else OTHER_METHOD,
            None if known is None else known.host,
            None if known is None else known.port,
            None if upstream is None else upstream.name,
            None if reply is None else reply.replica,
            failed,
            *(() if reply is None else (_ANSWERED,)),
            *((_FAILED,) if failed else ()),
        ),
        (*(() if reply is None else (reply.status,)), *((str(exchange.reason),) if failed else ())),
    )


@lru_cache(SHARED)
def _sent_to(
    method: str,
    host: str | None,
    port: int | None,
    upstream: str | None,
    replica: str | None,
    failed: bool,
    *names: str,
) -> Shape:
    shared = _clean(
        {
            "http.request.method": method,
            "server.address": host,
            "server.port": port,
            "hip.upstream": upstream,
            "hip.upstream.replica": replica,
        }
    )
    return Shape(method, CLIENT, failed, shared, _apart(names))


def _detector(exchange: Exchange, server: Span, said: Judged | None) -> Span:
    end = server.end_ns if exchange.forwarded is None else _ns(exchange.forwarded)
    shape, values = (_UNSAID, ()) if said is None else _said(said)
    return Span(
        exchange.trace_id,
        _detector_span_id(exchange.trace_id),
        exchange.span_id,
        max(server.start_ns, end - _ns(exchange.judge_seconds or 0.0)),
        max(server.start_ns, end),
        shape,
        values,
    )


def _said(said: Judged) -> tuple[Shape, tuple[Own, ...]]:
    names: tuple[str, ...] = (_JUDGED,)
    values: tuple[Own, ...] = (said.p_value, said.statistic, said.row, said.verdict)
    shown = said.sequence
    if shown is not None:
        names += (_SEQUENCE,)
        values += (str(shown.pattern), _number(shown.count), _number(shown.limit), _number(shown.window))
        if shown.distance is not None:
            names += (_DISTANCE,)
            values += (shown.distance,)
        names += (_SEQUENCE_VERDICT,)
        values += (shown.verdict,)
    return _judged_by(said.detector, said.digest, said.mode, said.alpha, said.threshold, *names), values


@lru_cache(SHARED)
def _judged_by(detector: str, digest: str, mode: str, alpha: float, threshold: float, *names: str) -> Shape:
    shared = _clean(
        {
            "hip.detector": detector,
            "hip.detector.digest": digest,
            "hip.detector.mode": mode,
            "hip.detector.alpha": alpha,
            "hip.detector.threshold": threshold,
        }
    )
    return Shape("detect", INTERNAL, False, shared, _apart(names))


_UNSAID = Shape("detect", INTERNAL, False, (), ())


def _apart(names: tuple[str, ...]) -> tuple[tuple[str, type[Own]], ...]:
    told = [name.partition(":") for name in " ".join(names).split()]
    return tuple([(name, _TYPES[kind]) for name, _, kind in told])


def _caller(call: Call) -> str | None:
    """Return the one `traceparent` (W3C Trace Context section 3.2); of several, none is the caller's."""
    values = call.values(b"traceparent")
    if len(values) != 1 or len(values[0]) > MAX_TRACEPARENT or not values[0].isascii():
        return None
    return values[0].decode("ascii")


def _ns(seconds: float) -> int:
    if not 0.0 <= seconds <= MAX_SECONDS:
        seconds = min(max(0.0, seconds), MAX_SECONDS)
    return int(seconds * 1e9)


def _clean(values: dict[str, Value | None]) -> Attributes:
    return tuple([(name, _value(value)) for name, value in values.items() if value is not None])


def _value(value: Value) -> Value:
    if isinstance(value, str):
        return inert(str(value))
    return _number(value) if type(value) is int else value


def _number(value: int) -> int:
    return value if -MAX_INT <= value <= MAX_INT else max(-MAX_INT, min(value, MAX_INT))
