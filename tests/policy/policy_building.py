"""Builds policies and principals for the tests of this folder."""

from msgspec.structs import replace

from proxy.exchange import Principal
from proxy.policy.compile import compile_policy
from proxy.policy.model import Policy

NOW = 1_700_000_000.0

BASE = """\
version: v1
issuers:
  corp:
    issuer: https://idp.example.com
    audience: inference-proxy
    jwks_uri: https://idp.example.com/jwks
    algorithms: [ES256]
    roles_claim: realm_access.roles
upstreams:
  main: {url: "http://127.0.0.1:8080/base/", dialect: oip-v2, timeout: 5s, max_reply: 1MiB}
models:
  iris: {upstream: main, labels: {team: botany}}
budgets:
  trial: [60 requests/minute, 1000 rows/day]
outputs:
  coarse: {decimals: 2}
"""

READERS = """\
rules:
  - id: readers
    allow: {roles: [reader], actions: [infer], models: [iris]}
    budget: trial
    output: coarse
"""


def policy(text: str = BASE + READERS, **options: str) -> Policy:
    return compile_policy({"policy.yaml": text.encode()}, **options)  # type: ignore[arg-type]


_PRINCIPAL = Principal(
    issuer="corp",
    subject="somebody",
    roles=frozenset({"reader"}),
    factors=frozenset({"pwd", "otp"}),
    acr=None,
    auth_time=int(NOW) - 60,
    issued_at=int(NOW) - 60,
    expires_at=int(NOW) + 300,
    token_id="1",
    token_digest=b"",
    key_id="k",
)


def principal(*roles: str, **changes: object) -> Principal:
    return replace(_PRINCIPAL, roles=frozenset(roles or {"reader"}), **changes)  # type: ignore[arg-type]
