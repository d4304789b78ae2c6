"""Runs pods with podman as a kubelet does: its volumes, its users and groups, its probes, the pod's own network.

`podman kube play` enforces the security context. What it does not do as a kubelet would is done here: ConfigMaps and
Secrets are directories whose files are links through `..data`, with the modes and the group that the pod asks for; a
claim is a directory of the pod's group; probes are asked from the node.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from manifests import Manifests, Pod
from network import RESOLVER, Network

PATIENCE = 40  # seconds until every pod is ready
_DROPPED = ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports")  # podman would ask by a shell

_ASK = """\
import http.client, socket, sys, time
host, port, path, patience = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
end = time.monotonic() + patience
said = "nothing"
while time.monotonic() < end:
    try:
        if not path:
            socket.create_connection((host, port), timeout=2).close()
            sys.exit(0)
        asked = http.client.HTTPConnection(host, port, timeout=2)
        asked.request("GET", path)
        answer = asked.getresponse()
        said = f"{answer.status} {answer.read(2000).decode(errors='replace')}"
        if answer.status == 200:
            sys.exit(0)
    except OSError as error:
        said = str(error)
    time.sleep(0.1)
sys.exit(said)
"""


class Kubelet:
    """Starts and ends the pods of a network. `here` is where their volumes are laid out."""

    def __init__(
        self, network: Network, manifests: Manifests, secrets: Mapping[tuple[str, str], Any], here: Path
    ) -> None:
        self._network = network
        self._manifests = manifests
        self._secrets = secrets
        self._here = here

    def start(self, pod: Pod) -> None:
        """Start one pod in its network namespace."""
        name = self._network.namespace(pod)
        file = self._here / f"{name}.yaml"
        meta = {"name": name, "labels": dict(pod.labels)}
        written = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": self._spec(pod)}
        file.write_text(yaml.safe_dump(written))
        # Only the network is the pod's: with `ip netns exec`, podman would also get a mount namespace of its own.
        words = ["nsenter", f"--net=/run/netns/{name}", "podman", "kube", "play", "--network", "host", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            sys.exit(f"{name} does not start: {done.stderr}")

    def wait(self, pod: Pod) -> None:
        """Return when each of the pod's readiness probes is answered; end the program when that takes too long."""
        for box in (pod.spec or {})["containers"]:
            probe = box.get("readinessProbe", {})
            ask = probe.get("httpGet") or probe.get("tcpSocket")
            if ask is None:
                continue
            where = [self._network.address(pod), str(pod.port(ask["port"])), ask.get("path", "")]
            node = f"--net=/run/netns/{self._network.node}"
            words = ["nsenter", node, sys.executable, "-Ic", _ASK, *where, str(PATIENCE)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                sys.exit(f"{pod.name} is not ready: {done.stderr.strip()}\n{self.logs(pod)}")

    def logs(self, pod: Pod) -> str:
        """Return what a pod's containers said."""
        said = []
        for box in (pod.spec or {})["containers"]:
            words = ["podman", "logs", f"{self._network.namespace(pod)}-{box['name']}"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
            said.append(done.stdout + done.stderr)
        return "".join(said)

    def stop(self, pod: Pod) -> None:
        """End a pod, as far as it is there."""
        grace = str((pod.spec or {}).get("terminationGracePeriodSeconds", 30))
        words = ["podman", "pod", "rm", "--force", "--ignore", "--time", grace, self._network.namespace(pod)]
        subprocess.run(words, capture_output=True, check=False)  # noqa: S603

    # ── a pod's spec, for podman ────────────────────────────────────────────────────────────────────────────────

    def _spec(self, pod: Pod) -> dict[str, Any]:
        spec = json.loads(json.dumps(pod.spec))
        group = spec.get("securityContext", {}).get("fsGroup")
        volumes = self._here / self._network.namespace(pod)
        laid = dict(self._volumes(pod, spec, volumes, group))
        for name, text in (("hosts", self._network.hosts(pod)), ("resolv.conf", f"nameserver {RESOLVER}\n")):
            (volumes / name).write_text(text)
            laid[name] = "File"
        spec["volumes"] = [
            {"name": name.replace(".", "-"), "hostPath": {"path": str(volumes / name), "type": kind}}
            for name, kind in laid.items()
        ]
        for box in spec["containers"]:
            box["imagePullPolicy"] = "Never"
            for key in _DROPPED:
                box.pop(key, None)
            box["volumeMounts"] += [
                {"name": name.replace(".", "-"), "mountPath": f"/etc/{name}", "readOnly": True}
                for name in ("hosts", "resolv.conf")
            ]
        return dict(spec)

    def _volumes(self, pod: Pod, spec: dict[str, Any], at: Path, group: int | None) -> Iterator[tuple[str, str]]:
        for claim in pod.claims:
            self._directory(at / claim, group)
            yield claim, "Directory"
        for volume in spec["volumes"]:
            name = volume["name"]
            if "configMap" in volume:
                source = volume["configMap"]
                content = self._manifests.data("ConfigMap", pod.namespace, source["name"])
                files = None if content is None else {key: text.encode() for key, text in content.items()}
            elif "secret" in volume:
                source = volume["secret"]
                files = self._secrets.get((pod.namespace, source["secretName"]))
            elif "emptyDir" in volume:
                self._directory(at / name, group, 0o777)
                yield name, "Directory"
                continue
            else:
                sys.exit(f"a volume that is not understood here: {volume}")
            if files is None:
                sys.exit(f"{pod.name}: nobody brought what the volume {name} is made of")
            project(at / name, files, source.get("defaultMode", 0o644), group)
            yield name, "Directory"

    def _directory(self, path: Path, group: int | None, mode: int = 0o2770) -> None:
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, 0, group or 0)
        path.chmod(mode)


def project(at: Path, files: Mapping[str, bytes], mode: int, group: int | None) -> None:
    """Write files as a kubelet does: all of them change at one moment, when `..data` becomes another link."""
    at.mkdir(parents=True, exist_ok=True)
    fresh = at / f"..{time.time_ns()}"
    fresh.mkdir()
    for name, content in files.items():
        (fresh / name).write_bytes(content)
        os.chown(fresh / name, 0, group or 0)
        (fresh / name).chmod(mode | (0o440 if group else 0))
        if not (at / name).is_symlink():
            (at / name).symlink_to(f"..data/{name}")
    (at / "..new").symlink_to(fresh.name)
    (at / "..new").replace(at / "..data")
