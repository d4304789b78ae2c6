"""A node's network: a namespace for every pod, and NetworkPolicy as packet filter rules between them.

    pod ── veth ── node ── veth ── nowhere (a default route that ends in a counter: what leaves for the world is seen)

All of it is in network namespaces of its own; the machine's network is not touched. The node itself reaches every pod,
as a kubelet must. Services are addresses that the node translates, as kube-proxy does.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests import Manifests, Object, Pod, selects

GATEWAY = "10.244.0.1"  # the node, as pods see it
WORLD = "192.0.2.1"  # RFC 5737
RESOLVER = "192.0.2.53"  # whoever asks for a name that is in no hosts file is counted


@dataclass(frozen=True)
class Service:
    """An address for several pods; `ports` are its own and the pods'."""

    namespace: str
    name: str
    address: str
    pods: tuple[str, ...]  # their addresses
    ports: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Network:
    """Where everything is. `prefix` begins the name of every network namespace."""

    prefix: str
    pods: tuple[Pod, ...]
    services: tuple[Service, ...]
    policies: tuple[Object, ...]
    namespaces: Mapping[str, Mapping[str, str]]

    @property
    def node(self) -> str:
        """The network namespace of the node."""
        return f"{self.prefix}-node"

    def namespace(self, pod: Pod) -> str:
        """The network namespace of a pod."""
        return f"{self.prefix}-{pod.namespace}-{pod.name}"

    def address(self, pod: Pod) -> str:
        """The address of a pod."""
        return _address(self.pods.index(pod))

    def hosts(self, pod: Pod) -> str:
        """What the cluster's name server would tell a pod, as a hosts file."""
        lines = ["127.0.0.1 localhost"]
        for service in self.services:
            full = f"{service.name}.{service.namespace}.svc"
            short = [service.name] if service.namespace == pod.namespace else []
            lines.append(" ".join([service.address, f"{full}.cluster.local", full, *short]))
        return "\n".join(lines) + "\n"

    # ── up and down ─────────────────────────────────────────────────────────────────────────────────────────────

    def up(self) -> None:
        """Make all of it. The rules are there before the first pod is connected."""
        _ip("netns", "add", self.node)
        self._node("link set lo up")
        self._node(f"addr add {GATEWAY}/32 dev lo")
        self._node("link add out0 type veth peer name out1")
        for end in ("out0", "out1"):
            self._node(f"link set {end} arp off addrgenmode none")
        self._node("addr add 192.0.2.2/24 dev out0")
        for end in ("out0", "out1"):
            self._node(f"link set {end} up")
        self._node(f"route add default via {WORLD}")
        self._inside("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._inside("nft", "-f", "-", given="\n".join(self.rules()) + "\n")
        for number, pod in enumerate(self.pods):
            self._connect(number, pod)

    def down(self) -> None:
        """Take it away, as far as it is there."""
        for name in (*map(self.namespace, self.pods), self.node):
            if Path("/run/netns", name).exists():
                _ip("netns", "del", name)
            for file in Path("/etc/netns", name).glob("*"):
                file.unlink()
            if Path("/etc/netns", name).is_dir():
                Path("/etc/netns", name).rmdir()

    def _connect(self, number: int, pod: Pod) -> None:
        name, address = self.namespace(pod), _address(number)
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        self._node(f"link add pod{number} type veth peer name eth0 netns {name}")
        self._node(f"link set pod{number} addrgenmode none up")
        self._node(f"route add {address}/32 dev pod{number}")
        for words in (
            f"addr add {address}/32 dev eth0",
            "link set eth0 addrgenmode none up",
            f"route add {GATEWAY}/32 dev eth0",
            f"route add default via {GATEWAY}",
        ):
            _ip("-n", name, *words.split())
        here = Path("/etc/netns", name)  # what `ip netns exec` puts over /etc
        here.mkdir(parents=True, exist_ok=True)
        (here / "hosts").write_text(self.hosts(pod))
        (here / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")

    def _node(self, words: str) -> None:
        _ip("-n", self.node, *words.split())

    def _inside(self, *words: str, given: str | None = None) -> None:
        _run("ip", "netns", "exec", self.node, *words, given=given)

    # ── rules ───────────────────────────────────────────────────────────────────────────────────────────────────

    def rules(self) -> Iterator[str]:
        """Yield the packet filter: services first, then for every pod what its policies let out and in."""
        yield "table ip cluster {"
        yield "  chain services { type nat hook prerouting priority dstnat;"
        for service in self.services:
            for outer, inner in service.ports:
                yield f"    ip daddr {service.address} tcp dport {outer} dnat ip to {_spread(service.pods, inner)}"
        yield "  }"
        out, into = {}, {}
        for number, pod in enumerate(self.pods):
            chosen = [p["spec"] for p in self.policies if self._about(p, pod)]
            for direction, found, name in (("Egress", out, f"out{number}"), ("Ingress", into, f"in{number}")):
                specs = [spec for spec in chosen if direction in spec["policyTypes"]]
                if specs:
                    found[_address(number)] = name
                    yield f"  chain {name} {{ # {pod.namespace}/{pod.name}"
                    yield from (f"    {rule} return" for spec in specs for rule in self._let(direction, spec, pod))
                    yield "    counter drop"
                    yield "  }"
        yield "  chain forward { type filter hook forward priority filter; policy accept;"
        yield "    ct state established,related accept"
        for side, found in (("saddr", out), ("daddr", into)):
            if found:
                pairs = ", ".join(f"{address} : jump {name}" for address, name in found.items())
                yield f"    ip {side} vmap {{ {pairs} }}"
        yield "  }"
        yield "}"

    def _about(self, policy: Object, pod: Pod) -> bool:
        same = policy["metadata"]["namespace"] == pod.namespace
        return same and selects(policy["spec"]["podSelector"], pod.labels)

    def _let(self, direction: str, spec: Object, pod: Pod) -> Iterator[str]:
        """Yield a match for everything that a policy lets out of a pod, or into it."""
        outward = direction == "Egress"
        for rule in spec.get(direction.lower(), []):
            if not (peers := rule.get("to" if outward else "from")) or not (ports := rule.get("ports")):
                sys.exit(f"a rule for everybody or for every port is not understood here: {rule}")
            for port in ports:
                kind = port["protocol"].lower()
                for peer in peers:
                    if block := peer.get("ipBlock"):
                        yield f"ip {'daddr' if outward else 'saddr'} {block['cidr']} {kind} dport {port['port']}"
                        continue
                    for other in self._peers(peer, pod):
                        number = (other if outward else pod).port(port["port"])
                        if number is not None:
                            side = "daddr" if outward else "saddr"
                            yield f"ip {side} {self.address(other)} {kind} dport {number}"

    def _peers(self, peer: Object, pod: Pod) -> Iterator[Pod]:
        if peer.keys() - {"podSelector", "namespaceSelector"}:
            sys.exit(f"a peer that is not understood here: {peer}")
        for other in self.pods:
            if "namespaceSelector" in peer:
                there = selects(peer["namespaceSelector"], self.namespaces[other.namespace])
            else:
                there = other.namespace == pod.namespace
            if there and selects(peer.get("podSelector", {}), other.labels):
                yield other


def lay_out(prefix: str, manifests: Manifests, visitors: Sequence[tuple[Pod, Mapping[str, str]]]) -> Network:
    """Give every pod and service its address. Visitors are pods without a program, each with its namespace's labels."""
    pods = (*manifests.pods(), *(pod for pod, _ in visitors))
    namespaces = {**manifests.namespaces, **{pod.namespace: labels for pod, labels in visitors}}
    services = []
    for number, entry in enumerate(manifests.of("Service"), 1):
        meta, spec = entry["metadata"], entry["spec"]
        behind = [
            (at, pod)
            for at, pod in enumerate(pods)
            if pod.namespace == meta["namespace"] and selects({"matchLabels": spec["selector"]}, pod.labels)
        ]
        if not behind:
            sys.exit(f"no pod is behind the service {meta['name']}")
        ports = tuple((port["port"], behind[0][1].port(port["targetPort"]) or 0) for port in spec["ports"])
        addresses = tuple(_address(at) for at, _ in behind)
        headless = spec.get("clusterIP") == "None"
        own = addresses[0] if headless else f"10.96.0.{number}"
        services.append(Service(meta["namespace"], meta["name"], own, addresses, () if headless else ports))
    return Network(prefix, pods, tuple(services), tuple(manifests.of("NetworkPolicy")), namespaces)


def _address(number: int) -> str:
    return f"10.244.0.{number + 2}"


def _spread(addresses: Sequence[str], port: int) -> str:
    if len(addresses) == 1:
        return f"{addresses[0]}:{port}"
    each = ", ".join(f"{number} : {address}" for number, address in enumerate(addresses))
    return f"numgen inc mod {len(addresses)} map {{ {each} }}:{port}"


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str, given: str | None = None) -> None:
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}\n{given or ''}")
