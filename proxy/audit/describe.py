"""From the evidence of an exchange to its typed records.

Decides what a `decision` and a `completion` say. Both functions are total: whatever strings and numbers a caller, an
issuer or a detector produced, they return a record that can be encoded. They read no clock and decide nothing about
the request; a record says what the gateway noted, NOT that the gateway was right.
"""

import math
import sys
from collections.abc import Mapping
from functools import lru_cache

from proxy.audit.inert import MAX_DETAIL, inert, inert_or_none, inert_set
from proxy.audit.pseudonym import Pseudonyms
from proxy.audit.skeleton import skeleton
from proxy.exchange import (
    Call,
    Degraded,
    Exchange,
    Grant,
    Mode,
    Output,
    Peer,
    Principal,
    Reply,
    SequenceFinding,
    SequenceUse,
    Suspicion,
)
from proxy.reasons import Reason
from proxy.record import (
    Actor,
    Completion,
    Decision,
    Judged,
    JudgedAs,
    Obligations,
    Sequence,
    Source,
    Spent,
    UpstreamError,
)

ACTORS = 1_024  # kept for the next request with the same token

_GREATEST = sys.float_info.max
_ALLOWED = Reason.ALLOWED  # looking a member up costs as much as a call


def decision(exchange: Exchange, pseudonyms: Pseudonyms) -> Decision:
    """Return the record to write before anything is forwarded, or the whole record of a refusal."""
    allowed = exchange.reason is _ALLOWED and exchange.grant is not None
    grant, target, query = exchange.grant, exchange.target, exchange.query
    denial = exchange.denial
    return Decision(
        event=exchange.event,
        effect="allow" if allowed else "deny",
        reason=exchange.reason,
        policy=exchange.policy,
        method=inert(exchange.call.method),
        source=_source(exchange.call.peer, pseudonyms),
        trace=exchange.trace_id,
        span=exchange.span_id,
        action=None if target is None else target.action,
        model=None if target is None else inert_or_none(target.model),
        version=None if target is None else inert_or_none(target.version),
        dialect=exchange.dialect,
        rule=grant.rule if grant is not None else None if denial is None else denial.rule,
        shadow=grant.shadow if grant is not None else () if denial is None else denial.shadow,
        actor=None if exchange.principal is None else _actor(exchange.principal, pseudonyms),
        obligations=None if grant is None else _obligations(grant.output, grant),
        spent=spent(exchange),
        judged=judged(exchange),
        input_hash=None if query is None else pseudonyms.input(query.body, query.behind),
        input_bytes=None if query is None else len(query.body) + len(query.behind),
        status=None if allowed else exchange.status,
        detail=inert(exchange.detail, MAX_DETAIL) if exchange.detail else None,
    )


def completion(exchange: Exchange, pseudonyms: Pseudonyms) -> Completion:  # noqa: ARG001 - one signature for both
    """Return the record to write before the answer leaves."""
    grant, reply, verdict = exchange.grant, exchange.reply, exchange.verdict
    answered = exchange.reason is _ALLOWED and grant is not None
    applied = None
    if answered and grant is not None:
        applied = _obligations(verdict.output if isinstance(verdict, Degraded) else grant.output, grant)
    seconds = exchange.upstream_seconds
    return Completion(
        event=exchange.event,
        reason=exchange.reason,
        status=exchange.status,
        applied=applied,
        answer_bytes=exchange.answer_bytes,
        upstream=None if grant is None else grant.upstream.name,
        upstream_replica=None if reply is None else reply.replica,
        upstream_status=None if reply is None else reply.status,
        upstream_ms=None if seconds is None else round(_finite(seconds) * 1e3, 3),
        upstream_error=None if answered or reply is None else _upstream_error(exchange, reply),
        given_back=exchange.given_back,
        settled_tokens=None if exchange.settled is None else exchange.settled.tokens,
        detail=inert(exchange.detail, MAX_DETAIL) if exchange.detail else None,
    )


def refused_message(
    incident: str, reason: Reason, status: int, detail: str, peer: Peer, policy: str, pseudonyms: Pseudonyms
) -> Decision:
    """Return the record of a message that the listener did not take: it has no method, no target and no span."""
    return Decision(
        event=incident,
        effect="deny",
        reason=reason,
        policy=policy,
        method="",
        source=_source(peer, pseudonyms),
        trace="",
        span="",
        status=status,
        detail=inert(detail, MAX_DETAIL) if detail else None,
    )


def _source(peer: Peer, pseudonyms: Pseudonyms) -> Source:
    return Source(
        address=pseudonyms.address(peer.address),
        tls=peer.tls_version,
        cipher=peer.tls_cipher,
        certificate=None if peer.certificate is None else peer.certificate.fingerprint,
    )


def _actor(principal: Principal, pseudonyms: Pseudonyms) -> Actor:
    return _known(
        pseudonyms,
        principal.issuer,
        principal.subject,
        principal.roles,
        principal.factors,
        principal.token_id,
        principal.key_id,
        principal.acr,
        principal.auth_time,
        principal.certificate is not None or principal.proof_key is not None,
        principal.client,
    )


@lru_cache(ACTORS)
def _known(
    pseudonyms: Pseudonyms,
    issuer: str,
    subject: str,
    roles: frozenset[str],
    factors: frozenset[str],
    token_id: str,
    key_id: str,
    acr: str | None,
    auth_time: int | None,
    bound: bool,
    client: str | None,
) -> Actor:
    """Return what all requests with one token have in common."""
    return Actor(
        subject=pseudonyms.subject(issuer, subject),
        issuer=inert(issuer),
        roles=inert_set(roles),
        factors=inert_set(factors),
        token=pseudonyms.token(issuer, token_id),
        key_id=inert(key_id),
        acr=inert_or_none(acr),
        auth_time=auth_time,
        bound=bound,
        client=inert_or_none(client),
    )


def _obligations(output: Output, grant: Grant) -> Obligations:
    return Obligations(
        output=output.name,
        decimals=output.decimals,
        top_k=output.top_k,
        label_only=output.label_only,
        mfa=grant.mfa,
        parameters=grant.terms,
    )


def spent(exchange: Exchange) -> Spent | None:
    """Return what the budget was asked for."""
    state = exchange.charge or exchange.exhausted
    if state is None:
        return None
    return Spent(
        budget=state.budget.name,
        requests=state.cost.requests,
        rows=state.cost.rows,
        tokens=state.cost.tokens,
        remaining=tuple([window.remaining for window in state.states]),
        revision=None if exchange.charge is None else exchange.charge.revision,
    )


def judged(exchange: Exchange) -> Judged | None:
    """Return what the detector said, and what a shadow would have done about it."""
    score, use = exchange.score, None if exchange.grant is None else exchange.grant.detector
    if score is None or use is None:
        return None
    return Judged(
        detector=use.name,
        digest=use.digest,
        mode=use.mode,
        p_value=_finite(score.p_value),
        alpha=_finite(score.alpha),
        statistic=_finite(score.statistic),
        threshold=_finite(score.threshold),
        row=int(score.row),
        verdict=_JUDGED_AS[use.mode is Mode.ENFORCE, use.on_suspicion] if score.suspicious else "pass",
        sequence=_sequence(exchange.finding, use.sequences),
        rows=score.rows,
    )


def _sequence(finding: SequenceFinding | None, use: SequenceUse | None) -> Sequence | None:
    if finding is None or use is None:
        return None
    return Sequence(
        pattern=finding.pattern,
        count=finding.count,
        limit=finding.limit,
        window=finding.window,
        row=finding.row,
        since=_finite(finding.since),
        verdict=_JUDGED_AS[use.mode is Mode.ENFORCE, use.rung(finding)],
        distance=None if finding.distance is None else round(_finite(finding.distance), 4),
    )


_JUDGED_AS: Mapping[tuple[bool, Suspicion], JudgedAs] = {  # by whether it is enforced
    (True, Suspicion.LABEL): "degrade",
    (True, Suspicion.STEP_UP): "step_up",
    (True, Suspicion.DELAY): "delay",
    (True, Suspicion.REFUSE): "refuse",
    (False, Suspicion.LABEL): "shadow_degrade",
    (False, Suspicion.STEP_UP): "shadow_step_up",
    (False, Suspicion.DELAY): "shadow_delay",
    (False, Suspicion.REFUSE): "shadow_refuse",
}


def _finite(number: float) -> float:
    """Return a number that JSON has; what is no number counts as the strangest."""
    number = float(number)
    return number if math.isfinite(number) else -_GREATEST if number < 0 else _GREATEST


def _upstream_error(exchange: Exchange, reply: Reply) -> UpstreamError:
    query = exchange.query
    given = () if query is None else (b"\n", query.body, query.behind)
    return skeleton(reply.body, reply.value(b"content-type"), b"".join((_spoken(exchange.call), *given)))


def _spoken(call: Call) -> bytes:
    """Return what a caller chose beside the body."""
    line = f"{call.method} {call.path}?{call.query}\n".encode("utf-8", "replace")
    return line + b"\n".join(value for _, value in call.headers)
