"""Builds the golden probes of a policy, and says where a file that belongs to a policy may lie."""

from collections.abc import Mapping
from typing import Any

from proxy.detection.golden import Tolerance
from proxy.errors import Finding
from proxy.policy.merging import Entry, Parts
from proxy.policy.model import Model, Probe
from proxy.policy.parties import under

DIALECT = "oip-v2"  # whose answers a baseline holds
MIN_EVERY = 1.0  # seconds


def probes(parts: Parts, models: Mapping[str, Model], root: str, faults: list[Finding]) -> list[Probe]:
    """Build the probes; what is wrong with one is added to `faults`."""
    built = []
    for name, entry in parts.probes.items():
        value, model = entry.value, models.get(entry.value.model)
        file = beside(entry, value.file, "baselines lie beside the policy: `probes/iris.json`", root, faults)
        if value.every < MIN_EVERY:
            faults.append(entry.finding("`every` must be at least 1s", "`5m` is usual", at=("every",)))
        if model is None:
            known = ", ".join(sorted(models)) or "none"
            faults.append(entry.finding(f"unknown model `{value.model}`", f"known: {known}", at=("model",)))
            continue
        if model.upstream.dialect != DIALECT:
            hint = f"`{value.model}` speaks {model.upstream.dialect}"
            faults.append(entry.finding(f"golden probes speak {DIALECT} only", hint, at=("model",)))
        tolerance = Tolerance(value.flips, value.shift, value.slower)
        quarantine = value.on_change == "quarantine"
        built.append(Probe(name, value.model, model.upstream, file, value.sha256, value.every, tolerance, quarantine))
    return built


def beside(entry: Entry[Any], file: str, hint: str, root: str, faults: list[Finding]) -> str:
    """Return a file's name as seen from where the process runs; one outside of the directory is added to `faults`."""
    if file.startswith("/") or not {"", ".", ".."}.isdisjoint(file.split("/")):
        faults.append(entry.finding(f"`{file}` is not a file in the policy directory", hint, at=("file",)))
    return under(root, file) or file
