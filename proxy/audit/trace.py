"""Spans of a finished exchange: at most three, a closed set of names, from the same evidence as the records.

Decides names, times and attributes. A span is a pointer into the journal and an independent witness of it
(`hip.journal.*`); it is NOT the record: a trace pipeline may lose it. The caller's own trace is linked, never joined,
so that no caller chooses our ids or switches our spans off; its header is read where spans are encoded. OpenTelemetry
semantic conventions where they are stable, `hip.*` for what is ours.
"""

from enum import IntEnum
from functools import lru_cache

import msgspec

from proxy.audit.describe import judged, spent
from proxy.audit.inert import inert
from proxy.audit.pseudonym import Pseudonyms
from proxy.exchange import Call, Degraded, Exchange, Output
from proxy.record import Judged, Position, Sequence, Spent

MAX_INT = (1 << 63) - 1  # OTLP integers are signed and have 64 bits; one beyond loses the whole batch
MAX_SECONDS = 9e9  # the year 2255: its nanoseconds still fit
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"})
OTHER_METHOD = "_OTHER"  # semantic conventions for HTTP: a method that is not one of the known
SERVER_FAULT = 500
CLIENT_FAULT = 400
MAX_TRACEPARENT = 512  # characters; version 00 has 55, a later one may have more
SHARED = 1_024  # sets of attributes that many spans have in common, kept for the next span

Value = str | int | float | bool
Attributes = tuple[tuple[str, Value], ...]


class Kind(IntEnum):
    """OTLP's numbers."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


INTERNAL, SERVER, CLIENT = Kind  # looking a member up costs as much as a call


class Span(msgspec.Struct, frozen=True):
    """One span, ready to encode: ids in hexadecimal, every string inert, every number in range.

    `shared` is the same object in all spans that have these attributes in common, so that it can be encoded once.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: Kind
    start_ns: int
    end_ns: int
    shared: Attributes
    own: Attributes
    error: bool
    caller: str | None = None  # the caller's `traceparent`, as sent: nobody has read it yet

    @property
    def attributes(self) -> Attributes:
        """Return all of them."""
        return self.shared + self.own


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


def _server(
    exchange: Exchange,
    decision: Position | None,
    completion: Position | None,
    pseudonyms: Pseudonyms,
    said: Judged | None,
) -> Span:
    call, target, grant, principal = exchange.call, exchange.target, exchange.grant, exchange.principal
    method = call.method if call.method in METHODS else OTHER_METHOD
    route = None if target is None else f"{exchange.dialect}/{target.action}"
    failed = exchange.status >= SERVER_FAULT
    state = spent(exchange)
    applied = None if grant is None else grant.output
    if isinstance(exchange.verdict, Degraded):
        applied = exchange.verdict.output
    start = _ns(exchange.started)
    return Span(
        trace_id=exchange.trace_id,
        span_id=exchange.span_id,
        parent_id=None,
        name=("HTTP" if method == OTHER_METHOD else method) + (f" {route}" if route else ""),
        kind=SERVER,
        start_ns=start,
        end_ns=max(start, _ns(exchange.finished)),
        error=failed,
        caller=_caller(call),
        shared=_asked_for(
            method,
            route,
            call.peer.tls_version,
            exchange.policy,
            None if grant is None else grant.rule,
            None if principal is None else principal.issuer,
            exchange.dialect,
            None if target is None else target.action,
            None if target is None or grant is None else target.model,  # else the caller's word: it is kept for nobody
            applied,
            None if state is None else state.budget,
        ),
        own=tuple(_told(exchange, decision, completion, pseudonyms, said, state)),
    )


def _told(
    exchange: Exchange,
    decision: Position | None,
    completion: Position | None,
    pseudonyms: Pseudonyms,
    said: Judged | None,
    state: Spent | None,
) -> list[tuple[str, Value]]:
    """Return what one request alone has: ours, or kept in range here."""
    principal, target = exchange.principal, exchange.target
    told: list[tuple[str, Value]] = [
        ("http.response.status_code", exchange.status),
        ("hip.client", pseudonyms.address(exchange.call.peer.address)),
        ("hip.incident", exchange.event),
        ("hip.decision", "deny" if exchange.upstream_seconds is None else "allow"),
        ("hip.reason", exchange.reason.value),
    ]
    if exchange.grant is None and target is not None and target.model is not None:
        told.append(("hip.model", inert(target.model)))
    if exchange.status >= SERVER_FAULT:
        told.append(("error.type", exchange.reason.value))
    if principal is not None:
        told.append(("user.hash", pseudonyms.subject(principal.issuer, principal.subject)))
    if state is not None:
        told += (("hip.budget.rows", _value(state.rows)), ("hip.budget.tokens", _value(state.tokens)))
        if state.remaining:
            told.append(("hip.budget.remaining", _value(min(state.remaining))))
        if state.revision is not None:
            told.append(("hip.budget.revision", _value(state.revision)))
    if said is not None:
        told.append(("hip.detector.verdict", said.verdict))
    if decision is not None:
        told += (
            ("hip.journal.stream", decision.stream),
            ("hip.journal.decision.seq", decision.seq),
            ("hip.journal.decision.hash", decision.hash),
        )
    if completion is not None:
        told += (
            ("hip.journal.completion.seq", completion.seq),
            ("hip.journal.completion.hash", completion.hash),
        )
    return told


@lru_cache(SHARED)
def _asked_for(
    method: str,
    route: str | None,
    tls_version: str | None,
    policy: str,
    rule: str | None,
    issuer: str | None,
    dialect: str | None,
    action: str | None,
    model: str | None,
    applied: Output | None,
    budget: str | None,
) -> Attributes:
    """Return what all requests of one kind have in common."""
    return _clean(
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


def _client(exchange: Exchange, server: Span) -> Span:
    seconds, grant, reply = exchange.upstream_seconds or 0.0, exchange.grant, exchange.reply
    end = server.end_ns if exchange.forwarded is None else _ns(exchange.forwarded + seconds)
    failed = reply is None or reply.status >= CLIENT_FAULT
    upstream = None if grant is None else grant.upstream
    known = upstream if upstream is not None and not upstream.replicas else None  # a replica says where it is itself
    method = exchange.call.method if exchange.call.method in METHODS else OTHER_METHOD
    return Span(
        trace_id=exchange.trace_id,
        span_id=client_span_id(exchange.trace_id),
        parent_id=exchange.span_id,
        name=method,
        kind=CLIENT,
        start_ns=max(server.start_ns, end - _ns(seconds)),
        end_ns=max(server.start_ns, end),
        error=failed,
        shared=_sent_to(
            method,
            None if known is None else known.host,
            None if known is None else known.port,
            None if upstream is None else upstream.name,
            None if reply is None else reply.replica,
        ),
        own=(
            *(() if reply is None else (("http.response.status_code", reply.status),)),
            *((("error.type", exchange.reason.value),) if failed else ()),
        ),
    )


@lru_cache(SHARED)
def _sent_to(method: str, host: str | None, port: int | None, upstream: str | None, replica: str | None) -> Attributes:
    return _clean(
        {
            "http.request.method": method,
            "server.address": host,
            "server.port": port,
            "hip.upstream": upstream,
            "hip.upstream.replica": replica,
        }
    )


def _detector(exchange: Exchange, server: Span, said: Judged | None) -> Span:
    seconds = exchange.judge_seconds or 0.0
    end = server.end_ns if exchange.forwarded is None else _ns(exchange.forwarded)
    return Span(
        trace_id=exchange.trace_id,
        span_id=_detector_span_id(exchange.trace_id),
        parent_id=exchange.span_id,
        name="detect",
        kind=INTERNAL,
        start_ns=max(server.start_ns, end - _ns(seconds)),
        end_ns=max(server.start_ns, end),
        error=False,
        shared=() if said is None else _judged_by(said.detector, said.digest, said.mode, said.alpha, said.threshold),
        own=()
        if said is None
        else (
            ("hip.detector.p_value", said.p_value),
            ("hip.detector.statistic", said.statistic),
            ("hip.detector.row", said.row),
            ("hip.detector.verdict", said.verdict),
            *(() if said.sequence is None else _sequence(said.sequence)),
        ),
    )


@lru_cache(SHARED)
def _judged_by(detector: str, digest: str, mode: str, alpha: float, threshold: float) -> Attributes:
    return _clean(
        {
            "hip.detector": detector,
            "hip.detector.digest": digest,
            "hip.detector.mode": mode,
            "hip.detector.alpha": alpha,
            "hip.detector.threshold": threshold,
        }
    )


def _sequence(shown: Sequence) -> Attributes:
    return _clean(
        {
            "hip.sequence.pattern": shown.pattern,
            "hip.sequence.count": shown.count,
            "hip.sequence.limit": shown.limit,
            "hip.sequence.window": shown.window,
            "hip.sequence.distance": shown.distance,
            "hip.sequence.verdict": shown.verdict,
        }
    )


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
    kind = type(value)  # not isinstance: this runs for every attribute of every request
    if kind is bool or kind is float:
        return value
    if kind is int:
        return value if -MAX_INT <= int(value) <= MAX_INT else max(-MAX_INT, min(int(value), MAX_INT))
    return inert(str(value))
