"""Workloads by client certificate, and Kubernetes service accounts: who calls without a person behind it."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from issuing import AUDIENCE, CORP, NOW, Hands, Ring, b64, bearer, call, key_set, signer
from msgspec.structs import replace

from proxy.errors import ConfigError, TokenMissing, Unauthenticated
from proxy.exchange import Action, Certificate, Denial, Grant, Principal, Target
from proxy.identity.authenticator import Authenticator
from proxy.identity.keyset import parse_key_set
from proxy.identity.workload import NO_WORKLOADS, Workload, Workloads
from proxy.policy.compile import compile_policy
from proxy.policy.decide import authorize
from proxy.policy.model import Policy
from proxy.ports import VerificationKey
from proxy.reasons import Reason

SPIFFE = "spiffe://example.org/ns/ml/sa/scorer"
WORKLOADS = Workloads.of(
    [
        Workload("scorer", frozenset({"batch"}), uri=SPIFFE),
        Workload("report", frozenset({"reader"}), dns="report.internal"),
    ]
)


def certificate(*uris: str, dns: tuple[str, ...] = ()) -> Certificate:
    return Certificate(b64(bytes(range(32))), "0a", dns, uris)


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (certificate(SPIFFE), "scorer"),
        (certificate("spiffe://example.org/other", SPIFFE), "scorer"),
        (certificate(dns=("report.internal",)), "report"),
        (certificate(dns=("REPORT.internal",)), "report"),
    ],
    ids=["URI", "one of several", "DNS", "DNS in another case"],
)
def test_known(shown: Certificate, name: str) -> None:
    principal = WORKLOADS.principal(shown)
    assert (principal.issuer, principal.subject, principal.factors) == ("mtls", name, frozenset())
    assert principal.certificate == shown.fingerprint


@pytest.mark.parametrize(
    "shown",
    [
        certificate(),
        certificate(SPIFFE + "/more"),
        certificate(SPIFFE[:-1]),
        certificate(SPIFFE.upper()),
        certificate(SPIFFE + "/"),
        certificate("report.internal"),
        certificate(dns=("*.internal",)),
        certificate(dns=("report.internal.",)),
        certificate(dns=("a.report.internal",)),
        certificate(SPIFFE, dns=("report.internal",)),
    ],
    ids=[
        "no names",
        "longer",
        "shorter",
        "another case",
        "a final slash",
        "a DNS name as a URI",
        "a wildcard",
        "a final dot",
        "a subdomain",
        "two workloads at once",
    ],
)
def test_unknown(shown: Certificate) -> None:
    """Exactly, or not at all."""
    with pytest.raises(Unauthenticated) as refused:
        WORKLOADS.principal(shown)
    assert refused.value.reason is Reason.CERTIFICATE_UNKNOWN


def test_nothing_shown_or_nobody_known() -> None:
    """Then it is a call without credentials, as before."""
    for workloads, shown in ((WORKLOADS, None), (NO_WORKLOADS, certificate(SPIFFE)), (NO_WORKLOADS, None)):
        with pytest.raises(TokenMissing):
            workloads.principal(shown)


# ── with a policy ───────────────────────────────────────────────────────────────────────────────────────────────

POLICY = """\
version: v1
workloads:
  scorer: {uri: "spiffe://example.org/ns/ml/sa/scorer", roles: [batch]}
  report: {dns: report.internal, roles: [reader]}
upstreams:
  main: {url: "http://127.0.0.1:1", dialect: oip-v2}
models:
  iris: {upstream: main}
budgets:
  daily: [1000 requests/day]
outputs:
  coarse: {decimals: 2}
rules:
  - id: batch-scores
    allow: {roles: [batch], issuers: [mtls], actions: [infer], models: [iris]}
    mfa: not_required
    budget: daily
    output: coarse
  - id: readers-with-a-second-factor
    allow: {roles: [reader], actions: [infer], models: [iris]}
    budget: daily
    output: coarse
"""


def compiled(text: str = POLICY) -> Policy:
    return compile_policy({"policy.yaml": text.encode()})


def decide(policy: Policy, principal: Principal) -> Grant | Denial:
    server = policy.models["iris"].upstream
    return authorize(policy, principal, Target(Action.INFER, "iris"), server, "127.0.0.1", now=float(NOW))


async def who(policy: Policy, shown: Certificate | None, **facts: object) -> Principal:
    authenticator = Authenticator(Ring(), Hands())
    asked = call(certificate=shown, **facts)  # type: ignore[arg-type]
    return await authenticator.authenticate(asked, policy.issuers, policy.digest, policy.workloads)


async def test_a_workload_is_allowed_by_a_rule_that_says_so() -> None:
    policy = compiled()
    decision = decide(policy, await who(policy, certificate(SPIFFE)))
    assert isinstance(decision, Grant)
    assert (decision.rule, decision.mfa) == ("batch-scores", False)


async def test_a_workload_has_no_second_factor() -> None:
    policy = compiled()
    decision = decide(policy, await who(policy, certificate(dns=("report.internal",))))
    assert isinstance(decision, Denial)
    assert decision.reason is Reason.MFA_MISSING


async def test_a_certificate_does_not_stand_in_for_bad_credentials() -> None:
    """Who shows something else is judged by it: another scheme, a bad token, a token in the query."""
    policy = compiled()
    authenticator = Authenticator(Ring(), Hands())
    for field, reason in ((b"Basic YTpi", Reason.TOKEN_MISSING), (b"Bearer x", Reason.TOKEN_MALFORMED)):
        asked = call((b"authorization", field), certificate=certificate(SPIFFE))
        with pytest.raises(Unauthenticated) as refused:
            await authenticator.authenticate(asked, policy.issuers, policy.digest, policy.workloads)
        assert refused.value.reason is reason
    with pytest.raises(Unauthenticated) as refused:
        await who(policy, certificate(SPIFFE), query="access_token=x")
    assert refused.value.reason is Reason.TOKEN_DUPLICATE


CLAIMED = [
    (b"x-forwarded-client-cert", b"URI=" + SPIFFE.encode()),
    (b"x-ssl-client-cert", b"-----BEGIN CERTIFICATE-----"),
    (b"x-client-cert", b"MIIB"),
    (b"client-cert", b":MIIB:"),  # RFC 9440
    (b"ssl-client-s-dn", b"CN=scorer"),
]


@pytest.mark.parametrize("header", CLAIMED, ids=[name.decode() for name, _ in CLAIMED])
async def test_no_header_is_a_certificate(header: tuple[bytes, bytes]) -> None:
    """Neither for a workload nor for a bound token (RFC 8705): what TLS has not seen is not there."""
    policy = compiled()
    authenticator = Authenticator(Ring(), Hands())
    with pytest.raises(TokenMissing):
        await authenticator.authenticate(call(header), policy.issuers, policy.digest, policy.workloads)
    bound = signer().token(claims={"cnf": {"x5t#S256": certificate(SPIFFE).fingerprint}})
    asked = call((b"authorization", b"Bearer " + bound.encode()), header)
    with pytest.raises(Unauthenticated) as refused:
        await authenticator.authenticate(asked, {CORP.issuer: CORP}, "p", policy.workloads)
    assert refused.value.reason is Reason.CERTIFICATE_MISSING


FAULTS: list[tuple[str, str, str, str]] = [
    ("no name", 'uri: "spiffe://example.org/ns/ml/sa/scorer", roles: [batch]', "roles: [batch]", "`uri` or `dns`"),
    ("two names", "dns: report.internal,", 'dns: report.internal, uri: "spiffe://a/b",', "`uri` or `dns`"),
    ("no roles", "dns: report.internal, roles: [reader]", "dns: report.internal", "`roles` is missing"),
    ("no URI", "spiffe://example.org/ns/ml/sa/scorer", "scorer", "not a URI"),
    ("a wildcard", "report.internal", "'*.internal'", "not a DNS name"),
    ("capitals", "report.internal", "Report.internal", "not a DNS name"),
    (
        "the same name twice",
        "report.internal",
        "report.internal, roles: [a]}\n  other: {dns: report.internal",
        "same name",
    ),
    ("unknown key", "dns: report.internal", "san: report.internal", "unknown key `san`"),
]


@pytest.mark.parametrize(("old", "new", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_policy_faults(old: str, new: str, words: str) -> None:
    assert POLICY.count(old) == 1
    with pytest.raises(ConfigError, match=words):
        compiled(POLICY.replace(old, new))


ISSUERS = """\
issuers:
  NAME:
    issuer: https://kubernetes.default.svc.cluster.local
    audience: inference-proxy
    jwks_file: cluster.jwks
    algorithms: [RS256]
    token_types: [""]
    roles_claim: [kubernetes.io, serviceaccount, name]
"""


def test_no_issuer_takes_the_name() -> None:
    with pytest.raises(ConfigError, match="an issuer cannot be called `mtls`"):
        compiled(POLICY.replace("upstreams:", ISSUERS.replace("NAME", "mtls") + "upstreams:"))


def test_mtls_is_no_issuer_without_workloads() -> None:
    text = POLICY.replace("upstreams:", ISSUERS.replace("NAME", "cluster") + "upstreams:")
    start, end = text.index("workloads:"), text.index("issuers:")
    with pytest.raises(ConfigError, match="unknown issuer `mtls`"):
        compiled(text[:start] + text[end:])


# ── Kubernetes ──────────────────────────────────────────────────────────────────────────────────────────────────

# What the API server puts into a projected token with `audience: inference-proxy`: no `typ`, `aud` a list, `jti` since
# 1.30 (feature ServiceAccountTokenJTI), the account under a name with a dot in it.
CLUSTER_HEADER: Mapping[str, object] = {"typ": None}
CLUSTER_CLAIMS: Mapping[str, object] = {
    "iss": "https://kubernetes.default.svc.cluster.local",
    "aud": [AUDIENCE],
    "sub": "system:serviceaccount:ml:scorer",
    "jti": "0f1a3f4c-0c5b-4f6a-9b35-6d1c6d2b7c11",
    "iat": NOW - 60,
    "nbf": NOW - 60,
    "exp": NOW + 3547,
    "kubernetes.io": {
        "namespace": "ml",
        "node": {"name": "node-1", "uid": "6f4a8a0e-5a63-4d5b-a9d6-2d8b8a4a4a01"},
        "pod": {"name": "scorer-7d9c", "uid": "7f6d5d9a-0a3a-4c39-8f0e-1b9f6f3b2a02"},
        "serviceaccount": {"name": "scorer", "uid": "8a1b2c3d-1d2e-4f50-9a6b-3c4d5e6f7a03"},
    },
    **dict.fromkeys(("auth_time", "amr", "acr", "client_id", "realm_access")),
}
CLUSTER_RULE = """\
  - id: cluster-scores
    allow: {roles: [scorer], issuers: [cluster], actions: [infer], models: [iris]}
    mfa: not_required
    budget: daily
    output: coarse
"""


class ClusterRing(Ring):
    """The key of the cluster, as its `/openid/v1/jwks` has it."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        key = signer("RS256")
        issuer = next(iter(policy.issuers.values()))
        self.keys: dict[str, VerificationKey] = dict(parse_key_set(key_set(key.jwk()), issuer).keys)


@pytest.fixture
def cluster() -> Policy:
    return compiled(POLICY.replace("upstreams:", ISSUERS.replace("NAME", "cluster") + "upstreams:") + CLUSTER_RULE)


async def cluster_account(policy: Policy, **claims: object) -> Principal:
    token = signer("RS256").token(CLUSTER_HEADER, {**CLUSTER_CLAIMS, **claims})
    authenticator = Authenticator(ClusterRing(policy), Hands())
    return await authenticator.authenticate(bearer(token), policy.issuers, policy.digest, policy.workloads)


async def test_a_service_account(cluster: Policy) -> None:
    principal = await cluster_account(cluster)
    assert (principal.issuer, principal.subject) == ("cluster", "system:serviceaccount:ml:scorer")
    assert principal.roles == {"scorer"}
    decision = decide(cluster, principal)
    assert isinstance(decision, Grant)
    assert decision.rule == "cluster-scores"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": ["https://kubernetes.default.svc.cluster.local"]}, Reason.TOKEN_AUDIENCE),
        ({"jti": None}, Reason.TOKEN_CLAIMS),
        ({"iss": "kubernetes/serviceaccount"}, Reason.TOKEN_ISSUER),
        ({"exp": None}, Reason.TOKEN_CLAIMS),
    ],
    ids=["a token for the API server", "before 1.30", "a Secret's token", "without an end"],
)
async def test_tokens_that_are_not_for_us(cluster: Policy, claims: dict[str, object], reason: Reason) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await cluster_account(cluster, **claims)
    assert refused.value.reason is reason


def page() -> Policy:
    """The policy of docs/programs.md."""
    text = (Path(__file__).parents[2] / "docs" / "programs.md").read_text()
    blocks = re.findall(r"^```yaml\n# file: (\d\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return compile_policy({name: content.encode() for name, content in blocks})


@pytest.mark.parametrize(
    ("namespace", "allowed"), [("ml", True), ("play", False)], ids=["its own namespace", "another namespace"]
)
async def test_the_page_about_programs_knows_a_projected_token(namespace: str, *, allowed: bool) -> None:
    """The same account name in another namespace is another role, because the role is `sub`."""
    policy = page()
    inside = {"namespace": namespace, "serviceaccount": {"name": "scorer", "uid": "8a1b2c3d"}}
    subject = f"system:serviceaccount:{namespace}:scorer"
    account = await cluster_account(policy, sub=subject, **{"kubernetes.io": inside})
    assert account.roles == {subject}
    assert isinstance(decide(policy, account), Grant) is allowed


async def test_the_page_about_programs_knows_a_certificate() -> None:
    policy = page()
    nightly = await who(policy, certificate("spiffe://example.org/ns/batch/sa/nightly"))
    assert isinstance(decide(policy, nightly), Grant)


async def test_the_account_cannot_be_a_workload_too(cluster: Policy) -> None:
    """The issuer's name is part of who somebody is: the same subject under another issuer is somebody else."""
    account = await cluster_account(cluster, sub="scorer")
    workload = await who(cluster, certificate(SPIFFE))
    assert account.subject == workload.subject
    assert account.account != workload.account
    assert decide(cluster, replace(account, roles=frozenset({"batch"}))) != decide(cluster, workload)
