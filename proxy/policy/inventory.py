"""What a policy says about each model: who answers for it, what it was made from, and who reaches it how. Pure.

Decides nothing. What a card leaves open is a finding of a profile that asks for it; what stands in a card is its
author's word, and nobody checks that it is true. Exposure is each rule about the model, in file order: what they mean
together for one caller is `hip explain`'s to say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from proxy.exchange import Action, Mode
from proxy.policy import wording
from proxy.policy.model import AllowRule, Card, Model, Policy, Rule

CARD = ("owner", "purpose", "classification", "processors", "datasheet", "lineage")  # the fields of `Card`


class Profile(StrEnum):
    """How much must be said of a model."""

    NONE = "none"
    BASIC = "basic"
    FULL = "full"  # and a model that is open to callers has a golden probe and detectors that act


_ASKED: Mapping[Profile, tuple[str, ...]] = {
    Profile.NONE: (),
    Profile.BASIC: ("owner", "classification"),
    Profile.FULL: CARD,
}


_INPUTS = frozenset({Action.INFER, Action.STREAM})


@dataclass(frozen=True, slots=True)
class Exposure:
    """One rule about a model, in words."""

    rule: str
    place: str  # file:line
    effect: str  # allow, deny; in shadow
    who: str
    actions: str
    under: tuple[str, ...]  # what is asked, and how exactly the answer speaks


@dataclass(frozen=True, slots=True)
class Item:
    """A model."""

    name: str
    upstream: str
    servers: tuple[str, ...]  # their addresses
    dialect: str
    served_as: str | None
    labels: Mapping[str, str]
    card: Card
    exposure: tuple[Exposure, ...]
    detectors: tuple[str, ...]
    enforced: bool  # every rule that lets inputs in has a detector that acts
    probes: tuple[str, ...]
    recorded: str  # what is kept of its inputs, in words; empty: nothing

    @property
    def open(self) -> bool:
        """Say whether a rule lets anybody in."""
        return any(one.effect == "allow" for one in self.exposure)


def items(policy: Policy) -> tuple[Item, ...]:
    """Return every model, by name."""
    return tuple(_item(policy, policy.models[name]) for name in sorted(policy.models))


def missing(item: Item, profile: Profile) -> Iterator[str]:
    """Yield what a profile asks for and the policy does not say, in words."""
    for field in _ASKED[profile]:
        if getattr(item.card, field) in (None, {}):
            yield f"`card.{field}` is not said"
    if profile is Profile.FULL and item.open:
        if not item.probes:
            yield "no golden probe: nobody would see that it was replaced"
        if not item.enforced:
            yield "a rule lets inputs in that no detector judges"


def _item(policy: Policy, model: Model) -> Item:
    rules = [rule for rule in policy.rules if model.name in rule.scope.models]
    allows = [rule for rule in rules if isinstance(rule, AllowRule) and not rule.shadow]
    letting_in = [rule for rule in allows if rule.scope.actions & _INPUTS]
    servers = model.upstream.replicas or (model.upstream,)
    return Item(
        name=model.name,
        upstream=model.upstream.name,
        servers=tuple(map(str, servers)),
        dialect=model.upstream.dialect,
        served_as=model.served_as,
        labels=model.labels,
        card=model.card,
        exposure=tuple(map(_exposure, rules)),
        detectors=tuple(sorted({rule.detector.name for rule in allows if rule.detector})),
        enforced=all(rule.detector is not None and rule.detector.mode is Mode.ENFORCE for rule in letting_in),
        probes=tuple(probe.name for probe in policy.probes if probe.model == model.name),
        recorded=wording.recorded(model.recorded) if model.recorded else "",
    )


def _exposure(rule: Rule) -> Exposure:
    said = dict(wording.conditions(rule.scope))
    actions = said.pop("actions")
    del said["models"]
    who = [said.pop("roles"), *(f"{key} {words}" for key, words in said.items())]
    allowed = isinstance(rule, AllowRule)
    effect = ("allow" if allowed else "deny") + (", in shadow" if rule.shadow else "")
    under = tuple(wording.obligations(rule)) if isinstance(rule, AllowRule) else ()
    return Exposure(rule.id, rule.place, effect, "; ".join(who), actions, under)
