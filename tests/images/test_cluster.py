"""The rendered manifests, run: their pods by podman, their NetworkPolicies as packet filters between real networks.

What is tested is the objects that a cluster would get, not a copy. Not tested: the network plugin of a real cluster.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.clusters import WORLD, Cluster, cluster
from tests.images.place import command

MODEL, HIP, CALLER, STRANGER = "hip-sample-model-0", "hip-hip-0", "callers-caller", "strangers-stranger"
LISTENED_TO = {8080, 8443, 9090}
SPANS_WITHIN = 20.0  # seconds until spans are at the receiver, on a busy machine


@pytest.fixture(scope="module")
def dev(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The dev overlay."""
    with cluster("k8s/overlays/dev", image, tmp_path_factory.mktemp("dev") / "state") as running:
        yield running


def test_a_caller_gets_what_the_policy_says(dev):
    ((status, answer),) = dev.ask(CALLER, "sample")
    assert status == 200, dev.logs("hip-hip-0", "hip")
    assert answer["outputs"][0]["data"] == [0.12, 0.88]


WAYS = [
    (CALLER, HIP, 8443, "open"),
    (HIP, MODEL, 8080, "open"),
    ("node", HIP, 9090, "open"),  # the kubelet's probes
    (CALLER, HIP, 9090, "dropped"),
    (CALLER, MODEL, 8080, "dropped"),
    (STRANGER, HIP, 8443, "dropped"),
    (STRANGER, HIP, 9090, "dropped"),
    (STRANGER, MODEL, 8080, "dropped"),
    (MODEL, HIP, 8443, "dropped"),
    (MODEL, HIP, 9090, "dropped"),
    (MODEL, STRANGER, 80, "dropped"),
    (HIP, MODEL, 8081, "dropped"),
    (HIP, STRANGER, 80, "dropped"),
]


@pytest.mark.parametrize(("asking", "target", "port", "outcome"), WAYS)
def test_who_reaches_whom(dev, asking, target, port, outcome):
    """A packet that may not pass is dropped, and by a policy: its counter moves."""
    before = dev.dropped()
    assert dev.knock(asking, dev.address(target), port) == outcome
    assert (dev.dropped() > before) == (outcome == "dropped")


@pytest.mark.parametrize("asking", [HIP, MODEL])
def test_neither_proxy_nor_model_reaches_the_world(dev, asking):
    before = dev.dropped()
    assert dev.knock(asking, *WORLD) == "dropped"
    assert dev.dropped() > before
    assert dev.sent() == 0


def test_a_pod_runs_as_its_manifest_says(dev):
    """The security context, as the kernel has it."""
    pid = command("podman", "inspect", "--format", "{{.State.Pid}}", f"{dev.name}-{HIP}-hip")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_without_the_policies_all_of_it_is_open(dev):
    """What the tests above trust: the policies are what drops, and a packet to the world is seen."""
    dev.inside("node", "nft", "flush", "chain", "ip", "cluster", "forward")
    for source, target, port, _ in WAYS:
        if port in LISTENED_TO:
            assert dev.knock(source, dev.address(target), port) == "open"
    assert dev.knock(MODEL, *WORLD) == "dropped"
    assert dev.sent() > 0


# ── the sample ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_sample_shares_budgets_and_sends_its_spans(image, tmp_path):
    """Two replicas, two models, a Valkey behind a password in a file, a receiver: one budget, each model its output."""
    with cluster("k8s/sample", image, tmp_path / "state") as sample:
        answers = await asyncio.to_thread(sample.ask, CALLER, *("sample", "second") * 6)
        assert Counter(status for status, _ in answers) == {200: 10, 429: 2}, sample.logs(HIP, "hip")
        assert answers[0][1]["outputs"][0]["data"] == [0.12, 0.88]
        assert answers[1][1]["outputs"][0]["data"] == [0.0, 1.0]

        served = [_served(sample, replica) for replica in (HIP, "hip-hip-1")]
        assert sum(served) == 10
        assert all(served), "one replica alone shows no sharing"

        valkey, receiver = "valkey-valkey-0", "observability-collector-0"
        for source, target, port, outcome in [
            (HIP, valkey, 6379, "open"),
            (CALLER, valkey, 6379, "dropped"),
            (MODEL, valkey, 6379, "dropped"),
            (HIP, receiver, 4318, "open"),
            (STRANGER, receiver, 4318, "dropped"),
            (valkey, HIP, 8443, "dropped"),
        ]:
            assert sample.knock(source, sample.address(target), port) == outcome, (source, target)

        names: list[str] = []
        async with asyncio.timeout(SPANS_WITHIN):
            while names.count("POST oip-v2/infer") < len(answers):
                await asyncio.sleep(0.2)
                told = sample.logs(receiver, "collector").splitlines()
                names = [json.loads(line)["span"] for line in told if line.startswith("{")]
        assert sample.sent() == 0


def _served(sample: Cluster, replica: str) -> int:
    """How many requests a replica has allowed, by its metrics, as the kubelet's side sees them."""
    asking = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
    url = f"http://{sample.address(replica)}:9090/metrics"
    metrics = sample.inside("node", "python3", "-Ic", asking, url)
    found = re.findall(r'^hip_requests_total\{[^}]*reason="allowed"[^}]*\} ([\d.]+)$', metrics, re.MULTILINE)
    return sum(int(float(number)) for number in found)
