"""The difference in access between two policies, not in their text. Pure.

For every issuer, role, action and model that occurs in either, the ways in are compared. Those to whom and with which
the same happens are told together.

Not told: what only a caller with several roles would see, rules in shadow, what concerns a whole server (it follows
its models), and what lies in the files that a policy names.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from itertools import product

from proxy.exchange import Action, Issuer, Upstream
from proxy.identity.workload import Workload
from proxy.policy import wording
from proxy.policy.access import CLOSED, OTHERWISE, Access, Way, access, output_words
from proxy.policy.coarseness import Turn, turn
from proxy.policy.model import Model, Policy


class Kind(IntEnum):
    """How access changes. In this order it is told: what opens first."""

    OPENED = 0
    WAYS = 1
    MFA = 2
    CONDITIONS = 3
    FINER = 4
    DETECTOR = 5
    PARAMETERS = 6
    BUDGET = 7
    OTHER_OUTPUT = 8
    COARSER = 9
    CLOSED = 10


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One difference, in words; an empty side means: no access."""

    kind: Kind
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Whom and what a change is about: everyone of these with everything of those."""

    issuers: frozenset[str]
    roles: frozenset[str]
    actions: frozenset[str]
    models: frozenset[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """`access`: what changes for whom. `parties`: issuers, workloads, servers and models that changed."""

    access: tuple[tuple[Change, tuple[Cell, ...]], ...]
    parties: tuple[str, ...]


def difference(old: Policy, new: Policy) -> Difference:
    """Compare two policies."""
    both = (old, new)
    named = {role for policy in both for rule in policy.rules for role in rule.scope.roles or ()}
    issuers = _alike(
        {i for p in both for i in p.factors}, lambda i: [(p.factors.get(i), _axis(p, "issuers", i)) for p in both]
    )
    roles = _alike({OTHERWISE, *named}, lambda role: [_axis(p, "roles", role) for p in both])
    actions = _alike({str(action) for action in Action}, lambda action: [_axis(p, "actions", action) for p in both])
    models = _alike({m for p in both for m in p.models}, lambda m: [_model(p, m) for p in both])
    found: dict[Change, list[Cell]] = defaultdict(list)
    for cell in (Cell(*sets) for sets in product(issuers, roles, actions, models)):
        one = (min(cell.issuers), min(cell.roles), min(cell.actions), min(cell.models))
        for change in _changes(access(old, *one), access(new, *one)):
            found[change].append(cell)
    told = tuple((change, tuple(_joined(cells))) for change, cells in sorted(found.items()))
    return Difference(told, tuple(_parties(old, new)))


# ── whom the same happens to ────────────────────────────────────────────────────────────────────────────────────


def _alike(names: Iterable[str], sign: Callable[[str], Iterable[object]]) -> list[frozenset[str]]:
    """Return the names in groups that no rule of either policy tells apart."""
    groups: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for name in names:
        groups[tuple(sign(name))].add(name)
    return [frozenset(group) for group in groups.values()]


def _axis(policy: Policy, axis: str, name: str) -> tuple[int, int]:
    return getattr(policy.denies, axis).holding(name), getattr(policy.allows, axis).holding(name)


def _model(policy: Policy, name: str) -> tuple[str, tuple[int, int]] | None:
    model = policy.models.get(name)
    return None if model is None else (model.upstream.dialect, _axis(policy, "models", name))


def _joined(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Join cells that differ in one thing only, until none do."""
    left = list(cells)
    for part in (field.name for field in fields(Cell)):
        joined: dict[Cell, set[str]] = defaultdict(set)
        for cell in left:
            joined[replace(cell, **{part: frozenset()})] |= getattr(cell, part)
        left = [replace(cell, **{part: frozenset(names)}) for cell, names in joined.items()]
    yield from sorted(left, key=lambda cell: [sorted(getattr(cell, field.name)) for field in fields(Cell)])


# ── what happens ────────────────────────────────────────────────────────────────────────────────────────────────


_TURNS: Mapping[Turn, Kind] = {
    Turn.FINER: Kind.FINER,
    Turn.COARSER: Kind.COARSER,
    Turn.OTHER: Kind.OTHER_OUTPUT,
}
_ASPECTS: Mapping[str, Kind] = {
    "when": Kind.CONDITIONS,
    "mfa": Kind.MFA,
    "detector": Kind.DETECTOR,
    "parameters": Kind.PARAMETERS,
    "budget": Kind.BUDGET,
}
_NONE: Mapping[str, str] = {"when": "whenever", "detector": "no detector", "parameters": "those that are always safe"}


def _changes(before: Access, after: Access) -> Iterator[Change]:
    if before == after:
        return
    if before == CLOSED or after == CLOSED:
        yield Change(Kind.OPENED if before == CLOSED else Kind.CLOSED, _all(before), _all(after))
        return
    if before.unless != after.unless:
        yield Change(Kind.CONDITIONS, _unless(before), _unless(after))
    if len(before.ways) != len(after.ways):
        yield Change(Kind.WAYS, _ways(before), _ways(after))
        return
    yield from {change for pair in zip(before.ways, after.ways, strict=True) for change in _turned(*pair)}


def _turned(before: Way, after: Way) -> Iterator[Change]:
    kind = turn(before.output, after.output)
    if kind is not Turn.SAME:
        yield Change(_TURNS[kind], output_words(before.output), output_words(after.output))
    for aspect, change in _ASPECTS.items():
        was, becomes = getattr(before, aspect), getattr(after, aspect)
        if was != becomes:
            none = _NONE.get(aspect, "")
            yield Change(change, was or none, becomes or none)


def _all(side: Access) -> str:
    return "" if side == CLOSED else _ways(side) + (f", {_unless(side)}" if side.unless else "")


def _ways(side: Access) -> str:
    return ", else ".join(map(str, side.ways))


def _unless(side: Access) -> str:
    return f"unless {' or '.join(side.unless)}" if side.unless else "no exceptions"


# ── the parties ─────────────────────────────────────────────────────────────────────────────────────────────────


def _parties(old: Policy, new: Policy) -> Iterator[str]:
    """Yield what changed in those who are believed and asked, field by field."""
    yield from _compared("issuer", _issuers(old), _issuers(new))
    yield from _compared("workload", _workloads(old), _workloads(new))
    yield from _compared("upstream", old.upstreams, new.upstreams)
    for name in sorted(old.models.keys() & new.models.keys()):
        was, becomes = old.models[name].upstream.name, new.models[name].upstream.name
        if was != becomes:
            yield f"model {name}: upstream: {was} → {becomes}"
    for name in sorted(old.models.keys() | new.models.keys()):
        kept, kept_now = (_kept(policy.models.get(name)) for policy in (old, new))
        if kept != kept_now:
            yield f"model {name}: inputs: {kept} → {kept_now}"


def _kept(model: Model | None) -> str:
    return "none are kept" if model is None or model.recorded is None else wording.recorded(model.recorded)


def _issuers(policy: Policy) -> Mapping[str, Issuer]:
    return {one.name: one for one in policy.issuers.values()}


def _workloads(policy: Policy) -> Mapping[str, Workload]:
    return {one.name: one for names in (policy.workloads.by_uri, policy.workloads.by_dns) for one in names.values()}


def _compared(
    kind: str, old: Mapping[str, Issuer | Workload | Upstream], new: Mapping[str, Issuer | Workload | Upstream]
) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        was, becomes = old.get(name), new.get(name)
        if was is None or becomes is None:
            yield f"{kind} {name}: {'added' if was is None else 'removed'}"
            continue
        for part in (field.name for field in fields(was)):
            before, after = _shown(getattr(was, part)), _shown(getattr(becomes, part))
            if before != after:
                yield f"{kind} {name}: {part}: {before} → {after}"


def _shown(value: object) -> str:
    if isinstance(value, (frozenset, tuple)):
        return ", ".join(sorted(map(str, value))) or "none"
    return "none" if value is None else str(value)
