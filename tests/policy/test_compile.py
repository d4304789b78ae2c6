"""compile_policy: what a good policy becomes. The bad ones are in tests/invalid_policies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_building import BASE, READERS, policy

from proxy.dialects import DIALECTS
from proxy.errors import ConfigError
from proxy.exchange import Budget, DetectorUse, Issuer, Mfa, Mode, Output, Suspicion, Unit, Upstream, Window
from proxy.policy.compile import compile_policy, digest
from proxy.policy.model import AllowRule, DenyRule, DetectorFile


def test_everything_is_resolved() -> None:
    compiled = policy()
    upstream = Upstream("main", "http", "127.0.0.1", 8080, "/base", "oip-v2", 5.0, 2.0, 1 << 20, 32)
    assert compiled.upstreams == {"main": upstream}
    assert compiled.models["iris"].upstream is compiled.upstreams["main"]
    assert compiled.models["iris"].labels == {"team": "botany"}
    assert compiled.issuers == {
        "https://idp.example.com": Issuer(
            name="corp",
            issuer="https://idp.example.com",
            audience="inference-proxy",
            algorithms=frozenset({"ES256"}),
            mfa=Mfa(),
            roles_claim=("realm_access", "roles"),
            jwks_uri="https://idp.example.com/jwks",
        )
    }
    (rule,) = compiled.rules
    assert isinstance(rule, AllowRule)
    assert rule.budget == Budget("trial", (Window(Unit.REQUESTS, 60, 60), Window(Unit.ROWS, 1000, 86_400)))
    assert rule.output == Output("coarse", decimals=2)
    assert rule.mfa == Mfa()
    assert rule.place == "policy.yaml:18"
    assert compiled.dialects == ("oip-v2",)
    assert compiled.warnings == ()


def test_files_are_one_policy_in_the_order_of_their_names() -> None:
    deny = b"version: v1\nrules:\n  - id: first\n    deny: {roles: [suspended]}\n"
    compiled = compile_policy({"b.yaml": (BASE + READERS).encode(), "a.yaml": deny})
    assert [rule.id for rule in compiled.rules] == ["first", "readers"]
    assert isinstance(compiled.rules[0], DenyRule)


def test_a_claim_with_a_dot_in_its_name_is_a_list() -> None:
    text = (BASE + READERS).replace("realm_access.roles", '["https://example.com/roles", names]')
    (issuer,) = policy(text).issuers.values()
    assert issuer.roles_claim == ("https://example.com/roles", "names")


@pytest.mark.parametrize(
    ("rule", "floor", "result"),
    [
        ("decimals: 2", "decimals: 4", Output("coarse", decimals=2)),
        ("decimals: 6", "decimals: 4", Output("coarse", decimals=4)),
        ("decimals: 2", "top_k: 3", Output("coarse", decimals=2, top_k=3)),
        ("top_k: 5", "top_k: 3", Output("coarse", top_k=3)),
        ("decimals: 2", "label_only: true", Output("coarse", label_only=True)),
        ("label_only: true", "decimals: 4", Output("coarse", label_only=True)),
    ],
)
def test_no_output_is_finer_than_the_floor(rule: str, floor: str, result: Output) -> None:
    text = BASE.replace("decimals: 2", rule) + f"floor: {{output: {{{floor}}}}}\n" + READERS
    (built,) = policy(text).allows.rules
    assert built.output == result


def test_relative_file_names_are_seen_from_the_policy_directory() -> None:
    text = (
        BASE.replace("jwks_uri: https://idp.example.com/jwks", "jwks_file: keys/jwks.json\n    ca_file: /etc/ca.pem")
        + f"detectors:\n  iris: {{file: detectors/iris.onnx, sha256: {'a' * 64}}}\n"
        + READERS
        + "    detector: {use: iris, mode: shadow, on_suspicion: label}\n"
    )
    compiled = policy(text, root="/srv/policies")
    (issuer,) = compiled.issuers.values()
    assert (issuer.jwks_file, issuer.ca_file) == ("/srv/policies/keys/jwks.json", "/etc/ca.pem")
    file = "/srv/policies/detectors/iris.onnx"
    assert compiled.detectors == {"iris": DetectorFile("iris", file, "a" * 64)}
    assert compiled.allows.rules[0].detector == DetectorUse("iris", file, "a" * 64, Mode.SHADOW, Suspicion.LABEL)


def test_a_rule_that_is_only_narrower_by_its_mfa_is_not_in_vain() -> None:
    """Whoever fails the stricter terms of the first may still pass the second."""
    first = READERS + "    mfa: {max_age: 5m}\n"
    second = READERS.replace("rules:\n", "").replace("id: readers", "id: readers-long-ago")
    assert [rule.id for rule in policy(BASE + first + second).rules] == ["readers", "readers-long-ago"]


def test_a_rule_in_shadow_leaves_nobody_in_vain() -> None:
    deny = "rules:\n  - id: nobody\n    deny: {roles: any}\n    shadow: true\n"
    assert len(policy(BASE + deny + READERS.replace("rules:\n", "")).rules) == 2


def test_a_deny_rule_for_some_networks_leaves_the_others() -> None:
    deny = "rules:\n  - id: abroad\n    deny: {networks: [203.0.113.0/24]}\n"
    assert len(policy(BASE + deny + READERS.replace("rules:\n", "")).rules) == 2


def test_plain_http_to_another_machine_takes_a_word() -> None:
    text = (BASE + READERS).replace("http://127.0.0.1:8080/base/", "http://models.internal:8080")
    with pytest.raises(ConfigError, match="plain HTTP"):
        policy(text)
    assert policy(text.replace("timeout: 5s", "plaintext: allowed")).upstreams["main"].host == "models.internal"


def test_a_dialect_must_be_one_that_the_caller_knows() -> None:
    files = {"policy.yaml": (BASE + READERS).encode()}
    with pytest.raises(ConfigError, match="unknown dialect"):
        compile_policy(files, dialects={"generic": DIALECTS["generic"]})


def test_the_digest_covers_names_contents_and_their_borders() -> None:
    sets: list[dict[str, bytes]] = [{"a": b"bc"}, {"ab": b"c"}, {"a": b"b", "c": b""}, {"a": b""}, {"a": b"", "b": b""}]
    assert len({digest(files) for files in sets}) == len(sets)
    assert digest({"a": b"1", "b": b"2"}) == digest({"b": b"2", "a": b"1"})


def test_a_policy_of_a_thousand_rules_compiles() -> None:
    """1,000 rules, 200 models, 100 roles: also the analysis of rules in vain is not quadratic in Python."""
    models = "".join(f"  m{number}: {{upstream: main}}\n" for number in range(200))
    rules = "".join(
        f"  - id: r{n}\n    allow: {{roles: [role{n % 100}, only{n}], actions: [infer], models: [m{n % 200}]}}\n"
        "    budget: trial\n    output: coarse\n"
        for n in range(1000)
    )
    text = BASE.replace("  iris: {upstream: main, labels: {team: botany}}\n", models) + "rules:\n" + rules
    assert len(policy(text).rules) == 1000


def test_no_files_are_no_policy() -> None:
    with pytest.raises(ConfigError, match="no policy files"):
        compile_policy({})


EXAMPLE = BASE + "floor: {mfa: required}\n" + READERS + "    mfa: {max_age: 8h}\n  - id: no\n    deny: {roles: [x]}\n"
PIECES = [
    "",
    " ",
    "\n",
    ":",
    "- ",
    "[",
    "]",
    "{}",
    "[]",
    "'",
    "#",
    "any",
    "not_required",
    "1",
    "-1",
    "true",
    "<text>",
    "[key]",
]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(EXAMPLE)), st.integers(0, 30), st.sampled_from(PIECES) | st.text(max_size=5))
def test_any_damage_to_a_policy_is_a_policy_or_a_config_error(start: int, length: int, piece: str) -> None:
    """Nothing that a slip of the editor leaves behind makes the compiler fail in another way."""
    damaged = EXAMPLE[:start] + piece + EXAMPLE[start + length :]
    try:
        assert compile_policy({"a.yaml": damaged.encode("utf-8", "surrogatepass")}).rules
    except ConfigError as error:
        if not all(finding.message for finding in error.findings):
            pytest.fail("a finding without a message")
