"""Yesterday's request put to another policy: what a decision record holds, and what it does not. Pure.

A record has no address (only its keyed hash) and no claims, so a rule that asks for them may or may not be about the
request. Where that would change the answer, the answer is `Untold`, with the rules that it hangs on; an old record
without a client is read the same way.

Not guaranteed: that a caller would behave the same under the other policy.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.audit.inert import CUT
from proxy.exchange import Action, Denial, Principal, Target, Upstream
from proxy.identity.mfa import weakness
from proxy.policy.conditions import unmet
from proxy.policy.model import AllowRule, Policy, R, RuleIndex
from proxy.reasons import Reason
from proxy.record import Actor, Decision


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request that was decided. `at` in UNIX seconds."""

    principal: Principal
    target: Target
    dialect: str
    at: float


@dataclass(frozen=True, slots=True)
class Untold:
    """The record does not hold what the answer hangs on. `rules`: those that ask for it."""

    why: str
    rules: tuple[str, ...] = ()


def recorded(event: Decision, at: float) -> Recorded | Untold:
    """Return what a record says of its request."""
    actor = event.actor
    if actor is None or event.action is None or event.dialect is None:
        return Untold(f"refused before anybody was known: {event.reason}")
    if CUT in actor.roles:
        return Untold("more roles than a record holds")
    try:
        action = Action(event.action)
    except ValueError:
        return Untold(f"an action that this version does not know: {event.action}")
    return Recorded(_principal(actor, at), Target(action, event.model, event.version), event.dialect, at)


def _principal(actor: Actor, at: float) -> Principal:
    return Principal(
        issuer=actor.issuer,
        subject=actor.subject,
        roles=frozenset(actor.roles),
        factors=frozenset(actor.factors),
        acr=actor.acr,
        auth_time=actor.auth_time,
        issued_at=int(at),
        expires_at=int(at) + 1,
        token_id=actor.token,
        token_digest=b"",
        key_id=actor.key_id,
        client=actor.client,
    )


def decide_again(policy: Policy, asked: Recorded) -> AllowRule | Denial | Untold:
    """Return the rule that would allow it, or why none would, as far as the record allows to tell."""
    principal, upstream = asked.principal, _upstream(policy, asked)
    if not isinstance(upstream, Upstream):
        return upstream
    factors = policy.factors.get(principal.issuer)
    if factors is None:
        return Denial(Reason.NO_RULE)
    doubts: list[str] = []
    for deny, sure in _about(policy.denies, asked, upstream):
        if sure and not deny.shadow:
            return Denial(Reason.DENIED_BY_RULE, deny.id)
        if not deny.shadow:
            doubts.append(deny.id)
    nearest: Denial | None = None
    perhaps: list[str] = []
    for rule, sure in _about(policy.allows, asked, upstream):
        if rule.shadow:
            continue
        weak = weakness(principal, factors, rule.mfa, now=asked.at) if rule.mfa is not None else None
        if weak is not None:
            nearest = nearest or (Denial(weak, rule.id) if sure else None)
        elif not sure:
            perhaps.append(rule.id)
        else:
            doubts += perhaps
            return _untold(doubts) if doubts else rule
    return _untold(doubts + perhaps) if perhaps else nearest or Denial(Reason.NO_RULE)


def _untold(rules: list[str]) -> Untold:
    return Untold("a record holds no address and no claims", tuple(rules))


def _upstream(policy: Policy, asked: Recorded) -> Upstream | Denial | Untold:
    """Return the server that would be asked; a model that the policy does not have is denied like any other."""
    name = asked.target.model
    if name is not None:
        model = policy.models.get(name)
        known = model is not None and model.upstream.dialect == asked.dialect
        return model.upstream if model is not None and known else Denial(Reason.UNKNOWN_MODEL)
    served = [upstream for upstream in policy.upstreams.values() if upstream.dialect == asked.dialect]
    if len(served) > 1:
        return Untold("a record of a whole server does not say which")
    return served[0] if served else Denial(Reason.UNKNOWN_ROUTE)


def _about(index: RuleIndex[R], asked: Recorded, upstream: Upstream) -> Iterator[tuple[R, bool]]:
    """Yield the rules that are, or may be, about a request, and whether that is sure."""
    principal = asked.principal
    for rule in index.each(index.near(principal, asked.target, upstream)):
        scope = rule.scope
        if "hours" in unmet(scope, principal, None, asked.at, unknown=True):
            continue
        if scope.clients is not None and principal.client is not None and principal.client not in scope.clients:
            continue
        sure = scope.networks is None and scope.claims is None
        yield rule, sure and (scope.clients is None or principal.client is not None)
