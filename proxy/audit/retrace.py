"""Spans out of records, for a trace store that was not there: the same ids and names as the ones sent while serving.

Decides times by the records' own: a decision's as the start, a completion's as the end. They are a little narrower
than those of `trace`, which saw the request itself; what records do not hold (host and port of an upstream, who
linked to us) is not in them.
"""

from functools import lru_cache

from proxy.audit.requests import Request
from proxy.audit.trace import (
    CLIENT_FAULT,
    METHODS,
    OTHER_METHOD,
    SERVER_FAULT,
    SHARED,
    Attributes,
    Kind,
    Own,
    Shape,
    Span,
    Value,
    client_span_id,
)


def retrace(request: Request) -> tuple[Span, ...]:
    """Return a request's spans; none where none was made."""
    made, done = request.decision, request.completion
    if not made.trace:
        return ()
    end = request.decided.t_ns if request.completed is None else request.completed.t_ns
    status = made.status if done is None else done.status
    reason = made.reason if done is None else done.reason
    method = made.method if made.method in METHODS else OTHER_METHOD
    route = f"{made.dialect}/{made.action}" if made.dialect and made.action else None
    failed = status is not None and status >= SERVER_FAULT
    told = done.applied if done is not None else made.obligations
    name = ("HTTP" if method == OTHER_METHOD else method) + (f" {route}" if route else "")
    shape, values = _shaped(
        name,
        Kind.SERVER,
        failed,
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "error.type": reason if failed else None,
            "tls.protocol.version": made.source.tls,
            "user.hash": None if made.actor is None else made.actor.subject,
            "hip.client": made.source.address,
            "hip.incident": made.event,
            "hip.decision": made.effect,
            "hip.reason": reason,
            "hip.policy": made.policy,
            "hip.rule": made.rule,
            "hip.issuer": None if made.actor is None else made.actor.issuer,
            "hip.dialect": made.dialect,
            "hip.action": made.action,
            "hip.model": made.model,
            "hip.output": None if told is None else told.output,
            "hip.output.decimals": None if told is None else told.decimals,
            "hip.output.top_k": None if told is None else told.top_k,
            "hip.output.label_only": None if told is None else told.label_only,
            "hip.budget": None if made.spent is None else made.spent.budget,
            "hip.detector.verdict": None if made.judged is None else made.judged.verdict,
            "hip.journal.stream": request.decided.at.stream,
            "hip.journal.decision.seq": request.decided.at.seq,
            "hip.journal.decision.hash": request.decided.at.hash,
            "hip.journal.completion.seq": None if request.completed is None else request.completed.at.seq,
            "hip.journal.completion.hash": None if request.completed is None else request.completed.at.hash,
        },
    )
    start = request.decided.t_ns
    server = Span(made.trace, made.span, None, start, max(start, end), shape, values)
    if done is None or done.upstream_ms is None:
        return (server,)
    return (server, _client(request, server, int(done.upstream_ms * 1e6)))


def _client(request: Request, server: Span, width_ns: int) -> Span:
    done = request.completion
    status = None if done is None else done.upstream_status
    failed = status is None or status >= CLIENT_FAULT
    shape, values = _shaped(
        request.decision.method,
        Kind.CLIENT,
        failed,
        {
            "http.request.method": request.decision.method,
            "http.response.status_code": status,
            "hip.upstream": None if done is None else done.upstream,
            "hip.upstream.replica": None if done is None else done.upstream_replica,
        },
    )
    start = max(server.start_ns, server.end_ns - width_ns)
    return Span(server.trace_id, client_span_id(server.trace_id), server.span_id, start, server.end_ns, shape, values)


def _shaped(name: str, kind: Kind, failed: bool, facts: dict[str, Value | None]) -> tuple[Shape, tuple[Own, ...]]:
    there = {fact: value for fact, value in facts.items() if value is not None}
    own = {fact: value for fact, value in there.items() if not isinstance(value, bool)}
    flags = tuple([(fact, value) for fact, value in there.items() if isinstance(value, bool)])
    return _shape(name, kind, failed, flags, tuple([(fact, type(value)) for fact, value in own.items()])), tuple(
        own.values()
    )


@lru_cache(SHARED)
def _shape(name: str, kind: Kind, failed: bool, shared: Attributes, own: tuple[tuple[str, type[Own]], ...]) -> Shape:
    return Shape(name, kind, failed, shared, own)
