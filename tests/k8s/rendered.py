"""An overlay as `kubectl kustomize` renders it, and what its objects mean to each other."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ROOT / "k8s" / "overlays"
NAMES = ("dev", "prod", "sidecar-kserve", "sidecar-triton")
BROUGHT = "hip/brought"  # the annotation that lists what the platform makes itself

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that becomes pods."""

    kind: str
    name: str
    labels: Mapping[str, str]
    pod: Object
    brought: frozenset[str]  # `Secret/hip-tls`
    claims: frozenset[str]
    replicas: int | None

    @property
    def containers(self) -> list[Object]:
        """All of them, those that run first too."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for box in self.containers for port in box.get("ports", [])}


@dataclass(frozen=True, slots=True)
class Rendered:
    """All objects of an overlay."""

    name: str
    objects: tuple[Object, ...]

    def of(self, kind: str) -> list[Object]:
        return [entry for entry in self.objects if entry["kind"] == kind]

    def named(self, kind: str, name: str) -> Object | None:
        return next((entry for entry in self.of(kind) if entry["metadata"]["name"] == name), None)

    @property
    def workloads(self) -> list[Workload]:
        return [*self._workloads()]

    @property
    def hip(self) -> Workload:
        """The one that has the proxy in it."""
        (found,) = [each for each in self.workloads if any("serve" in box.get("args", []) for box in each.containers)]
        return found

    def settings(self) -> str:
        """The text of hip.yaml."""
        found = self.named("ConfigMap", "hip-settings")
        assert found
        return str(found["data"]["hip.yaml"])

    def _workloads(self) -> Iterator[Workload]:
        for entry in self.objects:
            spec, meta = entry.get("spec", {}), entry["metadata"]
            brought = frozenset(filter(None, meta.get("annotations", {}).get(BROUGHT, "").split(", ")))
            if entry["kind"] == "InferenceService":  # KServe labels what it makes
                labels = {"serving.kserve.io/inferenceservice": meta["name"]}
                yield Workload(entry["kind"], meta["name"], labels, spec["predictor"], brought, frozenset(), 1)
            elif "template" in spec:
                template = spec["template"]
                claims = frozenset(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", []))
                labels = template["metadata"]["labels"]
                replicas = spec.get("replicas")
                yield Workload(entry["kind"], meta["name"], labels, template["spec"], brought, claims, replicas)


@cache
def rendered(name: str) -> Rendered:
    """Render an overlay. Without kustomize: skipped, and in CI failed."""
    command = next(
        (words for words in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(words[0])), None
    )
    if command is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, OVERLAYS / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Rendered(name, tuple(yaml.safe_load_all(done.stdout)))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Say whether a selector of equalities chooses these labels; an empty one chooses everything."""
    return selector.items() <= labels.items()
