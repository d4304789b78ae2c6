"""Reads the files of a policy directory and lays them together: one policy, every entry with the place it stands at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from proxy.documents import Document, Path, parse, validate
from proxy.errors import ConfigError, Finding
from proxy.exchange import Window
from proxy.policy.schema import (
    DetectorEntry,
    Floor,
    IssuerEntry,
    ModelEntry,
    OutputEntry,
    ParameterTerms,
    PolicyFile,
    ProbeEntry,
    RuleEntry,
    UpstreamEntry,
    WorkloadEntry,
)

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """A part of a policy and where it stands. `name` is a rule's id, or the key under its section."""

    name: str
    value: V
    document: Document
    path: Path

    @property
    def place(self) -> str:
        """Where it stands, as file:line."""
        return f"{self.document.name}:{self.document.place(self.path)[0]}"

    def finding(self, message: str, hint: str = "", *, at: Path = ()) -> Finding:
        """Return a finding at this entry, or at the value of a key in it."""
        return self.document.finding((*self.path, *at), message, hint, value=bool(at))


@dataclass(frozen=True, slots=True)
class Parts:
    """All files of a directory, laid together but not yet understood."""

    issuers: dict[str, Entry[IssuerEntry]] = field(default_factory=dict)
    workloads: dict[str, Entry[WorkloadEntry]] = field(default_factory=dict)
    upstreams: dict[str, Entry[UpstreamEntry]] = field(default_factory=dict)
    models: dict[str, Entry[ModelEntry]] = field(default_factory=dict)
    budgets: dict[str, Entry[tuple[Window, ...]]] = field(default_factory=dict)
    outputs: dict[str, Entry[OutputEntry]] = field(default_factory=dict)
    parameters: dict[str, Entry[dict[str, ParameterTerms]]] = field(default_factory=dict)
    detectors: dict[str, Entry[DetectorEntry]] = field(default_factory=dict)
    probes: dict[str, Entry[ProbeEntry]] = field(default_factory=dict)
    floor: dict[str, Entry[Floor]] = field(default_factory=dict)  # at most one
    rules: dict[str, Entry[RuleEntry]] = field(default_factory=dict)  # in file order, files by name


def merge(files: Mapping[str, bytes]) -> Parts:
    """Lay the files together, or raise ConfigError with every fault of every file."""
    faults: list[Finding] = []
    parts = Parts()
    for name in sorted(files):
        try:
            document = parse(name, files[name])
            file = validate(document, PolicyFile)
        except ConfigError as error:
            faults += error.findings
        else:
            faults += _add(parts, document, file)
    if faults:
        raise ConfigError(faults)
    required = ("upstreams", "models", "rules") if parts.workloads else ("issuers", "upstreams", "models", "rules")
    empty = [section for section in required if not getattr(parts, section)]
    if empty:
        purposes = PolicyFile.model_fields
        raise ConfigError(
            [Finding("policy", 0, 0, f"no file has `{name}`", purposes[name].description or "") for name in empty]
        )
    return parts


def _add(parts: Parts, document: Document, file: PolicyFile) -> list[Finding]:
    found = [
        *_collect(parts.issuers, "issuer", document, "issuers", file.issuers),
        *_collect(parts.workloads, "workload", document, "workloads", file.workloads),
        *_collect(parts.upstreams, "upstream", document, "upstreams", file.upstreams),
        *_collect(parts.models, "model", document, "models", file.models),
        *_collect(parts.budgets, "budget", document, "budgets", file.budgets),
        *_collect(parts.outputs, "output", document, "outputs", file.outputs),
        *_collect(parts.parameters, "parameters", document, "parameters", file.parameters),
        *_collect(parts.detectors, "detector", document, "detectors", file.detectors),
        *_collect(parts.probes, "probe", document, "probes", file.probes),
    ]
    if file.floor:
        found += _insert(parts.floor, "floor", Entry("floor", file.floor, document, ("floor",)))
    found += _check_shadow(document, file)
    for number, rule in enumerate(file.rules):
        shaded = rule.model_copy(update={"shadow": True}) if file.shadow else rule
        found += _insert(parts.rules, "rule", Entry(rule.id, shaded, document, ("rules", number)))
    return found


def _check_shadow(document: Document, file: PolicyFile) -> list[Finding]:
    """Refuse a shadow over nothing, and over what has none: a reader would believe that it does not act."""
    if not file.shadow:
        return []
    if not file.rules:
        return [document.finding(("shadow",), "a file in shadow has no rules", "delete the line, or write the rules")]
    found = [
        document.finding(
            ("floor",), "a floor has no shadow: it acts at once", "move it to a file that is not in shadow"
        )
    ]
    return found if file.floor else []


def _collect(
    into: dict[str, Entry[V]], kind: str, document: Document, section: str, values: Mapping[str, V]
) -> list[Finding]:
    entries = (Entry(name, value, document, (section, name)) for name, value in values.items())
    return [finding for entry in entries for finding in _insert(into, kind, entry)]


def _insert(into: dict[str, Entry[V]], kind: str, entry: Entry[V]) -> list[Finding]:
    """Add an entry; a second one of the same name is a finding that names both places."""
    first = into.setdefault(entry.name, entry)
    if first is entry:
        return []
    what = "the floor" if kind == "floor" else f"{kind} `{entry.name}`"
    at: Path = ("id",) if kind == "rule" else ()
    return [entry.finding(f"{what} is already defined at {first.place}", "keep one of the two", at=at)]
