"""Why a decision came out as it did: the rule that decided, and what each other rule lacked, nearest first. Pure.

The decision is `proxy.policy.decide`'s own; here it is only told. A rule is the nearer, the fewer of its conditions
do not hold. What a request is (dialect, action, model) must be known already.

Not guaranteed: that the nearest rule is the one its author had in mind.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from proxy.exchange import Denial, Grant, Principal, Target, Upstream
from proxy.identity.mfa import weakness
from proxy.policy import wording
from proxy.policy.conditions import read_address, unmet
from proxy.policy.decide import authorize
from proxy.policy.model import AllowRule, Policy, Rule, Scope
from proxy.reasons import Reason

MAX_NEAREST = 10  # rules that are told beside the one that decided


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as a policy looks at it. `now` in UNIX seconds."""

    principal: Principal
    target: Target
    upstream: Upstream
    address: str
    now: float


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a rule did not decide. `key` is the rule's key, or `order` where another rule came first."""

    key: str
    asks: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.asks}" + (f"; here: {self.found}" if self.found else "")


@dataclass(frozen=True, slots=True)
class Other:
    """A rule that did not decide, and why."""

    rule: Rule
    lacks: tuple[Lack, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and its neighbourhood. `nearest` leaves out `further` rules."""

    decision: Grant | Denial
    deciding: Rule | None
    nearest: tuple[Other, ...]
    further: int
    floor: str  # what the floor did to the output, empty where there is nothing to say


def explain(policy: Policy, asked: Asked) -> Explanation:
    """Decide, and tell why."""
    principal, target, upstream = asked.principal, asked.target, asked.upstream
    decision = authorize(policy, principal, target, upstream, asked.address, now=asked.now)
    decided = isinstance(decision, Grant) or decision.reason is Reason.DENIED_BY_RULE
    deciding = next((rule for rule in policy.rules if decided and rule.id == decision.rule), None)
    others = [
        Other(rule, (*lacks, *_outcome(policy, rule, asked, deciding, lacks)))
        for rule in policy.rules
        if rule is not deciding
        for lacks in [tuple(lacking(policy, rule.scope, asked, deny=not isinstance(rule, AllowRule)))]
    ]
    others.sort(key=_distance)  # stable: at the same distance, file order
    nearest = tuple(others[:MAX_NEAREST])
    return Explanation(decision, deciding, nearest, len(others) - len(nearest), _floor(policy, deciding))


def _distance(other: Other) -> int:
    """Count what a rule lacks. A sign-in is easier to mend than a role; a deny rule tells less."""
    missed = sum(lack.key not in {"mfa", "order", "shadow"} for lack in other.lacks)
    weak = any(lack.key == "mfa" for lack in other.lacks)
    return 2 * missed + (weak or (missed > 0 and not isinstance(other.rule, AllowRule)))


def lacking(policy: Policy, scope: Scope, asked: Asked, *, deny: bool) -> Iterator[Lack]:
    """Yield the conditions of a rule that do not hold; none: the rule is about the request."""
    principal, target = asked.principal, asked.target
    wanted = wording.conditions(scope)
    if scope.roles is not None and scope.roles.isdisjoint(principal.roles):
        yield Lack("roles", wanted["roles"], wording.listed(principal.roles) or "none")
    if scope.issuers is not None and principal.issuer not in scope.issuers:
        yield Lack("issuers", wanted["issuers"], principal.issuer)
    if scope.clients is not None and principal.client not in scope.clients:
        yield Lack("clients", wanted["clients"], principal.client or "none")
    if target.action not in scope.actions:
        yield Lack("actions", wanted["actions"], target.action)
    if scope.models.isdisjoint(_models(policy, asked)):
        yield Lack("models", wanted["models"], target.model or f"the server {asked.upstream.name}")
    address = read_address(asked.address)
    for key in unmet(scope, principal, address, asked.now, unknown=deny):
        yield Lack(key, wanted[key], _FOUND[key](scope, asked))


def _models(policy: Policy, asked: Asked) -> frozenset[str]:
    """Return the models that a request is about: what concerns a whole server concerns each of its models."""
    if asked.target.model is not None:
        return frozenset({asked.target.model})
    return frozenset(name for name, model in policy.models.items() if model.upstream.name == asked.upstream.name)


def _found_hours(scope: Scope, asked: Asked) -> str:
    zone = scope.hours[0].zone if scope.hours else UTC
    return datetime.fromtimestamp(asked.now, zone).strftime("%a %H:%M").lower()


def _found_claims(scope: Scope, asked: Asked) -> str:
    names = sorted({claim.path[0] for claim in scope.claims or ()} & asked.principal.claims.keys())
    return "; ".join(f"{name}: {asked.principal.claims[name]}" for name in names) or "not in the token"


_FOUND: Mapping[str, Callable[[Scope, Asked], str]] = MappingProxyType(
    {"networks": lambda _, asked: asked.address, "hours": _found_hours, "claims": _found_claims}
)


def _outcome(
    policy: Policy, rule: Rule, asked: Asked, deciding: Rule | None, lacks: tuple[Lack, ...]
) -> Iterator[Lack]:
    """Yield why a rule about the request did not decide it, or would not even if it were about it."""
    if rule.shadow:
        yield Lack("shadow", "it is in shadow and only recorded")
    if not isinstance(rule, AllowRule):
        if not lacks and not rule.shadow:
            yield Lack("order", "another deny rule comes before it")
        return
    issuer = policy.factors.get(asked.principal.issuer)
    if issuer is not None and rule.mfa is not None and weakness(asked.principal, issuer, rule.mfa, now=asked.now):
        yield Lack("mfa", wording.terms(rule.mfa, issuer), wording.authentication(asked.principal, asked.now))
    elif not lacks and not rule.shadow and deciding is not None:
        yield Lack("order", f"{deciding.id} comes before it" if isinstance(deciding, AllowRule) else "a deny rule wins")


def _floor(policy: Policy, deciding: Rule | None) -> str:
    if not isinstance(deciding, AllowRule) or policy.floor is None:
        return ""
    told = []
    written, held = policy.outputs[deciding.output.name], deciding.output
    if (written.decimals, written.top_k, written.label_only) != (held.decimals, held.top_k, held.label_only):
        was = ", ".join(wording.output(written))
        told.append(f"output {written.name} says {was}: the floor at {policy.floor.place} makes it coarser")
    if deciding.lowered:
        told.append(f"the floor at {policy.floor.place} is stricter about {wording.listed(deciding.lowered)}")
    return "; ".join(told) or f"the floor at {policy.floor.place} changes nothing"
