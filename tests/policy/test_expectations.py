"""Policy tests that fail: what is said of them, and that no test can pass in vain."""

import pytest
from policy_building import BASE, READERS, policy

from proxy.errors import ConfigError
from proxy.policy.expectations import run_expectations

POLICY = policy(BASE + READERS + "  - id: no-trial\n    deny: {roles: [trial]}\n")


def failures(test: str) -> list[str]:
    text = "version: v1\ntests:\n  - name: T\n" + test
    return [str(finding) for finding in run_expectations(POLICY, {"t.yaml": text.encode()}).failures]


ASKS = "    principal: {roles: [reader], amr: [pwd, otp]}\n    request: {action: infer, model: iris}\n"


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ("effect: deny", "T: `effect` is `allow`, not `deny`"),
        ("effect: allow, rule: others", "T: `rule` is `readers`, not `others`"),
        ("effect: allow, budget: large", "T: `budget` is `trial`, not `large`"),
        ("effect: allow, output: {decimals: 3}", "T: `output` is decimals: 2, not decimals: 3"),
        ("effect: allow, output: {label_only: true}", "T: `output` is decimals: 2, not label_only: True"),
        ("effect: allow, detector: iris", "T: `detector` is nothing, not `iris`"),
        ("effect: allow, mfa: not_required", "T: `mfa` is `required`, not `not_required`"),
        ("effect: allow, shadow: [no-trial]", "T: `shadow` is nothing, not `no-trial`"),
    ],
)
def test_a_decision_that_differs_is_a_finding_at_the_word(expect: str, message: str) -> None:
    (failure,) = failures(ASKS + f"    expect: {{{expect}}}\n")
    assert failure.endswith(message)
    assert failure.startswith("t.yaml:6:")


WRITERS = policy(BASE.replace("oip-v2", "openai") + "parameters:\n  short: {max_tokens: {at_most: 5}}\n" + READERS
                 + "    parameters: short\n")  # fmt: skip


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ("max_tokens: {at_most: 6}", "`max_tokens` is `at_most: 5`, not `at_most: 6`"),
        ("max_tokens: {at_most: 5, above: refuse}", "`max_tokens` is `at_most: 5`, not `at_most: 5` and refused above"),
        ("max_tokens: allow", "`max_tokens` is `at_most: 5`, not `allow`"),
        ("echo: allow", "`echo` is `refuse`, not `allow`"),
        ("max_token: allow", "`openai` has no parameter `max_token`, did you mean `max_tokens`?"),
    ],
)
def test_parameters_that_differ_are_findings_at_the_word(terms: str, message: str) -> None:
    text = "version: v1\ntests:\n  - name: T\n" + ASKS + f"    expect: {{effect: allow, parameters: {{{terms}}}}}\n"
    (failure,) = run_expectations(WRITERS, {"t.yaml": text.encode()}).failures
    assert str(failure).endswith(f"T: {message}")
    assert str(failure).startswith("t.yaml:6:")


def test_a_denial_has_no_parameters() -> None:
    asks = ASKS.replace("[reader]", "[nobody]")
    text = "version: v1\ntests:\n  - name: T\n" + asks + "    expect: {effect: deny, parameters: {echo: refuse}}\n"
    (failure,) = run_expectations(WRITERS, {"t.yaml": text.encode()}).failures
    assert failure.message == "T: `parameters` is nothing, not echo: `refuse`"


def test_a_denial_says_why() -> None:
    asks = ASKS.replace("[pwd, otp]", "[pwd]")
    assert failures(asks + "    expect: {effect: allow}\n") == [
        "t.yaml:6:22: T: `effect` is `deny` (mfa_missing), not `allow`"
    ]


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        (ASKS.replace("iris", "irsi"), "unknown model `irsi`, did you mean `iris`?"),
        (ASKS.replace("model: iris", "upstream: mian"), "unknown upstream `mian`, did you mean `main`?"),
        (ASKS.replace("{roles", "{issuer: crop, roles"), "unknown issuer `crop`, did you mean `corp`?"),
        (ASKS.replace(", model: iris", ""), "name either a `model` or an `upstream`"),
        (ASKS.replace("model: iris", "model: iris, upstream: main"), "name either a `model` or an `upstream`"),
    ],
)
def test_a_test_about_nothing_fails_also_when_it_expects_a_denial(asks: str, message: str) -> None:
    (failure,) = failures(asks + "    expect: {effect: deny}\n")
    assert failure.endswith(message)


def test_rules_that_no_test_touches_are_named() -> None:
    text = "version: v1\ntests:\n  - name: T\n" + ASKS + "    expect: {effect: allow}\n"
    outcome = run_expectations(POLICY, {"t.yaml": text.encode()})
    assert (outcome.total, outcome.failures, outcome.untouched) == (1, (), ("no-trial",))
    assert run_expectations(POLICY, {}).untouched == ("readers", "no-trial")


def test_a_file_that_is_no_test_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"a\.yaml:1:1: `version` is missing[^\0]*b\.yaml:2:8: `tests` must not be empty"
    ):
        run_expectations(POLICY, {"a.yaml": b"tests: []\n", "b.yaml": b"version: v1\ntests: []\n"})


def test_where_there_are_several_issuers_a_test_names_one() -> None:
    second = BASE[BASE.index("  corp:") : BASE.index("upstreams:")].replace("corp", "other").replace("idp.", "idp2.")
    compiled = policy(BASE.replace("upstreams:", second + "upstreams:") + READERS)
    text = "version: v1\ntests:\n  - name: T\n" + ASKS + "    expect: {effect: allow}\n"
    (failure,) = run_expectations(compiled, {"t.yaml": text.encode()}).failures
    assert failure.message == "T: say which `issuer`: corp, other"
