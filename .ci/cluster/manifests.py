"""Rendered manifests, and the pods, services and network policies in them, as far as one machine needs them.

What is not understood here ends the program: a policy that is read only halfway would show an isolation that is none.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Object = Mapping[str, Any]
NAMESPACE = "kubernetes.io/metadata.name"  # the label that every namespace has


@dataclass(frozen=True)
class Pod:
    """What runs, or (without a spec) a place to ask from."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    spec: dict[str, Any] | None = None
    claims: tuple[str, ...] = ()  # volumes of its own, kept while it is away

    def port(self, named: str | int) -> int | None:
        """Return the number of a port, by its name; None: it has none of this name."""
        if isinstance(named, int):
            return named
        boxes = self.spec["containers"] if self.spec else []
        return next((p["containerPort"] for box in boxes for p in box.get("ports", []) if p["name"] == named), None)


@dataclass(frozen=True)
class Manifests:
    """Everything that was rendered."""

    objects: tuple[Object, ...]
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name -> labels

    def of(self, kind: str) -> list[Object]:
        """Return the objects of a kind."""
        return [entry for entry in self.objects if entry["kind"] == kind]

    def data(self, kind: str, namespace: str, name: str) -> dict[str, str] | None:
        """Return a ConfigMap's or a Secret's content."""
        for entry in self.of(kind):
            if (entry["metadata"]["namespace"], entry["metadata"]["name"]) == (namespace, name):
                return dict(entry["data"])
        return None

    @property
    def brought(self) -> set[tuple[str, str]]:
        """What has to be made: (namespace, `Secret/name`)."""
        return {
            (entry["metadata"]["namespace"], item)
            for entry in self.objects
            for item in entry["metadata"].get("annotations", {}).get("hip/brought", "").split(", ")
            if item
        }

    def pods(self) -> Iterator[Pod]:
        """Yield every pod that a controller would make."""
        for entry in (*self.of("StatefulSet"), *self.of("Deployment")):
            meta, spec = entry["metadata"], entry["spec"]
            claims = tuple(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", []))
            for number in range(spec["replicas"]):
                template = spec["template"]
                name = f"{meta['name']}-{number}"
                yield Pod(meta["namespace"], name, template["metadata"]["labels"], template["spec"], claims)


def render(directory: Path) -> Manifests:
    """Render a kustomization."""
    command = next(
        (words for words in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(words[0])), None
    )
    if command is None:
        sys.exit("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, directory], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.stderr)
    objects = tuple(yaml.safe_load_all(done.stdout))
    labels = {
        entry["metadata"]["name"]: {**entry["metadata"].get("labels", {}), NAMESPACE: entry["metadata"]["name"]}
        for entry in objects
        if entry["kind"] == "Namespace"
    }
    return Manifests(objects, labels)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Say whether a label selector chooses these labels; an empty one chooses everything."""
    if selector.keys() - {"matchLabels"}:
        sys.exit(f"a selector that is not understood here: {dict(selector)}")
    return dict(selector.get("matchLabels", {})).items() <= labels.items()
