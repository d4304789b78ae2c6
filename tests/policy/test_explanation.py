"""explain: the story is that of the real decision, and each other rule says what it lacked."""

import json
from pathlib import Path

import pytest
from policy_building import BASE, NOW, READERS, policy, principal
from typer.testing import CliRunner, Result

from proxy.cli import app
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.exchange import Action, Certificate, Grant, Principal, Target
from proxy.policy.explanation import MAX_NEAREST, Asked, Explanation, explain
from proxy.policy.model import Policy
from proxy.reasons import Reason

EXAMPLE = Path(__file__).parents[2] / "policies"


def why(
    compiled: Policy, who: Principal, target: Target | None = None, address: str = "192.0.2.1", now: float = NOW
) -> Explanation:
    target = target or Target(Action.INFER, "iris")
    return explain(compiled, Asked(who, target, compiled.upstreams["main"], address, now))


def lacks(told: Explanation) -> dict[str, list[str]]:
    return {other.rule.id: [str(lack) for lack in other.lacks] for other in told.nearest}


def rules(*texts: str) -> Policy:
    """`effect: {…}` and further lines of each rule, called r0, r1, …; allow rules get a budget and an output."""
    text = BASE + "rules:\n"
    for number, rule in enumerate(texts):
        text += f"  - id: r{number}\n    {rule}\n"
        text += "    budget: trial\n    output: coarse\n" if rule.startswith("allow") else ""
    return policy(text)


READ = "roles: [reader], actions: [infer], models: [iris]"

CONDITIONS = [
    (READ.replace("reader", "writer"), "roles: writer; here: reader"),
    (READ.replace("infer", "metadata"), "actions: metadata; here: infer"),
    (f"{READ}, issuers: [mtls]", "issuers: mtls; here: corp"),
    (f"{READ}, clients: [app]", "clients: app; here: none"),
    (f"{READ}, networks: [10.0.0.0/8]", "networks: 10.0.0.0/8; here: 192.0.2.1"),
    (f"{READ}, hours: [mon 08:00-09:00 UTC]", "hours: mon 08:00-09:00 UTC; here: tue 22:13"),
    (f"{READ}, claims: {{team: botany}}", "claims: team: botany; here: not in the token"),
]


def test_any_role_is_every_workload_too() -> None:
    """As the language's page says: a rule for `roles: any` is open to client certificates that the policy names."""
    base = BASE.replace("upstreams:", "workloads:\n  w: {dns: a.internal, roles: [x]}\nupstreams:")
    rule = "  - id: r\n    allow: {roles: any, actions: [infer], models: [iris]}\n    mfa: not_required\n"
    compiled = policy(f"{base}rules:\n{rule}    budget: trial\n    output: coarse\n")
    workload = compiled.workloads.principal(Certificate("x" * 43, "1", ("a.internal",)))
    assert isinstance(why(compiled, workload).decision, Grant)


@pytest.mark.parametrize(("match", "lack"), CONDITIONS, ids=[lack.split(":")[0] for _, lack in CONDITIONS])
def test_a_rule_says_the_one_condition_that_does_not_hold(match: str, lack: str) -> None:
    base = BASE.replace("upstreams:", "workloads:\n  w: {dns: a.internal, roles: [x]}\nupstreams:")
    compiled = policy(base + f"rules:\n  - id: r\n    allow: {{{match}}}\n    budget: trial\n    output: coarse\n")
    told = why(compiled, principal())
    assert lacks(told) == {"r": [lack]}
    assert told.decision.reason is Reason.NO_RULE  # type: ignore[union-attr]


def test_mfa_says_what_is_asked_and_what_is_there() -> None:
    told = why(rules(f"allow: {{{READ}}}\n    mfa: {{any_amr: [hwk], max_age: 5m}}"), principal())
    assert lacks(told) == {"r0": ["mfa: hwk, at most 5m ago; here: otp, pwd, signed in 1m ago"]}


def test_nearest_first() -> None:
    """A weak sign-in is nearer than a missing role, one missing condition nearer than two."""
    told = why(
        rules(
            "allow: {roles: [writer], actions: [metadata], models: [iris]}",
            "allow: {roles: [writer], actions: [infer], models: [iris]}",
            f"allow: {{{READ}}}\n    mfa: {{max_age: 1s}}",
        ),
        principal(),
    )
    assert [other.rule.id for other in told.nearest] == ["r2", "r1", "r0"]


def test_at_most_ten_are_told_and_the_rest_is_counted() -> None:
    told = why(rules(*(f"allow: {{{READ.replace('reader', f'role{n}')}}}" for n in range(14))), principal())
    assert (len(told.nearest), told.further) == (MAX_NEAREST, 14 - MAX_NEAREST)


def test_what_comes_first_is_said() -> None:
    later = f"allow: {{{READ}, clients: [app]}}"
    told = why(
        rules(f"allow: {{{READ}}}\n    mfa: {{max_age: 1h}}", later, "deny: {roles: [bad]}"), principal(client="app")
    )
    assert lacks(told)["r1"] == ["order: r0 comes before it"]
    denied = why(rules(f"allow: {{{READ}}}", "deny: {roles: [bad]}"), principal("reader", "bad"))
    assert lacks(denied) == {"r0": ["order: a deny rule wins"]}
    assert denied.deciding is not None
    assert denied.deciding.id == "r1"


def test_shadow_is_said() -> None:
    told = why(rules(f"allow: {{{READ}}}\n    shadow: true"), principal())
    assert lacks(told) == {"r0": ["shadow: it is in shadow and only recorded"]}


def test_what_the_floor_did_is_said() -> None:
    floor = "floor: {output: {decimals: 1}}\n"
    assert (
        "output coarse says 2 decimals: the floor at policy.yaml:"
        in why(policy(BASE + floor + READERS), principal()).floor
    )
    assert why(policy(BASE + READERS), principal()).floor == ""
    assert "changes nothing" in why(policy(BASE + floor.replace("1", "3") + READERS), principal()).floor


def test_what_the_floor_did_to_parameters_is_said() -> None:
    base = BASE.replace("dialect: oip-v2", "dialect: openai") + "floor: {parameters: {max_tokens: {at_most: 3}}}\n"
    assert "is stricter about max_tokens" in why(policy(base + READERS), principal()).floor
    assert "changes nothing" in why(policy(base.replace("3}", "1000000}") + READERS), principal()).floor


def test_a_whole_server_concerns_each_of_its_models() -> None:
    told = why(rules(f"allow: {{{READ.replace('infer', 'health')}}}"), principal(), Target(Action.HEALTH, None))
    assert isinstance(told.decision, Grant)


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def hip_explain(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["explain", "--policy", str(EXAMPLE), *map(str, arguments)], input=stdin)


INFER = ("POST", "/v2/models/iris/infer")
ANALYST = ("--role", "analyst", "--amr", "pwd", "--amr", "otp", "--auth-age", "3h")


def test_a_permission_is_told_step_by_step() -> None:
    result = hip_explain(*INFER, *ANALYST)
    assert result.exit_code == 0
    for line in (
        "1 classify      oip-v2: infer on iris, served by upstream lab\n",
        "3 authorize     allowed by analysts-see-coarse-scores (40-rules.yaml:9)\n",
        "4 charge        budget analyst: 120 requests/minute, 20000 rows/day\n",
        "7 harden        output coarse: 2 decimals, top 3\n",
        "\nALLOW: allowed (analysts-see-coarse-scores)\n",
    ):
        assert line in result.output


def test_a_challenge_is_told() -> None:
    result = hip_explain(*INFER, "--role", "analyst", "--amr", "otp", "--auth-age", "20h")
    assert result.exit_code == 1
    assert "the caller is challenged: context urn:example:aal2, signed in at most 8h ago (RFC 9470)" in result.output
    assert "DENY: mfa_too_old (analysts-see-coarse-scores)" in result.output


def test_json_says_the_same() -> None:
    result = hip_explain("--action", "infer", "--model", "iris", "--role", "trial", "--amr", "otp", "--json")
    told = json.loads(result.output)
    assert (result.exit_code, told["effect"], told["reason"]) == (1, "deny", "no_rule")
    nearest = {other["rule"]: other["lacks"] for other in told["nearest"]}
    assert nearest["trial-users-see-labels"] == [{"key": "models", "asks": "digits", "found": "iris"}]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("POST", "/v2/models/irs/infer", *ANALYST), "unknown_model"),
        (("POST", "/nowhere", *ANALYST), "unknown_route"),
        (("DELETE", "/v2/models/iris/infer", *ANALYST), "method_not_allowed"),
        ((*INFER, "--claims", "-"), "token_expired"),
    ],
)
def test_where_the_way_ends_before_a_rule_is_asked(arguments: tuple[str, ...], reason: str) -> None:
    result = hip_explain(*arguments, stdin='{"iat": 1, "exp": 2}')
    assert result.exit_code == 1
    assert f"DENY: {reason}" in result.output


def test_claims_are_read_as_a_tokens() -> None:
    claims = {"iss": "https://idp.example.com", "realm_access": {"roles": ["trial"]}, "amr": ["hwk"]}
    result = hip_explain("--action", "infer", "--model", "digits", "--claims", "-", stdin=json.dumps(claims))
    assert result.exit_code == 0
    assert "ALLOW: allowed (trial-users-see-labels)" in result.output
    foreign = hip_explain("--action", "infer", "--model", "digits", "--claims", "-", stdin='{"iss": "https://other"}')
    assert "DENY: token_issuer" in foreign.output


def test_a_token_is_read_and_not_believed(tmp_path: Path) -> None:
    identity = DemoIdentityProvider(port=1)
    (tmp_path / "token").write_text(identity.token("alice", ["analyst"]))
    text = BASE.replace("https://idp.example.com\n", identity.issuer + "\n").replace("inference-proxy", AUDIENCE)
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/policy.yaml").write_text(text + READERS.replace("[reader]", "[analyst]"))
    command = ["explain", "--policy", str(tmp_path / "policy"), *INFER, "--token", str(tmp_path / "token")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "NOT VERIFIED: the token was read" in result.output
    assert "alice of corp" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*INFER,), "say who asks"),
        ((*INFER, *ANALYST, "--workload", "x"), "say who asks, in one way"),
        (ANALYST, "say METHOD and PATH"),
        (("a" * 32,), "or --event ID and --journal"),
        (("--action", "infer", *ANALYST), "name either --model or --upstream"),
        (("--action", "infer", "--model", "irs", *ANALYST), "unknown model `irs`, did you mean `iris`?"),
        (("--action", "health", "--upstream", "lap", *ANALYST), "unknown upstream `lap`, did you mean `lab`?"),
        ((*INFER, "--role", "a", "--issuer", "corb"), "unknown issuer `corb`, did you mean `corp`?"),
        ((*INFER, "--workload", "x"), "unknown workload `x`"),
        ((*INFER, "--role", "a", "--auth-age", "yesterday"), "a number and its unit"),
        ((*INFER, "--role", "a", "--at", "noon"), "a time with its zone"),
        ((*INFER, "--claims", "-"), "not JSON"),
        ((*INFER, "--token", "nowhere"), "nowhere: no such file or directory"),
        (("--event", "x"), "say where the journal is"),
    ],
)
def test_wrong_use_says_what_to_do(arguments: tuple[str, ...], said: str) -> None:
    result = hip_explain(*arguments, stdin="{")
    assert result.exit_code == 2, result.output
    assert said in result.output
