"""The ways in: what somebody with one role may do with one model, and what is then owed. Pure.

A policy's answer without a particular caller at hand: the ways stand in the order in which they are tried, each with
what it asks. A way behind one that asks no more is left out, since nobody takes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.exchange import DetectorUse, Output
from proxy.policy import wording
from proxy.policy.model import AllowRule, Policy, R, RuleIndex, Scope

OTHERWISE = ""  # stands for every role that no rule names; no role is empty


@dataclass(frozen=True, slots=True)
class Way:
    """One way in, in words: what reads the same is the same, whatever rule says it."""

    when: str  # clients, networks, hours, claims; empty: whenever
    mfa: str
    output: Output  # its name aside
    detector: str
    parameters: str
    budget: str

    def __str__(self) -> str:
        said = (self.when, self.mfa, output_words(self.output), self.detector, self.parameters, self.budget)
        return "; ".join(part for part in said if part)


@dataclass(frozen=True, slots=True)
class Access:
    """The ways in; none: no access. `unless`: when a deny rule stops all of them."""

    ways: tuple[Way, ...] = ()
    unless: tuple[str, ...] = ()


CLOSED = Access()


def access(policy: Policy, issuer: str, role: str, action: str, model: str) -> Access:
    """Return what a caller with one role may do."""
    if issuer not in policy.factors or model not in policy.models:
        return CLOSED
    unless: list[str] = []
    for deny in _about(policy.denies, issuer, role, action, model):
        when = _when(deny.scope)
        if not when:
            return CLOSED
        unless.append(when)
    ways = tuple(_ways(policy, issuer, _about(policy.allows, issuer, role, action, model), model))
    return Access(ways, tuple(sorted(unless))) if ways else CLOSED


def _about(index: "RuleIndex[R]", issuer: str, role: str, action: str, model: str) -> Iterator[R]:
    roles = [role] if role != OTHERWISE else []
    chosen = (
        index.models.holding(model)
        & index.actions.holding(action)
        & index.issuers.holding(issuer)
        & index.roles.holding_any(roles)
    )
    return (rule for rule in index.each(chosen) if not rule.shadow)


def _ways(policy: Policy, issuer: str, rules: Iterator[AllowRule], model: str) -> Iterator[Way]:
    asked: set[tuple[str, str]] = set()
    for rule in rules:
        way = _way(policy, issuer, rule, model)
        if {(way.when, way.mfa), ("", way.mfa), (way.when, wording.NO_MFA)} & asked:
            continue
        yield way
        asked.add((way.when, way.mfa))
        if (way.when, way.mfa) == ("", wording.NO_MFA):
            return


def _way(policy: Policy, issuer: str, rule: AllowRule, model: str) -> Way:
    output, dialect = rule.output, policy.models[model].upstream.dialect
    return Way(
        when=_when(rule.scope),
        mfa=wording.terms(rule.mfa, policy.factors[issuer]),
        output=Output("", output.decimals, output.top_k, output.label_only),
        detector="" if rule.detector is None else _judge(rule.detector),
        parameters=", ".join(rule.terms[dialect]),
        budget=wording.budget(rule.budget),
    )


def _judge(use: DetectorUse) -> str:
    """Return a detector with all that a caller may feel of it: another file judges otherwise."""
    words = [wording.detector(use), f"on suspicion {use.on_suspicion}", f"file {use.digest[:12]}"]
    if use.sequences is not None:
        near = "" if use.sequences.near else ", near rows mean nothing"
        words.append(f"sequences {use.sequences.mode} over {wording.duration(int(use.sequences.decay))}{near}")
        words += [f"{pattern}: {' then '.join(rungs)}" for pattern, rungs in sorted(use.sequences.rungs.items())]
    return ", ".join(words)


def _when(scope: Scope) -> str:
    words = wording.conditions(scope)
    return "; ".join(f"{key}: {words[key]}" for key in ("clients", "networks", "hours", "claims") if key in words)


def output_words(output: Output) -> str:
    """Return how exactly an answer may speak."""
    return ", ".join(wording.output(output)) or "every digit and class"
