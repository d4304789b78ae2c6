"""authorize: the index finds what looking at every rule would find, and nothing makes a bad request a good one."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_building import BASE, NOW, READERS, policy, principal

from proxy.errors import ConfigError
from proxy.exchange import Action, Denial, Grant, Principal, Target
from proxy.identity.mfa import weakness
from proxy.policy.decide import authorize
from proxy.policy.explanation import Asked, lacking
from proxy.policy.model import AllowRule, Policy, Scope
from proxy.reasons import Reason

POLICY = policy()
INFER = Target(Action.INFER, "iris")


def decide(compiled: Policy, who: Principal, target: Target = INFER, address: str = "192.0.2.1") -> Grant | Denial:
    return authorize(compiled, who, target, compiled.upstreams["main"], address, now=NOW)


def test_a_grant_carries_its_obligations_and_the_digest() -> None:
    grant = decide(POLICY, principal())
    assert isinstance(grant, Grant)
    assert (grant.rule, grant.budget.name, grant.output.decimals, grant.mfa) == ("readers", "trial", 2, True)
    assert grant.policy == POLICY.digest


def test_nothing_is_allowed_to_a_principal_of_an_issuer_that_left_the_policy() -> None:
    assert decide(POLICY, principal(issuer="gone")) == Denial(Reason.NO_RULE)


def test_a_model_or_upstream_that_the_policy_does_not_have_is_denied() -> None:
    assert decide(POLICY, principal(), Target(Action.INFER, "other")) == Denial(Reason.NO_RULE)
    foreign = replace(POLICY.upstreams["main"], name="foreign")
    assert authorize(POLICY, principal(), Target(Action.INFER, None), foreign, "::1", now=NOW) == Denial(Reason.NO_RULE)


def test_an_address_that_cannot_be_read_is_in_no_allowed_network_and_in_every_denied_one() -> None:
    allow = policy(BASE + READERS.replace("models: [iris]", "models: [iris], networks: [0.0.0.0/0]"))
    deny = policy(BASE + READERS + "  - id: no\n    deny: {networks: [203.0.113.0/24]}\n")
    assert decide(allow, principal(), address="unix") == Denial(Reason.NO_RULE)
    assert decide(deny, principal(), address="unix") == Denial(Reason.DENIED_BY_RULE, "no")
    assert isinstance(decide(deny, principal(), address="192.0.2.1"), Grant)


def test_an_ipv4_address_in_ipv6_clothes_is_still_denied() -> None:
    deny = policy(BASE + READERS + "  - id: no\n    deny: {networks: [203.0.113.0/24]}\n")
    assert decide(deny, principal(), address="::ffff:203.0.113.9") == Denial(Reason.DENIED_BY_RULE, "no")


SCOPED = BASE.replace("roles_claim: realm_access.roles", "roles_claim: scope")
SCOPES = [
    ("the role that is missing", "roles: [reader]", "", "reader"),
    ("one of several, always the same", "roles: [writer, reader]", "", "reader"),
    ("not what no scope can be", 'roles: ["a reader"]', "", None),
    ("nothing where another condition does not hold either", "roles: [reader], networks: [203.0.113.0/24]", "", None),
    ("nothing for another action", "roles: [reader]", "metadata", None),
    ("nothing of a rule in shadow", "roles: [reader]", "shadow", None),
]


@pytest.mark.parametrize(("who", "change", "scope"), [case[1:] for case in SCOPES], ids=[case[0] for case in SCOPES])
def test_what_a_client_can_ask_for_is_named(who: str, change: str, scope: str | None) -> None:
    """RFC 6750 section 3.1, where the roles are scopes; the name of any other role is the auditor's."""
    text = READERS.replace("roles: [reader]", who)
    text = text.replace("[infer]", "[metadata]") if change == "metadata" else text
    text = f"{text}    shadow: true\n" if change == "shadow" else text
    assert decide(policy(SCOPED + text), principal("guest")) == Denial(Reason.NO_RULE, scope=scope)
    assert decide(policy(BASE + text), principal("guest")) == Denial(Reason.NO_RULE)


# ── the index against looking at every rule ─────────────────────────────────────────────────────────────────────

ROLES, MODELS, CLIENTS = ("a", "b", "c"), ("m0", "m1", "m2"), ("x", "y")
HOURS = ("tue 22:00-23:00 UTC", "mon 08:00-09:00 UTC")  # the first of them is now
TEAMS = ("botany", "zoology")
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24")


def some(words: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(words), min_size=1, max_size=len(words), unique=True)


def listed(words: list[str]) -> str:
    return f"[{', '.join(words)}]"


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Draw a rule without its id."""
    effect = draw(st.sampled_from(["allow", "allow", "deny"]))
    roles = draw(st.just("any") | some(ROLES).map(listed))
    actions = listed(draw(some(("infer", "metadata", "health"))))
    models = draw(st.just("any") | some(MODELS).map(listed))
    match = f"roles: {roles}, actions: {actions}, models: {models}"
    if draw(st.booleans()):
        match += f", clients: {listed(draw(some(CLIENTS)))}"
    if draw(st.booleans()):
        match += f", networks: {listed(draw(some(NETWORKS)))}"
    if draw(st.booleans()):
        match += f", hours: [{draw(st.sampled_from(HOURS))}]"
    if draw(st.booleans()):
        match += f", claims: {{team: {listed(draw(some(TEAMS)))}}}"
    text = f"{effect}: {{{match}}}\n"
    if draw(st.integers(0, 4)) == 0:
        text += "    shadow: true\n"
    if effect == "allow":
        text += "    budget: trial\n    output: coarse\n"
        text += draw(st.sampled_from(["", "    mfa: not_required\n", "    mfa: {max_age: 5m}\n"]))
    return text


def about(scope: Scope, who: Principal, target: Target, address: str, compiled: Policy) -> bool:
    """Say in the plainest way whether a rule is about a request."""
    here = ip_address(address)
    models = {target.model} if target.model else {m.name for m in compiled.models.values()}
    return (
        (scope.roles is None or bool(scope.roles & who.roles))
        and (scope.issuers is None or who.issuer in scope.issuers)
        and (scope.clients is None or who.client in scope.clients)
        and target.action in scope.actions
        and bool(scope.models & models)
        and (scope.networks is None or any(here in network for network in scope.networks))
        and (scope.hours is None or scope.hours[0].text == HOURS[0])
        and (scope.claims is None or (str, who.claims.get("team")) in scope.claims[0].values)
    )


def plainly(compiled: Policy, who: Principal, target: Target, address: str) -> tuple[str | None, Reason | None]:
    """Decide by looking at every rule in order."""
    near = [rule for rule in compiled.rules if not rule.shadow and about(rule.scope, who, target, address, compiled)]
    for rule in near:
        if not isinstance(rule, AllowRule):
            return rule.id, Reason.DENIED_BY_RULE
    weak: tuple[str | None, Reason | None] = (None, Reason.NO_RULE)
    for rule in near:
        assert isinstance(rule, AllowRule)
        reason = weakness(who, compiled.factors["corp"], rule.mfa, now=NOW) if rule.mfa else None
        if reason is None:
            return rule.id, None
        if weak[0] is None:
            weak = (rule.id, reason)
    return weak


@settings(deadline=None)
@given(
    st.lists(rules(), min_size=1, max_size=6),
    some(ROLES),
    st.sampled_from([None, *MODELS]),
    st.sampled_from([Action.INFER, Action.METADATA, Action.HEALTH, Action.REPOSITORY]),
    st.sampled_from(["10.1.2.3", "10.2.0.1", "192.0.2.7", "2001:db8::1"]),
    st.sampled_from([None, *CLIENTS]),
    st.sampled_from([0, 60, 600]),
    st.booleans(),
    st.sampled_from([{}, *({"team": team} for team in TEAMS)]),
)
def test_the_index_decides_as_a_reader_would(
    drawn: list[str],
    roles: list[str],
    model: str | None,
    action: Action,
    address: str,
    client: str | None,
    age: int,
    strong: bool,
    claims: dict[str, object],
) -> None:
    """Any rules, any request: the decision is that of a reader who goes through the file from the top."""
    models = "".join(f"  {name}: {{upstream: main}}\n" for name in MODELS)
    head = BASE.replace("  iris: {upstream: main, labels: {team: botany}}\n", models) + "rules:\n"
    texts = [f"  - id: r{number}\n    {text}" for number, text in enumerate(drawn)]
    compiled = None
    while compiled is None and texts:  # rules in vain are refused: leave the last one out
        compiled, texts = _policy_or_none(head + "".join(texts)), texts[:-1]
    if compiled is None:
        return
    factors = frozenset({"pwd", "otp"} if strong else {"pwd"})
    who = principal(*roles, client=client, factors=factors, auth_time=int(NOW) - age, claims=claims)
    decision = decide(compiled, who, Target(action, model), address)
    expected = plainly(compiled, who, Target(action, model), address)
    assert (decision.rule, None if isinstance(decision, Grant) else decision.reason) == expected
    asked = Asked(who, Target(action, model), compiled.upstreams["main"], address, NOW)
    for rule in compiled.rules:  # what an explanation misses in a rule is what keeps it from being about the request
        lacks = list(lacking(compiled, rule.scope, asked, deny=not isinstance(rule, AllowRule)))
        assert bool(lacks) != about(rule.scope, who, asked.target, address, compiled)


def _policy_or_none(text: str) -> Policy | None:

    try:
        return policy(text)
    except ConfigError:
        return None
