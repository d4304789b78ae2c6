"""The compiled policy: immutable, with every name resolved and every rule indexed. `proxy.policy.compile` makes it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from ipaddress import IPv4Network, IPv6Network
from operator import and_
from types import MappingProxyType
from typing import Generic, TypeVar

from proxy.detection.golden import Tolerance
from proxy.errors import Finding
from proxy.exchange import Action, Budget, DetectorUse, Issuer, Mfa, Output, Parameters, Principal, Target, Upstream
from proxy.identity.workload import Workloads
from proxy.policy.facts import ClaimIs
from proxy.policy.hours import Hours

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Card:
    """What a review asks about a model, in its author's words; None and empty: not said."""

    owner: str | None = None
    purpose: str | None = None
    classification: str | None = None
    processors: tuple[str, ...] | None = None  # empty: said that there are none
    datasheet: str | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)  # what it was made from -> its SHA-256, hexadecimal


NO_CARD = Card()


@dataclass(frozen=True, slots=True)
class Recorded:
    """That a thinned sample of a model's inputs is kept, for whom, and how long."""

    encrypt_to: bytes  # a public key, PEM
    recipient: str  # the first 16 hexadecimal digits of the SHA-256 of that key, as in a sealed file
    rows_per_minute: int
    keep: int  # seconds


@dataclass(frozen=True, slots=True)
class Model:
    """A model that callers may ask for."""

    name: str
    upstream: Upstream
    labels: Mapping[str, str]
    served_as: str | None = None  # the server's own name for it, where that is another
    card: Card = NO_CARD
    recorded: Recorded | None = None  # None: no input is kept


@dataclass(frozen=True, slots=True)
class DetectorFile:
    """A detector that has to be loaded before the policy may serve. `sha256` in hexadecimal."""

    name: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class FloorTerms:
    """What no rule may go below: an output that none is finer than, parameters. `place` is file:line."""

    output: Output | None
    place: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Golden inputs of a model. `sha256` in hexadecimal, `every` in seconds."""

    name: str
    model: str
    upstream: Upstream
    file: str
    sha256: str
    every: float
    tolerance: Tolerance
    quarantine: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests a rule is about. None: the rule does not ask."""

    roles: frozenset[str] | None
    issuers: frozenset[str] | None
    clients: frozenset[str] | None
    actions: frozenset[Action]
    models: frozenset[str]
    networks: tuple[Network, ...] | None
    hours: tuple[Hours, ...] | None
    claims: tuple[ClaimIs, ...] | None

    @property
    def particular(self) -> bool:
        """Say whether the rule asks something that no index answers."""
        return not (self.networks is None and self.hours is None and self.claims is None)


@dataclass(frozen=True, slots=True)
class DenyRule:
    """No, whatever other rules say. `place` is file:line."""

    id: str
    place: str
    scope: Scope
    shadow: bool


@dataclass(frozen=True, slots=True)
class AllowRule:
    """Yes, under conditions. `mfa` None: the rule says in words that it needs none. `place` is file:line."""

    id: str
    place: str
    scope: Scope
    shadow: bool
    mfa: Mfa | None
    budget: Budget
    output: Output
    detector: DetectorUse | None
    asks: str | None  # the name of its `parameters`
    parameters: Mapping[str, Parameters]  # by dialect: those terms over the dialect's own, held to the floor
    terms: Mapping[str, tuple[str, ...]]  # the same in words; empty where they are the dialect's own
    lowered: frozenset[str]  # parameters that the floor made stricter


Rule = AllowRule | DenyRule
R = TypeVar("R", AllowRule, DenyRule)


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that rules may ask about. A set of rules is an integer, bit n is rule n: they stay in file order."""

    named: Mapping[str, int]  # a value -> the rules that hold for it
    otherwise: int  # the rules that hold for every other value

    @classmethod
    def of(cls, asked: Iterable[frozenset[str] | None]) -> "Axis":
        """Index what each rule asks, in order; None: it does not ask."""
        named: dict[str, int] = {}
        otherwise = 0
        for number, values in enumerate(asked):
            for value in values or ():
                named[value] = named.get(value, 0) | 1 << number
            if values is None:
                otherwise |= 1 << number
        return cls(MappingProxyType({value: rules | otherwise for value, rules in named.items()}), otherwise)

    def holding(self, value: str | None) -> int:
        """Return the rules that hold for a value; None: there is no value."""
        return self.otherwise if value is None else self.named.get(value, self.otherwise)

    def holding_any(self, values: Iterable[str]) -> int:
        """Return the rules that hold for one of several values."""
        rules = self.otherwise
        for value in values:
            rules |= self.named.get(value, 0)
        return rules

    def holding_all(self, values: Iterable[str] | None) -> int:
        """Return the rules that hold for every one of the values; None: for whatever value."""
        if values is None:
            return self.otherwise
        return reduce(and_, (self.named.get(value, self.otherwise) for value in values))


@dataclass(frozen=True, slots=True)
class RuleIndex(Generic[R]):
    """Finds the rules about a request without looking at the others."""

    rules: tuple[R, ...]
    particular: int  # the rules that ask something that no index answers: `proxy.policy.conditions`
    roles: Axis
    issuers: Axis
    clients: Axis
    actions: Axis
    models: Axis
    servers: Axis  # upstreams on which a rule has a model: what concerns a whole server concerns each of its models

    @classmethod
    def of(cls, rules: tuple[R, ...], models: Mapping[str, Model]) -> "RuleIndex[R]":
        """Index the rules."""
        scopes = [rule.scope for rule in rules]
        return cls(
            rules,
            particular=sum(1 << number for number, scope in enumerate(scopes) if scope.particular),
            roles=Axis.of(scope.roles for scope in scopes),
            issuers=Axis.of(scope.issuers for scope in scopes),
            clients=Axis.of(scope.clients for scope in scopes),
            actions=Axis.of(scope.actions for scope in scopes),
            models=Axis.of(scope.models for scope in scopes),
            servers=Axis.of(frozenset(models[name].upstream.name for name in scope.models) for scope in scopes),
        )

    def about(self, principal: Principal, target: Target, upstream: Upstream) -> int:
        """Return the rules about a request, particular conditions apart."""
        return self.near(principal, target, upstream) & self.clients.holding(principal.client)

    def near(self, principal: Principal, target: Target, upstream: Upstream) -> int:
        """Return the rules about a request by whatever client, particular conditions apart."""
        place = self.servers.holding(upstream.name) if target.model is None else self.models.holding(target.model)
        return (
            place
            & self.actions.holding(target.action)
            & self.issuers.holding(principal.issuer)
            & self.roles.holding_any(principal.roles)
        )

    def covering(self, scope: Scope) -> int:
        """Return the rules that are about everything a scope is about, particular conditions apart."""
        return (
            self.models.holding_all(scope.models)
            & self.actions.holding_all(scope.actions)
            & self.issuers.holding_all(scope.issuers)
            & self.clients.holding_all(scope.clients)
            & self.roles.holding_all(scope.roles)
        )

    def each(self, chosen: int) -> Iterator[R]:
        """Yield the chosen rules in file order."""
        while chosen:
            lowest = chosen & -chosen
            chosen ^= lowest
            yield self.rules[lowest.bit_length() - 1]


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that a policy directory decides."""

    digest: str  # SHA-256 over the files, hexadecimal
    issuers: Mapping[str, Issuer]  # by `iss`
    factors: Mapping[str, Mfa]  # by the issuer's name (`mtls` for workloads): what counts as multi-factor there
    workloads: Workloads
    upstreams: Mapping[str, Upstream]
    models: Mapping[str, Model]
    detectors: Mapping[str, DetectorFile]
    probes: tuple[Probe, ...]
    dialects: tuple[str, ...]  # in use
    outputs: Mapping[str, Output]  # as they are written: a rule's own is already held to the floor
    floor: FloorTerms | None
    rules: tuple[Rule, ...]  # in file order, files by name
    denies: RuleIndex[DenyRule]
    allows: RuleIndex[AllowRule]
    warnings: tuple[Finding, ...] = ()
