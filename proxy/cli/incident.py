"""A decision that was made, out of the journal: what was recorded, and what the policy at hand says of it today.

Shows, does not verify: `hip audit verify` says whether the journal is whole.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from proxy.cli.records import records
from proxy.exchange import Denial
from proxy.policy import wording
from proxy.policy.explanation import Asked, explain
from proxy.policy.model import AllowRule, Policy
from proxy.policy.recorded import Untold, decide_again, recorded
from proxy.policy.telling import Step, Story
from proxy.reasons import Reason
from proxy.record import Completion, Decision, Obligations

INCIDENT = "urn:hip:incident:"


def explain_event(policy: Policy, journal: Path, event: str) -> Story | None:
    """Tell the story of an event or incident id; None where no decision has it."""
    wanted = event.removeprefix(INCIDENT)
    decision: Decision | None = None
    completion: Completion | None = None
    at = 0.0
    for envelope, found in records(journal, wanted):
        if isinstance(found, Decision) and found.event == wanted:
            decision, at = found, envelope.t_ns / 1e9
        elif isinstance(found, Completion) and found.event == wanted:
            completion = found
    return None if decision is None else _story(policy, decision, completion, at)


def _story(policy: Policy, event: Decision, completion: Completion | None, at: float) -> Story:
    steps = tuple(_steps(event, completion))
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    same = event.policy == policy.digest
    notes = [f"this is on record since {when}, under policy {event.policy[:12]}"]
    if not same:
        notes.append(f"the policy at hand is another one, {policy.digest[:12]}: what it says stands below")
    asked = recorded(event, at)
    again = asked if isinstance(asked, Untold) else decide_again(policy, asked)
    notes.append(f"by the policy at hand: {_today(again)}")
    story = Story(event.effect == "allow", event.reason, event.rule, event.policy, steps, notes=tuple(notes))
    model = policy.models.get(event.model or "")
    if isinstance(asked, Untold) or isinstance(again, Untold) or model is None:
        return story
    why = explain(policy, Asked(asked.principal, asked.target, model.upstream, "not on record", at))
    return Story(
        story.allowed, story.reason, story.rule, story.policy, steps, why.nearest, why.further, notes=story.notes
    )


def _today(again: AllowRule | Denial | Untold) -> str:
    match again:
        case AllowRule():
            return f"allowed by {again.id} ({again.place}), {', '.join(wording.obligations(again))}"
        case Denial():
            return again.reason + (f" ({again.rule})" if again.rule else "")
        case Untold():
            hangs = f" (it hangs on {', '.join(again.rules)})" if again.rules else ""
            return f"cannot be told, {again.why}{hangs}"


def _steps(event: Decision, completion: Completion | None) -> Iterator[Step]:
    what = event.model or "the whole server"
    yield Step(1, (f"{event.dialect}: {event.action} on {what}" if event.action else f"refused: {event.reason}",))
    if event.actor is None:
        return
    actor = event.actor
    by = f", by {actor.client}" if actor.client else ""
    yield Step(
        2,
        (
            f"{actor.subject} of {actor.issuer}{by} (a pseudonym)",
            f"roles: {', '.join(actor.roles) or 'none'}",
            f"authentication: {', '.join(actor.factors) or 'no `amr`'}"
            + (f", context {actor.acr}" if actor.acr else ""),
        ),
    )
    granted = event.obligations is not None
    yield Step(3, (f"allowed by {event.rule}" if granted else f"{event.reason}" + _by(event.rule),))
    if event.spent is not None:
        spent = event.spent
        cost = f"{spent.requests} requests, {spent.rows} rows, {spent.tokens} tokens"
        left = ", ".join(map(str, spent.remaining))
        yield Step(4, (f"budget {spent.budget}: {cost}; then left: {left}",))
    if event.judged is not None:
        judged = event.judged
        yield Step(5, (f"detector {judged.detector} ({judged.mode}): {judged.verdict}, p {judged.p_value:.4g}",))
    if granted and event.effect == "deny":
        yield _refused(event)
    if completion is not None:
        yield Step(6, _asked(completion))
        if completion.given_back:
            yield Step(6, ("nothing was sent: the charge was given back",))
        if completion.settled_tokens is not None:
            yield Step(6, (f"settled: {completion.settled_tokens} tokens",))
        if completion.applied is not None:
            yield Step(7, (_applied(completion.applied),))


def _asked(completion: Completion) -> tuple[str, ...]:
    """Tell what came of asking the upstream, and why that was not the end of it."""
    took = "" if completion.upstream_ms is None else f" in {completion.upstream_ms:.0f} ms"
    at = "" if completion.upstream_replica is None else f" at {completion.upstream_replica}"
    said = completion.upstream_status or "no answer"
    first = f"upstream {completion.upstream}{at}: {said}{took}; answer {completion.status}"
    if completion.reason == Reason.ALLOWED:
        return (first,)
    return first, f"ended: {completion.reason}" + (f": {completion.detail}" if completion.detail else "")


def _refused(event: Decision) -> Step:
    """Tell which step refused what a rule had allowed."""
    if event.spent is None:
        return Step(4, (f"refused before anything was charged: {event.reason}",))
    return Step(4 if event.reason in _SPENT else 5, (f"refused: {event.reason}",))


_SPENT = frozenset({Reason.BUDGET_EXHAUSTED, Reason.COST_ABOVE_LIMIT})


def _by(rule: str | None) -> str:
    return f": {rule} was the nearest rule" if rule else ""


def _applied(applied: Obligations) -> str:
    profile = [f"{applied.decimals} decimals"] if applied.decimals is not None else []
    profile += [f"top {applied.top_k}"] if applied.top_k is not None else []
    profile += ["label only"] if applied.label_only else []
    return f"output {applied.output}: {', '.join(profile) or 'as the server says it'}"
