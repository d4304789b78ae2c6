"""MLflow twice behind one `hip serve`: two upstreams whose requests name no model, told apart by their prefix."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from tests.hip import Hip, hip_serve
from tests.servers.asking import ask
from tests.servers.questions import QUESTIONS
from tests.servers.running import RunningServer
from tests.servers.through import DECIMALS

POLICY = """\
version: v1
issuers:
  corp:
    issuer: {issuer}
    audience: {audience}
    jwks_file: ../jwks.json
    algorithms: [ES256, EdDSA]
    roles_claim: realm_access.roles
upstreams:
  one: {{urls: [{url}], dialect: mlflow, prefix: /one, health: {{every: 200ms}}}}
  other: {{url: {url}, dialect: mlflow, prefix: /team/other}}
models:
  digits: {{upstream: one}}
  more-digits: {{upstream: other}}
budgets:
  plenty: [100000 requests/minute]
outputs:
  coarse: {{decimals: {decimals}}}
  label: {{label_only: true}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer, health], models: [digits]}}
    budget: plenty
    output: coarse
  - id: analysts-see-labels
    allow: {{roles: [analyst], actions: [infer, health], models: [more-digits]}}
    budget: plenty
    output: label
"""


@pytest.fixture(scope="module")
def serving(mlflow: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hip, str]]:
    directory: Path = tmp_path_factory.mktemp("hip-mlflow-twice")
    identity = DemoIdentityProvider(port=1)
    (directory / "jwks.json").write_bytes(identity.jwks())
    policy = POLICY.format(issuer=identity.issuer, audience=AUDIENCE, url=mlflow.url, decimals=DECIMALS)
    with hip_serve(directory, policy) as hip:
        yield hip, identity.token("alice", ("analyst",))


def test_each_prefix_has_its_model_and_its_output(serving: tuple[Hip, str], mlflow: RunningServer) -> None:
    hip, token = serving
    question = QUESTIONS["mlflow"]["inputs"]
    (raw,) = ask(mlflow.url, question).json()["predictions"]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    with httpx.Client(base_url=hip.url, verify=hip.trust(), headers=headers, trust_env=False) as http:
        one = http.post("/one/invocations", content=question.body)
        other = http.post("/team/other/invocations", content=question.body)
        assert one.json()["predictions"] == [[round(score, DECIMALS) for score in raw]]
        assert one.json() != other.json()
        assert http.get("/one/ping").status_code == http.get("/team/other/health").status_code == 200
        for path in ("/invocations", "/other/invocations", "/team/invocations", "/one/version"):
            assert http.post(path, content=question.body).status_code == 404
    records = [json.loads(line) for line in hip.journal().splitlines()]
    models = [record["model"] for record in records if record["type"] == "decision" and record.get("action") == "infer"]
    assert models == ["digits", "more-digits"]
    answered = [record.get("upstream_replica") for record in records if record["type"] == "completion"]
    assert answered[:2] == [mlflow.url.removeprefix("http://"), None]


def test_the_real_server_is_well_by_its_own_health_path(serving: tuple[Hip, str], mlflow: RunningServer) -> None:
    hip, _ = serving
    address = mlflow.url.removeprefix("http://")
    readiness = httpx.get(f"{hip.admin_url}/readyz", trust_env=False).json()
    assert readiness["checks"][f"replica:one:{address}"]["health"] == "ok"
    assert "hip_replica_up" in httpx.get(f"{hip.admin_url}/metrics", trust_env=False).text
