"""Everything that the demo needs, in one directory: certificates, a detector, a policy, `hip.yaml`, two servers.

The files are what a user would write; look at them. The proxy is started as `hip serve` starts it.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from proxy.adapters.mint import Minted, mint
from proxy.app import Running, running
from proxy.demo.detector import fit_digits_detector
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.demo.model_server import MODEL, ModelServer

HOSTS = ("localhost", "127.0.0.1")
TRIAL_REQUESTS = 3  # a minute: small, so that the tour can exhaust it

POLICY = """\
# yaml-language-server: $schema=policy.schema.json
version: v1

issuers:
  demo:
    issuer: {issuer}
    audience: {audience}
    jwks_uri: {jwks_uri}
    algorithms: [ES256, EdDSA]
    roles_claim: realm_access.roles
    mfa: {{any_amr: [otp, hwk], acr_values: ["urn:example:aal2"]}}

upstreams:
  model-server: {{url: {upstream}, dialect: oip-v2, timeout: 10s}}

models:
  {model}: {{upstream: model-server}}

budgets:
  analyst: [600 requests/minute, 5000 rows/day]
  trial: [{trial} requests/minute]

outputs:
  coarse: {{decimals: 2, top_k: 3}}
  label: {{label_only: true}}

detectors:
  {model}: {{file: digits-detector.onnx, sha256: {sha256}}}

floor: {{mfa: required, output: {{decimals: 4}}}}

rules:
  - id: analysts-see-coarse-scores
    allow: {{roles: [analyst], actions: [infer, metadata, health], models: [{model}]}}
    mfa: {{max_age: 8h}}
    budget: analyst
    output: coarse
    detector: {{use: {model}, mode: enforce, on_suspicion: label, sequences: enforce}}

  - id: trial-users-see-labels
    allow: {{roles: [trial], actions: [infer], models: [{model}]}}
    budget: trial
    output: label
    detector: {{use: {model}, mode: enforce, on_suspicion: refuse}}
"""

CONFIG = """\
version: v1
listen:
  host: 127.0.0.1
  port: {port}
  tls:
    certificate: certs/server.crt
    key: certs/server.key
    client_ca: certs/ca.crt
    client_certificates: optional
admin: {{host: 127.0.0.1, port: {admin_port}}}
policies: policy
audit: {{directory: audit}}
telemetry: {{file: spans.jsonl}}
"""


@dataclass(frozen=True, slots=True)
class DemoWorld:
    """What the tour walks through."""

    directory: Path
    certificates: Minted
    identity: DemoIdentityProvider
    model_server: ModelServer
    proxy: Running

    @property
    def url(self) -> str:
        """The model behind the proxy."""
        return f"https://localhost:{self.proxy.port}/v2/models/{MODEL}"

    @property
    def direct_url(self) -> str:
        """The same model without the proxy."""
        return f"{self.model_server.url}/v2/models/{MODEL}"


@asynccontextmanager
async def demo_world(directory: Path, port: int = 0, admin_port: int = 0) -> AsyncIterator[DemoWorld]:
    """Build the directory and serve inside the block. Only loopback is bound; 0 takes a free port."""
    async with DemoIdentityProvider() as identity, ModelServer() as model_server:
        certificates = mint(directory / "certs", HOSTS, ["analyst"])
        policy = directory / "policy"
        policy.mkdir()
        detector = fit_digits_detector()
        (policy / "digits-detector.onnx").write_bytes(detector)
        (policy / "policy.yaml").write_text(
            POLICY.format(
                issuer=identity.issuer,
                audience=AUDIENCE,
                jwks_uri=identity.jwks_uri,
                upstream=model_server.url,
                model=MODEL,
                trial=TRIAL_REQUESTS,
                sha256=sha256(detector).hexdigest(),
            )
        )
        config = directory / "hip.yaml"
        config.write_text(CONFIG.format(port=port, admin_port=admin_port))
        async with running(config) as proxy:
            yield DemoWorld(directory, certificates, identity, model_server, proxy)


def fresh(directory: Path) -> Path:
    """Return the directory, empty. Raise FileExistsError rather than remove what a demo did not make."""
    if directory.exists():
        if any(directory.iterdir()) and not (directory / "hip.yaml").is_file():
            msg = f"{directory} is not empty, and no demo made it"
            raise FileExistsError(msg)
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    return directory
