"""Builds the rules of a policy: every name in them resolved, every condition complete."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import TypeVar

from proxy.dialects import Dialect
from proxy.documents import Path, suggestion
from proxy.errors import Finding
from proxy.exchange import MANAGEMENT, Action, Budget, DetectorUse, Mfa, Mode, Output, Suspicion
from proxy.policy.facts import claim_is
from proxy.policy.merging import Entry
from proxy.policy.model import AllowRule, DenyRule, DetectorFile, Model, Network, Rule, Scope
from proxy.policy.parameters import Terms, effective, told
from proxy.policy.parties import terms
from proxy.policy.schema import Floor, Match, OutputEntry, RuleEntry
from proxy.policy.suspicion import detector_use

MAX_KNOWN = 12  # names that a hint lists

V = TypeVar("V")

_CONDITIONS = ("mfa", "budget", "output", "parameters", "detector")  # what only an allow rule has


class RuleBuilder:
    """Builds one rule after the other; what is wrong is added to `faults`, what is idle to `warnings`."""

    def __init__(
        self,
        *,
        issuers: Collection[str],
        models: Mapping[str, Model],
        budgets: Mapping[str, Budget],
        outputs: Mapping[str, OutputEntry],
        parameters: Mapping[str, Terms],
        detectors: Mapping[str, DetectorFile],
        dialects: Mapping[str, Dialect],
        floor: Floor | None,
        faults: list[Finding],
        warnings: list[Finding],
    ) -> None:
        self._issuers = issuers
        self._models = models
        self._budgets = budgets
        self._outputs = outputs
        self._parameters = parameters
        self._detectors = detectors
        self._dialects = dialects
        self._floor = floor
        self._faults = faults
        self._warnings = warnings

    def build(self, entry: Entry[RuleEntry]) -> Rule | None:
        """Return the rule, or None when it has a fault."""
        value, before = entry.value, len(self._faults)
        rule: Rule | None = None
        if value.allow is not None and value.deny is not None:
            self._refuse(entry, "a rule is either `allow` or `deny`", "make two rules of it", at=("deny",))
        elif value.allow is not None:
            rule = self._allow(entry, value.allow)
        elif value.deny is not None:
            rule = self._deny(entry, value.deny)
        else:
            self._refuse(
                entry, f"rule `{entry.name}` has neither `allow` nor `deny`", "say who may, or may not, do what"
            )
        return rule if len(self._faults) == before else None

    def _refuse(self, entry: Entry[RuleEntry], message: str, hint: str = "", *, at: Path = ()) -> None:
        self._faults.append(entry.finding(message, hint, at=at))

    # ── the two kinds ───────────────────────────────────────────────────────────────────────────────────────────

    def _deny(self, entry: Entry[RuleEntry], match: Match) -> DenyRule:
        for key in _CONDITIONS:
            if key in entry.value.model_fields_set:
                self._refuse(
                    entry, f"a deny rule has no `{key}`", "delete it: what is denied has no conditions", at=(key,)
                )
        if not match.model_fields_set:
            self._refuse(entry, "a deny rule must name something", "`roles: any` denies everybody", at=("deny",))
        return DenyRule(entry.name, entry.place, self._scope(entry, match, "deny"), bool(entry.value.shadow))

    def _allow(self, entry: Entry[RuleEntry], match: Match) -> AllowRule | None:
        self._require_words(entry, match)
        budget = self._named(entry, "budget", entry.value.budget, self._budgets, ("budget",))
        output = self._named(entry, "output", entry.value.output, self._outputs, ("output",))
        detector = self._detector(entry, match, output)
        terms_of_use = self._named(entry, "parameters", entry.value.parameters, self._parameters, ("parameters",))
        scope = self._scope(entry, match, "allow")
        self._refuse_unread(entry, match, scope.models)
        mfa = self._mfa(entry)
        floor = self._floor.parameters if self._floor else {}
        parameters, lowered = effective(terms_of_use or {}, self._dialects, floor)
        if budget is None or output is None:
            return None
        return AllowRule(
            id=entry.name,
            place=entry.place,
            scope=scope,
            shadow=bool(entry.value.shadow),
            mfa=mfa,
            budget=budget,
            output=stricter(str(entry.value.output), output, self._floor.output if self._floor else None),
            detector=detector,
            asks=entry.value.parameters,
            parameters=parameters,
            terms=told(parameters, self._dialects),
            lowered=lowered,
        )

    def _require_words(self, entry: Entry[RuleEntry], match: Match) -> None:
        """An allow rule says in words whom it lets do what; nothing is open because somebody forgot a line."""
        required = (
            (match.roles, "`roles`", "`roles: any` means: whoever has a token, and every workload"),
            (match.actions, "`actions`", "like `actions: [infer, metadata]`"),
            (
                match.models or match.model_labels,
                "`models` or `model_labels`",
                "`models: any` means: all of this policy",
            ),
        )
        for given, words, hint in required:
            if given is None:
                self._refuse(entry, f"an allow rule must name its {words}", hint, at=("allow",))
        for key, purpose in (("budget", "how much a caller may ask"), ("output", "how exactly the answer may speak")):
            if getattr(entry.value, key) is None:
                self._refuse(entry, f"an allow rule must name its `{key}`", purpose)

    def _refuse_unread(self, entry: Entry[RuleEntry], match: Match, models: Iterable[str]) -> None:
        """Nothing is opened whose answers nobody here can read."""
        spoken = {self._models[name].upstream.dialect for name in models if name in self._models}
        read = {action for name in spoken & self._dialects.keys() for action in self._dialects[name].manages}
        for number, action in enumerate(match.actions or ()):
            if action in MANAGEMENT - read and spoken:
                message = f"`{action}` cannot be opened: {' and '.join(sorted(spoken))} would not let its answers pass"
                self._refuse(entry, message, "delete the word", at=("allow", "actions", number))

    # ── the parts ───────────────────────────────────────────────────────────────────────────────────────────────

    def _scope(self, entry: Entry[RuleEntry], match: Match, effect: str) -> Scope:
        self._names(entry, "issuer", match.issuers or (), self._issuers, (effect, "issuers"))
        named = match.models if isinstance(match.models, tuple) else None
        self._names(entry, "model", named or (), self._models, (effect, "models"))
        labels = (match.model_labels or {}).items()
        models = frozenset(
            model.name
            for model in self._models.values()
            if (named is None or model.name in named) and labels <= model.labels.items()
        )
        if labels and not models:
            self._refuse(
                entry, "no model has these labels", "look at `labels` under `models`", at=(effect, "model_labels")
            )
        return Scope(
            roles=frozenset(match.roles) if isinstance(match.roles, tuple) else None,
            issuers=_set(match.issuers),
            clients=_set(match.clients),
            actions=frozenset(match.actions or Action),  # only a deny rule may leave them out
            models=models,
            networks=self._networks(entry, match.networks, effect),
            hours=match.hours,
            claims=tuple(claim_is(*claim) for claim in match.claims.items()) if match.claims else None,
        )

    def _networks(
        self, entry: Entry[RuleEntry], texts: Iterable[str] | None, effect: str
    ) -> tuple[Network, ...] | None:
        if texts is None:
            return None
        networks: list[Network] = []
        for number, text in enumerate(texts):
            at: Path = (effect, "networks", number)
            try:
                networks.append(ip_network(text))
            except ValueError:
                self._refuse(
                    entry, f"`{text}` is not a network{_masked(text)}", "like `10.0.0.0/8` or `fd00::/8`", at=at
                )
        return tuple(networks)

    def _mfa(self, entry: Entry[RuleEntry]) -> Mfa | None:
        match entry.value.mfa:
            case "required":
                return Mfa()
            case "not_required":
                if self._floor and self._floor.mfa:
                    hint = "delete the line, or `mfa` under `floor`"
                    self._refuse(entry, "the floor requires MFA of every rule", hint, at=("mfa",))
                return None
            case own:
                return terms(own)

    def _detector(self, entry: Entry[RuleEntry], match: Match, output: OutputEntry | None) -> DetectorUse | None:
        choice = entry.value.detector
        if choice is None:
            return None
        file = self._named(entry, "detector", choice.use, self._detectors, ("detector", "use"))
        if match.actions is not None and Action.INFER not in match.actions:
            self._warn(entry, "the detector never sees an input", "this rule does not allow `infer`", ("detector",))
        if choice.mode is Mode.ENFORCE and choice.on_suspicion is Suspicion.LABEL and output and output.label_only:
            hint = "the output is the label only, so write `on_suspicion: refuse`"
            self._warn(entry, "suspicion would change nothing", hint, ("detector", "on_suspicion"))
        if file is None:
            return None
        return detector_use(entry, choice, file, self._faults)

    def _warn(self, entry: Entry[RuleEntry], message: str, hint: str, at: Path) -> None:
        self._warnings.append(replace(entry.finding(message, hint, at=at), severity="warning"))

    # ── names ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _named(
        self, entry: Entry[RuleEntry], kind: str, name: str | None, known: Mapping[str, V], at: Path
    ) -> V | None:
        if name is not None and name not in known:
            self._faults.append(unknown(entry, kind, name, known, at))
        return known.get(name) if name is not None else None

    def _names(
        self, entry: Entry[RuleEntry], kind: str, names: Iterable[str], known: Collection[str], at: Path
    ) -> None:
        for number, name in enumerate(names):
            if name not in known:
                self._faults.append(unknown(entry, kind, name, known, (*at, number)))


def unknown(entry: Entry[V], kind: str, name: str, known: Collection[str], at: Path) -> Finding:
    """Return the finding for a name that nothing has."""
    listed = sorted(known)[:MAX_KNOWN]
    more = ", …" if len(known) > len(listed) else ""
    hint = f"known: {', '.join(listed)}{more}" if listed else f"define it under `{kind.removesuffix('s')}s`"
    return entry.finding(f"unknown {kind} `{name}`{suggestion(name, known)}", hint, at=at)


def stricter(name: str, output: OutputEntry, floor: OutputEntry | None) -> Output:
    """Return what both allow: never more digits, more classes or more than a label."""
    both = (output, floor) if floor else (output,)
    if any(one.label_only for one in both):
        return Output(name, label_only=True)
    decimals = [one.decimals for one in both if one.decimals is not None]
    classes = [one.top_k for one in both if one.top_k is not None]
    return Output(name, decimals=min(decimals, default=None), top_k=min(classes, default=None))


def _set(words: Iterable[str] | None) -> frozenset[str] | None:
    return None if words is None else frozenset(words)


def _masked(text: str) -> str:
    """Return the network that an address with a mask probably meant."""
    try:
        return f", did you mean `{ip_network(text, strict=False)}`?"
    except ValueError:
        return ""
