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
from ipaddress import IPv4Address, IPv6Address, ip_address

from proxy.exchange import Denial, Grant, Principal, Target, Upstream
from proxy.identity.mfa import challenge, weakness
from proxy.policy.model import Policy, R, RuleIndex
from proxy.reasons import Reason

Address = IPv4Address | IPv6Address


def authorize(
    policy: Policy, principal: Principal, target: Target, upstream: Upstream, peer_address: str, *, now: float
) -> Grant | Denial:
    """Decide. Only what a rule allows is allowed."""
    factors = policy.factors.get(principal.issuer)
    if factors is None:  # the issuer left the policy between two steps
        return Denial(Reason.NO_RULE)

    shadow: list[str] = []
    for deny in _about(policy.denies, principal, target, upstream, peer_address, unknown=True):
        if not deny.shadow:
            return Denial(Reason.DENIED_BY_RULE, deny.id)
        shadow.append(deny.id)

    would_allow: list[str] = []
    nearest: Denial | None = None
    for rule in _about(policy.allows, principal, target, upstream, peer_address, unknown=False):
        weak = weakness(principal, factors, rule.mfa, now=now) if rule.mfa is not None else None
        if weak is None and not rule.shadow:
            return Grant(
                rule=rule.id,
                principal=principal,
                target=target,
                upstream=upstream,
                budget=rule.budget,
                output=rule.output,
                detector=rule.detector,
                mfa=rule.mfa is not None,
                policy=policy.digest,
                shadow=(*shadow, *would_allow),
            )
        if weak is None:
            would_allow.append(rule.id)
        elif nearest is None and not rule.shadow and rule.mfa is not None:
            nearest = Denial(weak, rule.id, challenge(factors, rule.mfa))
    if nearest is None:
        return Denial(Reason.NO_RULE, shadow=tuple(would_allow))
    return Denial(nearest.reason, nearest.rule, nearest.challenge, tuple(would_allow))


def _about(
    index: RuleIndex[R], principal: Principal, target: Target, upstream: Upstream, peer_address: str, *, unknown: bool
) -> Iterator[R]:
    """Yield the rules about a request. `unknown` says whether a rule with networks is about an unreadable address."""
    about = index.about(principal, target, upstream)
    if not about & index.local:
        yield from index.each(about)
        return
    address = _address(peer_address)
    for rule in index.each(about):
        networks = rule.scope.networks
        if networks is None or (unknown if address is None else any(address in network for network in networks)):
            yield rule


def _address(text: str) -> Address | None:
    """Read an address; IPv4 inside IPv6 (RFC 4291 section 2.5.5.2) is IPv4, or a rule could be walked around."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
