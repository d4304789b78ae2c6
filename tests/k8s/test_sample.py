"""The sample cluster's manifests: valid for several Kubernetes versions, every namespace restricted and closed.

That it works, and who reaches whom in it, is shown by running it: tests/images/test_cluster.py.
"""

import kubernetes_validate
import pytest

from proxy.cli.check import inspect
from proxy.config import read_settings
from tests.k8s.rendered import ROOT, Rendered, rendered
from tests.k8s.test_manifests import VERSIONS


@pytest.fixture(scope="module")
def sample() -> Rendered:
    return rendered(str(ROOT / "k8s" / "sample"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sample_is_valid(sample, version):
    for entry in sample.objects:
        kubernetes_validate.validate(entry, version, strict=True)


def test_every_namespace_is_restricted_and_has_a_policy_for_all_its_pods(sample):
    for namespace in sample.of("Namespace"):
        name = namespace["metadata"]["name"]
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        found = [entry["spec"] for entry in sample.of("NetworkPolicy") if entry["metadata"]["namespace"] == name]
        assert any(spec["podSelector"] == {} and set(spec["policyTypes"]) == {"Ingress", "Egress"} for spec in found)


def test_every_pod_drops_everything(sample):
    for workload in sample.workloads:
        assert workload.pod["automountServiceAccountToken"] is False
        assert workload.pod["securityContext"]["runAsNonRoot"] is True
        for container in workload.containers:
            own = container["securityContext"]
            assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
            assert own["capabilities"] == {"drop": ["ALL"]}


def test_its_settings_and_its_policy_are_good(sample, tmp_path):
    settings = read_settings("hip.yaml", sample.settings().encode())
    assert settings.state is not None
    assert settings.state.password_file is not None
    for name, content in sample.named("ConfigMap", "hip-policy")["data"].items():
        (tmp_path / name).write_text(content)
    assert [str(finding) for finding in inspect(tmp_path).findings] == []
