"""A request as an OCSF event: API Activity (class 6003) with the Security Control profile, OCSF 1.3 and later.

Decides which of our fields is which of OCSF's. Persons stay pseudonyms. What OCSF has no word for stands in `unmapped`,
by our names, so that nothing is lost and nothing pretends to be standard.
"""

from proxy import __version__
from proxy.audit.requests import Request
from proxy.record import Decision, Obligations

OCSF_VERSION = "1.3.0"  # the oldest that has all we use; later minor versions only add
CATEGORY, CLASS = 6, 6003  # Application Activity, API Activity
OTHER, UNKNOWN = 99, 0
INFORMATIONAL, LOW, MEDIUM = 1, 2, 3  # severity_id
SUCCESS, FAILURE = 1, 2  # status_id
ALLOWED, DENIED = 1, 2  # action_id
PASSED, BLOCKED = 1, 2  # disposition_id: Allowed, Blocked

_FIRST_FAULT = 500  # status


def as_ocsf(request: Request) -> dict[str, object]:
    """Return the event, ready to encode."""
    made, done = request.decision, request.completion
    allowed = made.effect == "allow"
    status = made.status if done is None else done.status
    reason = made.reason if done is None else done.reason
    activity = UNKNOWN if made.action is None else OTHER
    good = allowed and done is not None and done.reason == "allowed"
    severity = INFORMATIONAL if good else MEDIUM if status is not None and status >= _FIRST_FAULT else LOW
    start = request.decided.t_ns // 1_000_000  # OCSF times are milliseconds
    end = start if request.completed is None else request.completed.t_ns // 1_000_000
    return {
        "category_uid": CATEGORY,
        "class_uid": CLASS,
        "activity_id": activity,
        "activity_name": made.action or "Unknown",
        "type_uid": CLASS * 100 + activity,
        "severity_id": severity,
        "time": start,
        "start_time": start,
        "end_time": end,
        "duration": end - start,
        "status_id": SUCCESS if good else FAILURE,
        "status_code": "" if status is None else str(status),
        "status_detail": reason,
        "action_id": ALLOWED if allowed else DENIED,
        "disposition_id": PASSED if allowed else BLOCKED,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "hip", "vendor_name": "hardened-inference-proxy", "version": __version__},
            "profiles": ["security_control"],
            "uid": f"{request.decided.at.stream}#{request.decided.at.seq}",
            "correlation_uid": made.event,
            "sequence": request.decided.at.seq,
        },
        "api": {
            "operation": made.action or made.method or "unknown",
            "service": {"name": made.dialect or "unknown"},
            "request": {"uid": made.event},
            "response": {"code": status} if status is not None else {},
        },
        "actor": _actor(made),
        "src_endpoint": {"uid": made.source.address},
        "http_request": {"http_method": made.method, "length": made.input_bytes or 0},
        "http_response": {"code": status} if status is not None else {},
        "resources": [{"name": made.model, "type": "model", "version": made.version or ""}] if made.model else [],
        "policy": {"uid": made.policy, "name": made.rule or "", "is_applied": True},
        "unmapped": _unmapped(request),
    }


def _actor(made: Decision) -> dict[str, object]:
    if made.actor is None:
        return {"user": {"uid": "unknown", "type_id": UNKNOWN}}
    who = made.actor
    return {
        "user": {"uid": who.subject, "type_id": OTHER, "type": "pseudonym", "domain": who.issuer},
        "session": {"uid": who.token, "issuer": who.issuer, "is_mfa": len(who.factors) > 1},
    }


def _unmapped(request: Request) -> dict[str, object]:
    made, done = request.decision, request.completion
    members: dict[str, object] = {
        "hip.decision.hash": request.decided.at.hash,
        "hip.trace": made.trace,
        "hip.input_hash": made.input_hash,
        "hip.tls": made.source.tls,
    }
    if made.spent is not None:
        members |= {"hip.budget": made.spent.budget, "hip.budget.rows": made.spent.rows}
    if made.judged is not None:
        members |= {
            "hip.detector": made.judged.detector,
            "hip.detector.digest": made.judged.digest,
            "hip.detector.statistic": made.judged.statistic,
            "hip.detector.threshold": made.judged.threshold,
            "hip.detector.verdict": made.judged.verdict,
        }
    if done is not None:
        members |= {"hip.upstream": done.upstream, "hip.upstream_ms": done.upstream_ms, **_output(done.applied)}
    if request.completed is not None:
        members["hip.completion.hash"] = request.completed.at.hash
    return {name: value for name, value in members.items() if value is not None}


def _output(applied: Obligations | None) -> dict[str, object]:
    if applied is None:
        return {}
    return {
        "hip.output": applied.output,
        "hip.output.decimals": applied.decimals,
        "hip.output.top_k": applied.top_k,
        "hip.output.label_only": applied.label_only,
    }
