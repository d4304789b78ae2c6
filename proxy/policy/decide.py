"""3 authorize: may this principal do this? (In IAM's words, the policy decision point.) Pure.

1. A `deny` rule about the request: no.
2. The first `allow` rule about it, in file order, whose multi-factor terms hold: yes, with that rule's obligations.
3. An `allow` rule about it whose terms do not hold: no, with the challenge of the first of them.
4. Otherwise: no.

What concerns a whole server (its health, its metadata) concerns each of its models: an `allow` for one of them is
enough, and so is a `deny`. Rules in shadow decide nothing; those that would have changed the decision are named in it.

Not guaranteed: that the principal's roles are true. They are what its issuer says.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from proxy.exchange import Denial, Grant, Principal, Target, Upstream
from proxy.identity.claims import SCOPE, is_scope
from proxy.identity.mfa import challenge, weakness
from proxy.policy.conditions import read_address, unmet
from proxy.policy.model import AllowRule, Policy, R, RuleIndex
from proxy.reasons import Reason


def authorize(
    policy: Policy, principal: Principal, target: Target, upstream: Upstream, peer_address: str, *, now: float
) -> Grant | Denial:
    """Decide. Only what a rule allows is allowed."""
    factors = policy.factors.get(principal.issuer)
    if factors is None:  # the issuer left the policy between two steps
        return Denial(Reason.NO_RULE)

    shadow: list[str] = []
    for deny in _about(policy.denies, principal, target, upstream, peer_address, now, unknown=True):
        if not deny.shadow:
            return Denial(Reason.DENIED_BY_RULE, deny.id)
        shadow.append(deny.id)

    would_allow: list[str] = []
    nearest: Denial | None = None
    for rule in _about(policy.allows, principal, target, upstream, peer_address, now, unknown=False):
        weak = weakness(principal, factors, rule.mfa, now=now) if rule.mfa is not None else None
        if weak is None and not rule.shadow:
            return Grant(
                rule=rule.id,
                principal=principal,
                target=target if target.model is not None else _whole(policy, target, upstream, rule),
                upstream=upstream,
                budget=rule.budget,
                output=rule.output,
                detector=rule.detector,
                mfa=rule.mfa is not None,
                policy=policy.digest,
                shadow=(*shadow, *would_allow),
                parameters=rule.parameters[upstream.dialect],
                terms=rule.terms[upstream.dialect],
            )
        if weak is None:
            would_allow.append(rule.id)
        elif nearest is None and not rule.shadow and rule.mfa is not None:
            nearest = Denial(weak, rule.id, challenge(factors, rule.mfa))
    if nearest is None:
        scope = _scope(policy, principal, target, upstream, peer_address, now)
        return Denial(Reason.NO_RULE, shadow=tuple(would_allow), scope=scope)
    return Denial(nearest.reason, nearest.rule, nearest.challenge, tuple(would_allow))


def _scope(
    policy: Policy, principal: Principal, target: Target, upstream: Upstream, peer_address: str, now: float
) -> str | None:
    """Return what the caller's token lacks for the first rule that lacks nothing else: where its roles are scopes.

    A role of another claim is named to nobody: no client can ask for it.
    """
    if not any(one.name == principal.issuer and one.roles_claim == SCOPE for one in policy.issuers.values()):
        return None
    anyone = replace(principal, roles=frozenset(policy.allows.roles.named))
    for rule in _about(policy.allows, anyone, target, upstream, peer_address, now, unknown=False):
        scopes = sorted(filter(is_scope, rule.scope.roles or ()))
        if scopes and not rule.shadow:
            return scopes[0]  # one of them is enough
    return None


def _whole(policy: Policy, target: Target, upstream: Upstream, rule: AllowRule) -> Target:
    """Return a target that is a whole server, with those of its models that the rule is about."""
    models = sorted(name for name in rule.scope.models if policy.models[name].upstream == upstream)
    return replace(target, models=tuple(models))


def _about(
    index: RuleIndex[R],
    principal: Principal,
    target: Target,
    upstream: Upstream,
    peer_address: str,
    now: float,
    *,
    unknown: bool,
) -> Iterator[R]:
    """Yield the rules about a request. `unknown` says whether a rule is about what cannot be read."""
    if not index.rules:
        return
    about = index.about(principal, target, upstream)
    if not about & index.particular:
        yield from index.each(about)
        return
    address = read_address(peer_address)
    for rule in index.each(about):
        if not any(unmet(rule.scope, principal, address, now, unknown=unknown)):
            yield rule
