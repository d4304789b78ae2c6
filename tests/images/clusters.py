"""A kustomization that runs on this machine (`.ci/cluster`), and who reaches whom in it, packet by packet."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.images.place import ROOT, command

UP = 90  # seconds until all pods are ready; never awaited when all is well
KNOCK = 1.0  # seconds for a packet that nobody answers
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.0, 1.0]}]}
WORLD = ("203.0.113.9", 443)  # RFC 5737

_KNOCK = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])).close()
    print("open")
except TimeoutError:
    print("dropped")
except OSError as error:
    print(type(error).__name__)
"""

_ASK = """\
import http.client, json, ssl, sys
trust = ssl.create_default_context(cafile=sys.argv[1])
for model in sys.argv[4:]:
    asked = http.client.HTTPSConnection("hip.hip.svc", 443, context=trust, timeout=20)
    headers = {"content-type": "application/json", "authorization": "Bearer " + sys.argv[2]}
    asked.request("POST", f"/v2/models/{model}/infer", sys.argv[3], headers)
    answer = asked.getresponse()
    print(json.dumps([answer.status, json.loads(answer.read())]))
    asked.close()
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What runs; pods by `namespace-name`."""

    name: str
    state: Path

    def inside(self, pod: str, *words: object) -> str:
        """Run a command of ours in a pod's network."""
        return command("ip", "netns", "exec", f"{self.name}-{pod}", *words)

    def knock(self, pod: str, address: str, port: int) -> str:
        """Say what becomes of a connection: open, dropped, or how it was refused."""
        return self.inside(pod, sys.executable, "-Ic", _KNOCK, address, port, KNOCK)

    def ask(self, pod: str, *models: str) -> list[tuple[int, dict]]:
        """Ask each model in turn, on a connection of its own."""
        token = (self.state / "token").read_text()
        words = (sys.executable, "-Ic", _ASK, self.state / "certs" / "ca.crt", token, json.dumps(ROW), *models)
        return [tuple(json.loads(line)) for line in self.inside(pod, *words).splitlines()]

    def rules(self) -> str:
        return self.inside("node", "nft", "list", "ruleset")

    def dropped(self) -> int:
        """How many packets the policies have dropped."""
        return sum(map(int, re.findall(r"counter packets (\d+) bytes \d+ drop", self.rules())))

    def sent(self) -> int:
        """How many packets somebody sent to the world."""
        return int(self.inside("node", "cat", "/sys/class/net/out0/statistics/tx_packets"))

    def address(self, pod: str) -> str:
        (found,) = json.loads(command("ip", "-n", f"{self.name}-{pod}", "-j", "-4", "addr", "show", "eth0"))
        return str(found["addr_info"][0]["local"])

    def logs(self, pod: str, container: str) -> str:
        words = ["podman", "logs", f"{self.name}-{pod}-{container}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


@contextmanager
def cluster(directory: str, image: str, state: Path) -> Iterator[Cluster]:
    """Have a kustomization up, and take it down."""
    name = f"h{os.getpid()}-{Path(directory).name}"  # two may be up at once
    words = (sys.executable, ROOT / ".ci" / "cluster")
    own = ("--name", name, "--image", image, "--state", state)
    done = subprocess.run(
        [*map(str, words), "up", str(ROOT / directory), *map(str, own)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=UP,
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield Cluster(name, state)
    finally:
        subprocess.run(
            [*map(str, words), "down", "--state", str(state)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
