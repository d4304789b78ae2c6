"""Compiles the files of a policy directory into a `Policy`, or says everything that is wrong with them. Pure.

Three passes, each with all its faults at once: the form of each file (`proxy.documents`), the files laid together
(`merging`), then what they mean (`parties`, `rules`, `reach`). Files are read in the order of their names, and that is
the order of the rules. Errors stop; warnings travel with the policy.

Not guaranteed: that files which a policy names (key sets, certificates, detectors) are there. Who loads them says so.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from proxy.audit.sealing import Recipient, SealError
from proxy.dialects import DIALECTS, Dialect
from proxy.documents import Path
from proxy.errors import ConfigError, Finding
from proxy.exchange import Budget, Issuer, KnownParameter, Mfa, Naming, Upstream
from proxy.identity.workload import MTLS, Workload, Workloads
from proxy.policy.merging import Entry, Parts, V, merge
from proxy.policy.model import (
    NO_CARD,
    AllowRule,
    Card,
    DenyRule,
    DetectorFile,
    FloorTerms,
    Model,
    Policy,
    Recorded,
    RuleIndex,
)
from proxy.policy.parameters import Terms, known_parameters
from proxy.policy.parties import issuer, upstream, workload
from proxy.policy.places import check_places
from proxy.policy.probes import beside, probes
from proxy.policy.reach import names_in_vain, rules_in_vain
from proxy.policy.rules import RuleBuilder, stricter, unknown
from proxy.policy.schema import CardEntry, Floor, Limit, ModelEntry

MIN_KEEP = 3_600  # seconds of recorded inputs


def compile_policy(files: Mapping[str, bytes], *, dialects: Mapping[str, Dialect] = DIALECTS, root: str = "") -> Policy:
    """Return the policy of the files (name -> content), or raise ConfigError with every fault.

    `root` is put before the relative file names that the policy holds for others to open.
    """
    if not files:
        raise ConfigError([Finding("policy", 0, 0, "no policy files", "write one that ends in .yaml")])
    parts = merge(files)
    faults: list[Finding] = []
    warnings: list[Finding] = []
    issuers = _issuers(parts, root, faults)
    programs = _workloads(parts, faults)
    upstreams = {name: upstream(entry, dialects, root, faults) for name, entry in parts.upstreams.items()}
    check_places(parts, upstreams, dialects, faults)
    models = _models(parts, upstreams, faults)
    _check_names(parts, models, dialects, faults)
    detectors = _detectors(parts, root, faults)
    checked = probes(parts, models, root, faults)
    budgets = _budgets(parts, faults)
    _check_parameters(parts, known_parameters(dialects, upstreams), faults)
    floor = parts.floor.get("floor")
    builder = RuleBuilder(
        issuers={*parts.issuers, MTLS} if programs else parts.issuers,
        models=models,
        budgets=budgets,
        outputs={name: entry.value for name, entry in parts.outputs.items()},
        parameters={name: entry.value for name, entry in parts.parameters.items()},
        detectors=detectors,
        dialects={one.dialect: dialects[one.dialect] for one in upstreams.values() if one.dialect in dialects},
        floor=floor.value if floor else None,
        faults=faults,
        warnings=warnings,
    )
    rules = tuple(rule for entry in parts.rules.values() if (rule := builder.build(entry)))
    if faults:
        raise ConfigError(_in_order(faults))
    denies = RuleIndex.of(tuple(rule for rule in rules if isinstance(rule, DenyRule)), models)
    allows = RuleIndex.of(tuple(rule for rule in rules if isinstance(rule, AllowRule)), models)
    faults += rules_in_vain(parts, denies, allows)
    warnings += names_in_vain(parts, rules)
    if faults:
        raise ConfigError(_in_order(faults + warnings))
    return Policy(
        digest=digest(files),
        issuers=MappingProxyType({one.issuer: one for one in issuers}),
        factors=MappingProxyType({one.name: one.mfa for one in issuers} | ({MTLS: Mfa()} if programs else {})),
        workloads=Workloads.of(programs),
        upstreams=MappingProxyType(upstreams),
        models=MappingProxyType(models),
        detectors=MappingProxyType(detectors),
        probes=tuple(checked),
        dialects=tuple(sorted({one.dialect for one in upstreams.values()})),
        outputs=MappingProxyType({name: stricter(name, entry.value, None) for name, entry in parts.outputs.items()}),
        floor=_floor_terms(floor),
        rules=rules,
        denies=denies,
        allows=allows,
        warnings=tuple(_in_order(warnings)),
    )


def digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 over names and contents, each with its length before it, so that no two sets collide."""
    hashed = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.hexdigest()


def _floor_terms(entry: Entry[Floor] | None) -> FloorTerms | None:
    if entry is None or not (entry.value.output or entry.value.parameters):
        return None
    return FloorTerms(stricter("floor", entry.value.output, None) if entry.value.output else None, entry.place)


def _in_order(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (finding.file, finding.line, finding.column))


def _issuers(parts: Parts, root: str, faults: list[Finding]) -> list[Issuer]:
    built: dict[str, Issuer] = {}
    for entry in parts.issuers.values():
        one = issuer(entry, root, faults)
        first = built.setdefault(one.issuer, one)
        if first is not one:
            message = f"issuer `{first.name}` already has this `iss`"
            faults.append(entry.finding(message, "a token's issuer must be one entry", at=("issuer",)))
    return list(built.values())


def _workloads(parts: Parts, faults: list[Finding]) -> list[Workload]:
    if MTLS in parts.issuers:
        hint = "that is what workloads have in the place of an issuer's name: choose another"
        faults.append(parts.issuers[MTLS].finding(f"an issuer cannot be called `{MTLS}`", hint))
    built: list[Workload] = []
    places: dict[tuple[str | None, str | None], str] = {}
    for entry in parts.workloads.values():
        one = workload(entry, faults)
        first = places.setdefault((one.uri, one.dns), entry.place)
        if first != entry.place:
            faults.append(entry.finding(f"the workload at {first} has the same name in certificates", "keep one"))
        built.append(one)
    return built


def _models(parts: Parts, upstreams: Mapping[str, Upstream], faults: list[Finding]) -> dict[str, Model]:
    models = {}
    for name, entry in parts.models.items():
        server = upstreams.get(entry.value.upstream)
        if server is None:
            faults.append(unknown(entry, "upstream", entry.value.upstream, upstreams, ("upstream",)))
            server = next(iter(upstreams.values()))  # so that the rules can be checked too; nothing leaves from here
        labels = MappingProxyType(dict(entry.value.labels))
        card, recorded = _card(entry.value.card), _recorded(entry, faults)
        models[name] = Model(name, server, labels, entry.value.served_as, card, recorded)
    return models


def _recorded(entry: Entry[ModelEntry], faults: list[Finding]) -> Recorded | None:
    """Return what is kept of a model's inputs; a key that nothing can be encrypted to is added to `faults`."""
    terms = entry.value.record_inputs
    if terms is None:
        return None
    if terms.keep < MIN_KEEP:
        faults.append(entry.finding("`keep` must be at least 1h", "`30d` is usual", at=("record_inputs", "keep")))
    try:
        recipient = Recipient(terms.encrypt_to.encode())
    except SealError as error:
        hint = "openssl genpkey -algorithm x25519 -out fitting.pem && openssl pkey -in fitting.pem -pubout"
        message = f"inputs cannot be encrypted to this: {error}"
        faults.append(entry.finding(message, hint, at=("record_inputs", "encrypt_to")))
        return None
    return Recorded(terms.encrypt_to.encode(), recipient.name, terms.rows_per_minute, terms.keep)


def _card(entry: CardEntry | None) -> Card:
    if entry is None:
        return NO_CARD
    return Card(
        entry.owner,
        entry.purpose,
        entry.classification,
        entry.processors,
        entry.datasheet,
        MappingProxyType(dict(entry.lineage)),
    )


def _detectors(parts: Parts, root: str, faults: list[Finding]) -> dict[str, DetectorFile]:
    detectors = {}
    for name, entry in parts.detectors.items():
        file = beside(entry, entry.value.file, "detectors lie beside the policy: `detectors/iris.onnx`", root, faults)
        detectors[name] = DetectorFile(name, file, entry.value.sha256)
    return detectors


def _check_names(
    parts: Parts, models: Mapping[str, Model], dialects: Mapping[str, Dialect], faults: list[Finding]
) -> None:
    """Refuse models that no request could tell apart, and names that no request could carry."""
    alone: dict[str, str] = {}  # by upstream: two of one dialect are never at the same address
    for name, entry in parts.models.items():
        dialect = dialects.get(models[name].upstream.dialect)
        if dialect is None:
            continue
        if entry.value.served_as is not None and dialect.naming is not Naming.BODY:
            hint = f"requests of `{dialect.name}` name no model in their body: call the model what its server calls it"
            faults.append(entry.finding("`served_as` means nothing here", hint, at=("served_as",)))
        server = models[name].upstream.name
        if dialect.naming is Naming.NOWHERE and alone.setdefault(server, entry.place) != entry.place:
            message = f"`{server}` already has a model at {alone[server]}"
            hint = f"requests of `{dialect.name}` name none, so it can have one only"
            faults.append(entry.finding(message, hint, at=("upstream",)))


def _check_parameters(parts: Parts, known: Mapping[str, KnownParameter], faults: list[Finding]) -> None:
    for entry in parts.parameters.values():
        _check_words(entry, entry.value, known, (), "write `allow` or `refuse`", faults)
    for floor in parts.floor.values():
        _check_words(floor, floor.value.parameters, known, ("parameters",), "write `refuse`", faults)


def _check_words(
    entry: Entry[V], said: Terms, known: Mapping[str, KnownParameter], at: Path, hint: str, faults: list[Finding]
) -> None:
    for word, terms in said.items():
        if word not in known:
            faults.append(unknown(entry, "parameter", word, known, (*at, word)))
        elif isinstance(terms, Limit) and not known[word].counted:
            faults.append(entry.finding(f"`{word}` is not a count", hint, at=(*at, word)))


def _budgets(parts: Parts, faults: list[Finding]) -> dict[str, Budget]:
    for entry in parts.budgets.values():
        seen = set()
        for number, window in enumerate(entry.value):
            if window.name in seen:
                message = f"two limits of {window.unit} in the same {window.seconds} s"
                faults.append(entry.finding(message, "keep the lower one", at=(number,)))
            seen.add(window.name)
    return {name: Budget(name, entry.value) for name, entry in parts.budgets.items()}
