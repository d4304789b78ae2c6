"""The story of one request, step by step, as text and as JSON. The numbers are those of docs/request-path.md. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.exchange import Action, DetectorUse, Grant, Mode, Principal, Target, Upstream
from proxy.policy import wording
from proxy.policy.explanation import Explanation, Other
from proxy.policy.model import AllowRule, Policy
from proxy.reasons import Reason

INPUTS = frozenset({Action.INFER, Action.STREAM})  # the actions that have some
STEPS = {1: "classify", 2: "authenticate", 3: "authorize", 4: "charge", 5: "inspect", 6: "forward", 7: "harden"}


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the one way does about the request."""

    number: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """What becomes of a request. `notes` say what the story does not know."""

    allowed: bool
    reason: str
    rule: str | None
    policy: str  # digest
    steps: tuple[Step, ...]
    nearest: tuple[Other, ...] = ()
    further: int = 0
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it for people."""
        lines = []
        for step in self.steps:
            first, *rest = step.lines
            lines.append(f"{step.number} {STEPS[step.number]:<13} {first}")
            lines += [f"{'':<16}{line}" for line in rest]
        if self.nearest:
            lines += ["", "The other rules, nearest first:"]
            lines += [line for other in self.nearest for line in _other(other)]
            lines += [f"    … and {self.further} more"] if self.further else []
        lines += ["", *(f"Note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join([*lines, "", f"{'ALLOW' if self.allowed else 'DENY'}: {self._verdict()}"])

    def _verdict(self) -> str:
        return self.reason if self.rule is None else f"{self.reason} ({self.rule})"

    def as_json(self) -> Mapping[str, object]:
        """Return it for programs."""
        return {
            "effect": "allow" if self.allowed else "deny",
            "reason": self.reason,
            "rule": self.rule,
            "policy": self.policy,
            "steps": [
                {"number": step.number, "name": STEPS[step.number], "lines": list(step.lines)} for step in self.steps
            ],
            "nearest": [
                {
                    "rule": other.rule.id,
                    "place": other.rule.place,
                    "effect": "allow" if isinstance(other.rule, AllowRule) else "deny",
                    "lacks": [{"key": lack.key, "asks": lack.asks, "found": lack.found} for lack in other.lacks],
                }
                for other in self.nearest
            ],
            "further": self.further,
            "notes": list(self.notes),
        }


def _other(other: Other) -> list[str]:
    effect = "allow" if isinstance(other.rule, AllowRule) else "deny"
    return [f"    {other.rule.id} ({effect}, {other.rule.place})", *(f"        {lack}" for lack in other.lacks)]


def classified(dialect: str, target: Target, upstream: Upstream) -> Step:
    """Tell what the request is."""
    what = "the whole server" if target.model is None else target.model
    return Step(1, (f"{dialect}: {target.action} on {what}, served by upstream {upstream.name}",))


def authenticated(principal: Principal, now: float, *, believed: str) -> Step:
    """Tell who asks. `believed` says why that is believed, or that it is not."""
    of = f"{principal.subject} of {principal.issuer}" + (f", by {principal.client}" if principal.client else "")
    roles = wording.listed(principal.roles) or "none"
    return Step(2, (of, f"roles: {roles}", f"authentication: {wording.authentication(principal, now)}", believed))


def told(policy: Policy, before: tuple[Step, ...], why: Explanation, notes: tuple[str, ...] = ()) -> Story:
    """Tell the rest of the way after a decision."""
    decision, deciding = why.decision, why.deciding
    if isinstance(decision, Grant) and isinstance(deciding, AllowRule):
        steps = _granted(policy, decision, deciding, why.floor)
        reason: str = Reason.ALLOWED
    else:
        steps, reason = (_denied(policy, why),), getattr(decision, "reason", Reason.NO_RULE)
    shadow = tuple(f"{rule} is in shadow, and would have decided otherwise" for rule in decision.shadow)
    return Story(
        allowed=isinstance(decision, Grant),
        reason=reason,
        rule=decision.rule,
        policy=policy.digest,
        steps=(*before, *steps),
        nearest=why.nearest,
        further=why.further,
        notes=(*notes, *shadow),
    )


def _denied(policy: Policy, why: Explanation) -> Step:
    decision = why.decision
    if isinstance(decision, Grant) or decision.rule is None:
        scope = None if isinstance(decision, Grant) else decision.scope
        told_scope = (f"the caller is told to ask for the scope {scope} (RFC 6750)",) if scope else ()
        return Step(3, ("no rule allows it", *told_scope))
    place = next(rule.place for rule in policy.rules if rule.id == decision.rule)
    if decision.challenge is None:
        return Step(3, (f"denied by {decision.rule} ({place}): a deny rule wins, wherever it stands",))
    asks = [f"context {' or '.join(decision.challenge.acr_values)}"] if decision.challenge.acr_values else []
    age = decision.challenge.max_age
    asks += [f"signed in at most {wording.duration(age)} ago"] if age is not None else []
    return Step(
        3,
        (
            f"{decision.reason}: {decision.rule} ({place}) would allow it after a stronger or fresher sign-in",
            f"the caller is challenged: {', '.join(asks) or 'more factors'} (RFC 9470)",
        ),
    )


def _granted(policy: Policy, grant: Grant, rule: AllowRule, floor: str) -> tuple[Step, ...]:
    asked = wording.terms(rule.mfa, policy.factors[grant.principal.issuer])
    hardened = ", ".join(wording.output(grant.output)) or "as the server says it"
    beside = [f"beside the input: {', '.join(grant.terms)}"] if grant.terms else []
    return (
        Step(3, (f"allowed by {rule.id} ({rule.place})", f"authentication asked: {asked}", *beside)),
        Step(4, (f"budget {grant.budget.name}: {wording.budget(grant.budget)}",)),
        Step(5, (_inspected(grant.detector),)),
        Step(6, (_forwarded(grant.upstream), *_recorded(policy, grant.target))),
        Step(7, (f"output {grant.output.name}: {hardened}", *([floor] if floor else []))),
    )


def _forwarded(upstream: Upstream) -> str:
    if not upstream.replicas:
        return f"to {upstream.scheme}://{upstream.host}:{upstream.port}"
    return f"to the replica with the fewest requests: {', '.join(map(str, upstream.replicas))}"


def _recorded(policy: Policy, target: Target) -> tuple[str, ...]:
    model = policy.models.get(target.model or "")
    if model is None or model.recorded is None or target.action not in INPUTS:
        return ()
    return (f"INPUTS: {wording.recorded(model.recorded)}",)


def _inspected(use: DetectorUse | None) -> str:
    if use is None:
        return "no detector"
    on = f"; a suspicious input: {use.on_suspicion}" if use.mode is Mode.ENFORCE else ""
    return wording.detector(use) + on
