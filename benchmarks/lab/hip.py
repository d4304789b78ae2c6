"""`hip serve` as a contender: all protections, and variants with one of them off, each by configuration alone."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.lab.process import CONTENDER_CORE, Started, free_port, start
from benchmarks.lab.setting import ANALYST, TRIAL, Setting
from benchmarks.lab.upstream import CHAT_MODEL, MODEL, ROWS_1MB, ROWS_10MB, STREAM_MODEL

_CONFIG = """\
version: v1
listen:
  host: 127.0.0.1
  port: {port}
{tls}  limits: {{connections: 4096, connections_per_source: 4096}}
admin: {{host: 127.0.0.1, port: {admin}}}
policies: policy
audit: {{directory: audit, durability: {durability}}}
{spans}failed_authentications: 1000000000 requests/minute
"""
_TLS = """\
  tls:
    certificate: {certs}/server.crt
    key: {certs}/server.key
    client_ca: {certs}/ca.crt
    client_certificates: optional
"""

_POLICY = """\
version: v1
issuers:
  lab:
    issuer: {issuer}
    audience: {audience}
    jwks_file: {directory}/jwks.json
    algorithms: [ES256, EdDSA]
    roles_claim: realm_access.roles
    mfa: {{any_amr: [otp, hwk], acr_values: ["urn:example:aal2"]}}
upstreams:
  server: {{url: "{url}", dialect: oip-v2}}
  chat: {{url: "{url}", dialect: openai}}
  live: {{url: "{streaming}", dialect: openai}}
models:
  {model}: {{upstream: server}}
  {model}-{rows_1mb}: {{upstream: server}}
  {model}-{rows_10mb}: {{upstream: server}}
  {chat}: {{upstream: chat}}
  {live}: {{upstream: live}}
budgets:
  plenty: [{windows}]
  none: [1 requests/day]
outputs:
  profile: {output}
{detectors}floor: {{mfa: required}}
rules:
{rules}  - id: analysts
    allow:
      roles: [{analyst}]
      actions: [infer, metadata, health]
      models: [{model}, {model}-{rows_1mb}, {model}-{rows_10mb}]
    mfa: {{max_age: 8h}}
    budget: plenty
    output: profile
{use}  - id: writers
    allow: {{roles: [{analyst}], actions: [infer, stream], models: [{chat}, {live}]}}
    mfa: {{max_age: 8h}}
    budget: plenty
    output: profile
  - id: trial
    allow: {{roles: [{trial}], actions: [infer], models: [{model}]}}
    budget: none
    output: profile
"""
_RULE = """\
  - id: team-{number}
    allow: {{roles: [team-{number}], actions: [infer], models: [{model}]}}
    budget: plenty
    output: profile
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """What is on. The default is everything, as `hip demo` has it."""

    tls: bool = True
    detector: bool = True
    durability: str = "group"
    spans: bool = True
    hardening: bool = True
    windows: int = 2
    rules: int = 2
    stages: bool = False


def starter(name: str, variant: Variant) -> Callable[[Setting], Started]:
    """Return how to start a variant."""
    return lambda setting: start_hip(setting, name, variant)


def start_hip(setting: Setting, name: str, variant: Variant, admin: int | None = None) -> Started:
    """Write the files that an operator would write, and start `hip serve`."""
    place, port = setting.place(name.replace(",", "")), free_port()
    (place / "policy").mkdir()
    (place / "policy" / "digits.onnx").write_bytes((setting.directory / "digits.onnx").read_bytes())
    (place / "policy" / "policy.yaml").write_text(policy(setting, variant))
    tls = _TLS.format(certs=setting.certificates.server.certificate.parent)
    config = _CONFIG.format(
        port=port,
        admin=admin or free_port(),
        tls=tls if variant.tls else "  plaintext: allowed\n",
        durability=variant.durability,
        spans="telemetry: {file: spans.jsonl}\n" if variant.spans else "",
    )
    (place / "hip.yaml").write_text(config)
    command = [sys.executable, "-m", "proxy", "serve", "--config", place / "hip.yaml"]
    if variant.stages:
        command.append("--trace-stages")
    return start(command, CONTENDER_CORE, port, place / "log", directory=setting.root)


def policy(setting: Setting, variant: Variant) -> str:
    """Return the policy."""
    windows = ["1000000000 requests/minute", "100000000000 rows/day"][: variant.windows]
    detectors = f"detectors:\n  {MODEL}: {{file: digits.onnx, sha256: {setting.detector_digest}}}\n"
    return _POLICY.format(
        issuer=setting.issuer,
        audience=setting.audience,
        directory=setting.directory,
        url=setting.upstream.url,
        streaming=setting.upstream.streaming_url,
        chat=CHAT_MODEL,
        live=STREAM_MODEL,
        model=MODEL,
        rows_1mb=ROWS_1MB,
        rows_10mb=ROWS_10MB,
        windows=", ".join(windows),
        output="{decimals: 2, top_k: 3}" if variant.hardening else "{decimals: 12}",
        detectors=detectors if variant.detector else "",
        use=f"    detector: {{use: {MODEL}, mode: enforce, on_suspicion: label}}\n" if variant.detector else "",
        rules="".join(_RULE.format(number=number, model=MODEL) for number in range(variant.rules - 2)),
        analyst=ANALYST,
        trial=TRIAL,
    )
