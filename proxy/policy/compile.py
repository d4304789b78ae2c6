"""Compiles the files of a policy directory into a `Policy`, or says everything that is wrong with them. Pure.

Three passes, each with all its faults at once: the form of each file (`proxy.documents`), the files laid together
(`merging`), then what they mean (`parties`, `rules`, `reach`). Files are read in the order of their names, and that is
the order of the rules. Errors stop; warnings travel with the policy.

Not guaranteed: that files which a policy names (key sets, certificates, detectors) are there. Who loads them says so.
"""

import hashlib
from collections.abc import Collection, Mapping
from types import MappingProxyType

from proxy.errors import ConfigError, Finding
from proxy.exchange import Budget, Issuer, Upstream
from proxy.policy.merging import Parts, merge
from proxy.policy.model import AllowRule, DenyRule, DetectorFile, Model, Policy, RuleIndex
from proxy.policy.parties import issuer, under, upstream
from proxy.policy.reach import names_in_vain, rules_in_vain
from proxy.policy.rules import RuleBuilder, unknown

DIALECTS = frozenset({"oip-v2"})


def compile_policy(files: Mapping[str, bytes], *, dialects: Collection[str] = DIALECTS, root: str = "") -> Policy:
    """Return the policy of the files (name -> content), or raise ConfigError with every fault.

    `root` is put before the relative file names that the policy holds for others to open.
    """
    if not files:
        raise ConfigError([Finding("policy", 0, 0, "no policy files", "write one that ends in .yaml")])
    parts = merge(files)
    faults: list[Finding] = []
    warnings: list[Finding] = []
    issuers = _issuers(parts, root, faults)
    upstreams = {name: upstream(entry, dialects, root, faults) for name, entry in parts.upstreams.items()}
    models = _models(parts, upstreams, faults)
    detectors = _detectors(parts, root, faults)
    budgets = _budgets(parts, faults)
    floor = parts.floor.get("floor")
    builder = RuleBuilder(
        issuers=parts.issuers,
        models=models,
        budgets=budgets,
        outputs={name: entry.value for name, entry in parts.outputs.items()},
        detectors=detectors,
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
        factors=MappingProxyType({one.name: one.mfa for one in issuers}),
        upstreams=MappingProxyType(upstreams),
        models=MappingProxyType(models),
        detectors=MappingProxyType(detectors),
        dialects=tuple(sorted({one.dialect for one in upstreams.values()})),
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


def _models(parts: Parts, upstreams: Mapping[str, Upstream], faults: list[Finding]) -> dict[str, Model]:
    models = {}
    for name, entry in parts.models.items():
        server = upstreams.get(entry.value.upstream)
        if server is None:
            faults.append(unknown(entry, "upstream", entry.value.upstream, upstreams, ("upstream",)))
            server = next(iter(upstreams.values()))  # so that the rules can be checked too; nothing leaves from here
        models[name] = Model(name, server, MappingProxyType(dict(entry.value.labels)))
    return models


def _detectors(parts: Parts, root: str, faults: list[Finding]) -> dict[str, DetectorFile]:
    detectors = {}
    for name, entry in parts.detectors.items():
        file = entry.value.file
        if file.startswith("/") or not {"", ".", ".."}.isdisjoint(file.split("/")):
            hint = "detectors lie beside the policy: `detectors/iris.onnx`"
            faults.append(entry.finding(f"`{file}` is not a file in the policy directory", hint, at=("file",)))
        detectors[name] = DetectorFile(name, under(root, file) or file, entry.value.sha256)
    return detectors


def _budgets(parts: Parts, faults: list[Finding]) -> dict[str, Budget]:
    for entry in parts.budgets.values():
        seen = set()
        for number, window in enumerate(entry.value):
            if window.name in seen:
                message = f"two limits of {window.unit} in the same {window.seconds} s"
                faults.append(entry.finding(message, "keep the lower one", at=(number,)))
            seen.add(window.name)
    return {name: Budget(name, entry.value) for name, entry in parts.budgets.items()}
