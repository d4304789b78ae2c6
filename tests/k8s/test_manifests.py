"""The rendered overlays: valid for several Kubernetes versions, and meaning what they should.

A schema knows what may be written; that a volume's ConfigMap is there, that a selector finds a pod and that a probe
asks a port that exists, it does not know. Not tested here: a CNI that enforces the policies, and the controllers.
"""

import re
from pathlib import Path

import kubernetes_validate
import pytest

from proxy.cli.check import inspect
from proxy.config import read_settings
from tests.k8s.rendered import NAMES, OVERLAYS, Rendered, rendered, selects

VERSIONS = ("1.25", "1.27", "1.29", "1.31", "1.33", "1.35", "1.37")
HIP_UID = 65532
QUANTITIES = {"cpu": r"[1-9]\d*m?", "memory": r"[1-9]\d*[KMG]i", "ephemeral-storage": r"[1-9]\d*[KMG]i"}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")

# What custom resources may say, after their documentation: a field that is not here is a typo or wants a look.
CERTIFICATE = {
    "secretName", "duration", "renewBefore", "privateKey", "usages", "dnsNames", "issuerRef", "commonName", "isCA",
    "ipAddresses", "uris", "emailAddresses", "subject", "secretTemplate", "revisionHistoryLimit", "keystores",
}  # fmt: skip
CERTIFICATE_KEY = {"algorithm", "encoding", "rotationPolicy", "size"}
CERTIFICATE_ISSUER = {"group", "kind", "name"}
CERTIFICATE_USAGES = {
    "digital signature", "key encipherment", "server auth", "client auth", "key agreement", "cert sign", "crl sign",
}  # fmt: skip
# KServe's own beside those of a PodSpec: https://kserve.github.io/website/docs/reference/crd-api
PREDICTOR = {"minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "timeout", "canaryTrafficPercent", "logger",
             "batcher", "labels", "annotations", "deploymentStrategy", "containerConcurrency"}  # fmt: skip

RESOLVED_ELSEWHERE = {"Certificate", "InferenceService"}


@pytest.fixture(params=NAMES)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return rendered(request.param)


def test_every_overlay_is_tested():
    assert sorted(path.name for path in OVERLAYS.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("version", VERSIONS)
def test_valid(overlay, version):
    for entry in overlay.objects:
        if entry["kind"] not in RESOLVED_ELSEWHERE:
            kubernetes_validate.validate(entry, version, strict=True)


def test_a_certificate_says_what_cert_manager_knows(overlay):
    for entry in overlay.of("Certificate"):
        spec = entry["spec"]
        assert entry["apiVersion"] == "cert-manager.io/v1"
        assert set(spec) <= CERTIFICATE
        assert {"secretName", "issuerRef"} <= set(spec)
        assert set(spec["privateKey"]) <= CERTIFICATE_KEY
        assert set(spec["issuerRef"]) <= CERTIFICATE_ISSUER
        assert set(spec["usages"]) <= CERTIFICATE_USAGES


@pytest.mark.parametrize("version", VERSIONS)
def test_an_inference_service_is_a_pod_and_what_kserve_adds(overlay, version):
    for entry in overlay.of("InferenceService"):
        assert entry["apiVersion"] == "serving.kserve.io/v1beta1"
        assert set(entry["spec"]) == {"predictor"}
        pod = {key: value for key, value in entry["spec"]["predictor"].items() if key not in PREDICTOR}
        as_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
        kubernetes_validate.validate(as_pod, version, strict=True)
        assert pod["containers"][0]["name"] == "kserve-container"  # where KServe sends the traffic
        assert pod["containers"][0]["ports"][0]["containerPort"] == 8443


def test_everything_is_in_the_namespace_that_is_restricted(overlay):
    (namespace,) = overlay.of("Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert re.fullmatch(r"v1\.\d+", labels["pod-security.kubernetes.io/enforce-version"])
    assert {entry["metadata"].get("namespace") for entry in overlay.objects if entry is not namespace} == {
        namespace["metadata"]["name"]
    }


# ── pods ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_pod_is_restricted_and_more(overlay):
    """Pod Security `restricted`, a read-only root, no token, memory that ends, a seccomp profile."""
    for workload in overlay.workloads:
        pod, security = workload.pod, workload.pod["securityContext"]
        assert pod["automountServiceAccountToken"] is False
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in workload.containers:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert not {"privileged", "procMount"} & set(own)
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["requests"])
            assert {"memory", "ephemeral-storage"} <= set(container["resources"]["limits"])
            for amounts in container["resources"].values():  # `512m` of memory is half a byte, and valid
                assert all(re.fullmatch(QUANTITIES[name], str(amount)) for name, amount in amounts.items())


def test_a_user_of_its_own_id_in_one_place(overlay):
    """The volumes' group is hip's, and set once: `Always` would open the journal to the group at each start."""
    security = overlay.hip.pod["securityContext"]
    assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == HIP_UID
    assert security["fsGroupChangePolicy"] == "OnRootMismatch"


def test_every_mount_has_its_volume_and_every_volume_its_mount(overlay):
    for workload in overlay.workloads:
        there = {volume["name"] for volume in workload.pod["volumes"]} | workload.claims
        used = {mount["name"] for box in workload.containers for mount in box["volumeMounts"]}
        assert used == there
        assert not any("subPath" in mount for box in workload.containers for mount in box["volumeMounts"])


def test_what_a_volume_names_is_there(overlay):
    """Here, made by a controller, or said to be brought; and nothing is said to be brought that nobody uses."""
    for workload in overlay.workloads:
        named = set()
        for volume in workload.pod["volumes"]:
            for kind, source, field in (
                ("ConfigMap", "configMap", "name"),
                ("Secret", "secret", "secretName"),
                ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
            ):
                if source in volume:
                    named.add((kind, volume[source][field]))
                    assert not volume[source].get("optional")
        absent = {f"{kind}/{name}" for kind, name in named if overlay.named(kind, name) is None}
        assert absent == workload.brought


def test_a_certificate_makes_a_secret_that_is_used(overlay):
    for entry in overlay.of("Certificate"):
        assert f"Secret/{entry['spec']['secretName']}" in overlay.hip.brought


def test_no_configmap_is_left_over(overlay):
    used = {
        volume["configMap"]["name"]
        for each in overlay.workloads
        for volume in each.pod["volumes"]
        if "configMap" in volume
    }
    assert {entry["metadata"]["name"] for entry in overlay.of("ConfigMap")} == used
    assert not overlay.of("Secret")  # a secret in a repository is none


def test_the_private_key_is_as_private_as_hip_wants_it(overlay):
    (tls,) = [volume for volume in overlay.hip.pod["volumes"] if volume["name"] == "tls"]
    assert tls["secret"]["defaultMode"] == 0o440


def test_probes_ask_ports_that_exist(overlay):
    for workload in overlay.workloads:
        for container in workload.pod["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            probes = [container[name] for name in PROBES if name in container]
            assert "livenessProbe" in container
            assert "readinessProbe" in container
            assert all(probe["httpGet"]["port"] in ports for probe in probes if "httpGet" in probe)


def test_hip_is_probed_on_its_admin_port(overlay):
    """Alive is not ready: a proxy whose identity provider is down must not be restarted."""
    (container,) = [box for box in overlay.hip.pod["containers"] if "serve" in box.get("args", [])]
    asked = {name: container[name]["httpGet"] for name in PROBES}
    assert {get["port"] for get in asked.values()} == {"admin"}
    assert asked["livenessProbe"]["path"] == asked["startupProbe"]["path"] == "/healthz"
    assert asked["readinessProbe"]["path"] == "/readyz"


def test_there_is_time_to_drain(overlay):
    """preStop, then the listener's drain, then the journal's end, before anybody is killed."""
    (container,) = [box for box in overlay.hip.pod["containers"] if "serve" in box.get("args", [])]
    sleep = re.search(r"time\.sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert sleep
    settings = read_settings("hip.yaml", overlay.settings().encode())
    assert int(sleep[1]) + settings.listen.drain + 5 <= overlay.hip.pod["terminationGracePeriodSeconds"]


# ── between objects ─────────────────────────────────────────────────────────────────────────────────────────────


def test_services_and_budgets_find_their_pods(overlay):
    for service in overlay.of("Service"):
        (found,) = [each for each in overlay.workloads if selects(service["spec"]["selector"], each.labels)]
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in found.ports
    (budget,) = overlay.of("PodDisruptionBudget")
    assert selects(budget["spec"]["selector"]["matchLabels"], overlay.hip.labels)
    assert budget["spec"]["maxUnavailable"] == 1


def test_the_spread_counts_its_own_pods(overlay):
    for workload in overlay.workloads:
        for constraint in workload.pod.get("topologySpreadConstraints", []):
            assert selects(constraint["labelSelector"]["matchLabels"], workload.labels)


def test_a_stateful_set_has_its_service(overlay):
    for entry in overlay.of("StatefulSet"):
        service = overlay.named("Service", entry["spec"]["serviceName"])
        assert service
        assert service["spec"]["clusterIP"] == "None"
        assert entry["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"  # the journal stays


def test_an_autoscaler_scales_what_is_there_alone(overlay):
    for entry in overlay.of("HorizontalPodAutoscaler"):
        target = entry["spec"]["scaleTargetRef"]
        scaled = overlay.named(target["kind"], target["name"])
        assert scaled
        assert "replicas" not in scaled["spec"]
        assert entry["spec"]["minReplicas"] > 1


def test_more_than_one_replica_shares_what_it_counts(overlay):
    """Otherwise every budget is multiplied in silence."""
    alone = overlay.hip.replicas == 1 and not overlay.of("HorizontalPodAutoscaler")
    settings = read_settings("hip.yaml", overlay.settings().encode())
    assert (settings.state is None) == alone


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────


def _policies(overlay: Rendered):
    return [entry["spec"] for entry in overlay.of("NetworkPolicy")]


def test_nothing_goes_in_or_out_by_default(overlay):
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in _policies(overlay)


def test_no_rule_is_for_everybody(overlay):
    """An empty list of peers means the world; so does a rule without ports mean every port."""
    for spec in _policies(overlay):
        for rule, peers in [(r, "from") for r in spec.get("ingress", [])] + [(r, "to") for r in spec.get("egress", [])]:
            assert rule[peers]
            assert rule["ports"]
            for peer in rule[peers]:
                assert peer.get("ipBlock", {}).get("cidr") != "0.0.0.0/0"
                assert peer.get("podSelector") != {}
                assert peer.get("namespaceSelector") != {}


def test_policies_are_about_pods_that_exist(overlay):
    """A label of ours that no pod has is a policy that protects nobody; a named port that no pod has lets nobody in."""
    models = [each for each in overlay.workloads if each.labels.get("hip/model")]
    for spec in _policies(overlay):
        chosen = spec["podSelector"].get("matchLabels", {})
        found = [each for each in overlay.workloads if selects(chosen, each.labels)]
        about_models = chosen.get("hip/model") == "true"
        assert found or about_models  # models come with their own manifests
        for rule in spec.get("ingress", []):
            names = {port["port"] for port in rule["ports"]}
            assert all(names <= set(each.ports) for each in found)
        assert not about_models or all(each in models for each in found)


def test_only_hip_reaches_a_model(overlay):
    if not (policy := overlay.named("NetworkPolicy", "models")):
        assert overlay.name == "sidecar-kserve"
        return
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert "egress" not in policy["spec"]
    assert [each for each in overlay.workloads if selects(peer["podSelector"]["matchLabels"], each.labels)] == [
        overlay.hip
    ]


def test_hip_may_reach_what_its_settings_name(overlay):
    """A collector and a store that the network does not let it reach would be found out in production."""
    settings = read_settings("hip.yaml", overlay.settings().encode())
    ways = {entry["metadata"]["name"] for entry in overlay.of("NetworkPolicy")}
    assert (settings.telemetry.otlp is not None) == ("hip-to-collector" in ways)
    assert (settings.state is not None) == ("hip-to-valkey" in ways)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("sidecar")])
def test_a_sidecars_model_listens_to_its_own_pod_only(name):
    """Bound to loopback, and without a port that anything could be sent to."""
    overlay = rendered(name)
    (model,) = [box for box in overlay.hip.pod["containers"] if "serve" not in box.get("args", [])]
    assert "ports" not in model
    said = [*model.get("args", []), *(f"{item['name']}={item['value']}" for item in model.get("env", []))]
    addresses = [word.partition("=")[2] for word in said if re.search(r"address=|HOST=", word)]
    assert addresses
    assert set(addresses) == {"127.0.0.1"}


# ── what is mounted ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_settings_fit_the_mounts(overlay):
    settings = read_settings("hip.yaml", overlay.settings().encode())
    (container,) = [box for box in overlay.hip.pod["containers"] if "serve" in box.get("args", [])]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert settings.listen.tls
    assert mounts[settings.policies] is True
    assert mounts[str(Path(settings.listen.tls.certificate).parent)] is True
    assert mounts[str(Path(settings.audit.directory).parent)] is False
    if settings.state is not None:  # no ConfigMap holds a password
        assert settings.state.password_file is not None
        assert mounts[str(Path(settings.state.password_file).parent)] is True
    ports = overlay.hip.ports
    assert (settings.listen.port, settings.admin.port) == (ports["https"], ports["admin"])
    assert settings.admin.host == "0.0.0.0"  # the kubelet is not in the pod


def test_hip_check_finds_nothing_in_the_mounted_policy(overlay, tmp_path):
    policy = overlay.named("ConfigMap", "hip-policy")
    assert policy
    for name, content in policy["data"].items():
        (tmp_path / name).write_text(content)
    report = inspect(tmp_path)
    assert report.policy is not None
    assert [str(finding) for finding in report.findings] == []


def test_the_policy_asks_servers_that_exist(overlay, tmp_path):
    """By the name of a Service of the namespace, or on the pod's own loopback."""
    data = overlay.named("ConfigMap", "hip-policy")["data"]
    for host, port in re.findall(r"url: \"http://([^:]+):(\d+)\"", "\n".join(data.values())):
        if host == "127.0.0.1":
            assert overlay.name.startswith("sidecar")
            continue
        if overlay.name == "prod":  # your models come with your manifests
            continue
        service = overlay.named("Service", host)
        assert service
        assert int(port) in {entry["port"] for entry in service["spec"]["ports"]}


def test_images_are_named_once(overlay):
    """The base names `hip`; which one that is, is the overlay's to say."""
    images = {box["image"] for each in overlay.workloads for box in each.containers}
    expected = {"dev": {"localhost/hip:latest"}, "prod": {"hip"}, "sidecar-triton": {"hip", "tritonserver"},
                "sidecar-kserve": {"hip", "mlserver"}}  # fmt: skip
    assert images == expected[overlay.name]
