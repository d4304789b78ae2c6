"""Finds what a policy says in vain: rules that can never decide, and names that nobody uses.

A rule in vain is an error, because its author believes something that is not so. A name in vain is a warning: it is
useless, not dangerous. Only a single rule is seen to cover another; two that do so together are not found.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from proxy.errors import Finding
from proxy.exchange import Mfa
from proxy.policy.merging import Entry, Parts
from proxy.policy.model import AllowRule, DenyRule, Network, Rule, RuleIndex, Scope


def rules_in_vain(parts: Parts, denies: RuleIndex[DenyRule], allows: RuleIndex[AllowRule]) -> list[Finding]:
    """Return a finding for each allow rule that another rule leaves nothing to decide."""
    return [
        parts.rules[rule.id].finding(f"this rule never decides: `{other.id}` at {other.place} {why}", hint)
        for number, rule in enumerate(allows.rules)
        if not rule.shadow
        for other, why, hint in _first_cover(number, rule, denies, allows)
    ]


def _first_cover(
    number: int, rule: AllowRule, denies: RuleIndex[DenyRule], allows: RuleIndex[AllowRule]
) -> list[tuple[Rule, str, str]]:
    for deny in denies.each(denies.covering(rule.scope)):
        if not deny.shadow and _within(rule.scope, deny.scope):
            return [(deny, "denies all of it", "delete one of the two, or make the deny rule narrower")]
    earlier = (1 << number) - 1
    for allow in allows.each(allows.covering(rule.scope) & earlier):
        if not allow.shadow and _within(rule.scope, allow.scope) and _no_stricter(allow.mfa, rule.mfa):
            return [(allow, "comes first and allows all of it", "move this rule before it, or delete it")]
    return []


def _within(narrow: Scope, wide: Scope) -> bool:
    """Say whether the one's particular conditions imply the other's; the rest is the index's answer."""
    return _networks_within(narrow, wide) and _hours_within(narrow, wide) and _claims_within(narrow, wide)


def _networks_within(narrow: Scope, wide: Scope) -> bool:
    if wide.networks is None:
        return True
    return narrow.networks is not None and all(
        any(_inside(network, other) for other in wide.networks) for network in narrow.networks
    )


def _hours_within(narrow: Scope, wide: Scope) -> bool:
    """Compare hours as they are written: two that say the same in other words are not found."""
    if wide.hours is None:
        return True
    return narrow.hours is not None and set(narrow.hours) <= set(wide.hours)


def _claims_within(narrow: Scope, wide: Scope) -> bool:
    return all(
        any(claim.path == other.path and claim.values <= other.values for claim in narrow.claims or ())
        for other in wide.claims or ()
    )


def _inside(network: Network, other: Network) -> bool:
    return network.version == other.version and (
        network.network_address in other and network.prefixlen >= other.prefixlen
    )


def _no_stricter(first: Mfa | None, second: Mfa | None) -> bool:
    """Say whether whoever satisfies the second also satisfies the first."""
    return first is None or first == second


def names_in_vain(parts: Parts, rules: Iterable[Rule]) -> list[Finding]:
    """Return a warning for each name that is defined and not used."""
    allows = [rule for rule in rules if isinstance(rule, AllowRule)]
    upstreams = {entry.value.upstream for entry in parts.models.values()}
    found = [
        *_unused(parts.upstreams, "no model is on upstream", upstreams),
        *_unused(
            parts.models, "no rule allows anything on model", {name for rule in allows for name in rule.scope.models}
        ),
        *_unused(parts.budgets, "no rule uses budget", {rule.budget.name for rule in allows}),
        *_unused(parts.outputs, "no rule uses output", {rule.output.name for rule in allows}),
        *_unused(parts.parameters, "no rule uses parameters", {rule.asks for rule in allows if rule.asks}),
        *_unused(parts.detectors, "no rule uses detector", {rule.detector.name for rule in allows if rule.detector}),
    ]
    return [replace(finding, severity="warning") for finding in found]


def _unused(entries: Mapping[str, Entry[Any]], message: str, used: Collection[str]) -> list[Finding]:
    return [
        entry.finding(f"{message} `{name}`", "use it, or delete it")
        for name, entry in entries.items()
        if name not in used
    ]
