"""Request parameters in a policy: the rule's terms over what each dialect holds safe, complete in every grant."""

import pytest
from policy_building import BASE, READERS, policy, principal

from proxy.dialects import DIALECTS
from proxy.exchange import Action, Grant, KnownParameter, Parameter, Target
from proxy.policy.decide import authorize
from proxy.policy.model import Policy

OPENAI = BASE.replace("dialect: oip-v2", "dialect: openai").replace("labels: {", "served_as: /srv/iris.gguf, labels: {")
SHORT = """\
parameters:
  short: {max_tokens: {at_most: 8, above: refuse}, top_logprobs: {at_most: 1}, logprobs: refuse, echo: allow}
"""
NOW = 1_700_000_000.0


def granted(given: Policy, target: Target) -> Grant:
    decision = authorize(given, principal(), target, given.upstreams["main"], "127.0.0.1", now=NOW)
    assert isinstance(decision, Grant)
    return decision


def test_without_terms_a_grant_has_the_dialects_defaults() -> None:
    grant = granted(policy(OPENAI + READERS), Target(Action.INFER, "iris"))
    known = DIALECTS["openai"].parameters
    assert grant.parameters == {word: one.default for word, one in known.items() if one.default is not None}
    assert "echo" not in grant.parameters


def test_a_rules_terms_replace_them_one_by_one() -> None:
    grant = granted(policy(OPENAI + SHORT + READERS + "    parameters: short\n"), Target(Action.INFER, "iris"))
    assert grant.parameters == {
        "max_tokens": Parameter(8, cap=False),
        "top_logprobs": Parameter(1),
        "echo": Parameter(),
        "n": DIALECTS["openai"].parameters["n"].default,
    }


FLOORS: list[tuple[str, str, Parameter | None]] = [
    ("allow", "refuse", None),
    ("{at_most: 9}", "refuse", None),
    ("refuse", "{at_most: 9}", None),
    ("allow", "{at_most: 9}", Parameter(9)),
    ("allow", "{at_most: 9, above: refuse}", Parameter(9, cap=False)),
    ("{at_most: 9}", "{at_most: 9, above: refuse}", Parameter(9)),
    ("{at_most: 8}", "{at_most: 9, above: refuse}", Parameter(8)),
    ("{at_most: 8, above: refuse}", "{at_most: 9}", Parameter(8, cap=False)),
    ("{at_most: 10, above: refuse}", "{at_most: 9}", Parameter(9, cap=False)),
    ("{at_most: 10}", "{at_most: 9}", Parameter(9)),
    ("{at_most: 10}", "{at_most: 0}", Parameter(0)),
]


@pytest.mark.parametrize(("rule", "floor", "held"), FLOORS, ids=[f"{rule} over {floor}" for rule, floor, _ in FLOORS])
def test_no_rule_undercuts_the_floor(rule: str, floor: str, held: Parameter | None) -> None:
    text = f"parameters:\n  own: {{max_tokens: {rule}}}\nfloor: {{parameters: {{max_tokens: {floor}}}}}\n"
    given = policy(OPENAI + text + READERS + "    parameters: own\n")
    assert granted(given, Target(Action.INFER, "iris")).parameters.get("max_tokens") == held


def test_a_floor_holds_rules_that_say_nothing_and_is_in_the_grants_words() -> None:
    floor = "floor: {parameters: {max_tokens: {at_most: 3}, logprobs: refuse}}\n"
    grant = granted(policy(OPENAI + floor + READERS), Target(Action.INFER, "iris"))
    assert grant.parameters["max_tokens"] == Parameter(3)
    assert "max_tokens up to 3" in grant.terms
    assert granted(policy(OPENAI + READERS), Target(Action.INFER, "iris")).terms == ()


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_what_a_dialect_allows_by_itself_is_limited_where_it_counts(name: str) -> None:
    """A counted default without a limit would be no default at all."""
    for word, known in DIALECTS[name].parameters.items():
        assert isinstance(known, KnownParameter)
        if known.counted and known.default is not None:
            assert known.default.most is not None, word


def test_a_whole_server_is_told_which_of_its_models_the_rule_is_about() -> None:
    more = OPENAI.replace("models:\n", "models:\n  wine: {upstream: main}\n  secret: {upstream: main}\n")
    rules = READERS.replace("models: [iris]", "models: [wine, iris]").replace("[infer]", "[infer, metadata]")
    grant = granted(policy(more + rules), Target(Action.METADATA, None))
    assert grant.target.models == ("iris", "wine")


def test_a_models_other_name_is_the_servers() -> None:
    assert policy(OPENAI + READERS).models["iris"].served_as == "/srv/iris.gguf"


def test_a_described_server_has_its_pointers_as_steps() -> None:
    described = BASE.replace(
        "dialect: oip-v2",
        'dialect: generic, generic: {infer: /p, rows: "", features: /a~1b, scores: [/r/*/s], labels: [/m~0n]}',
    )
    form = policy(described + READERS).upstreams["main"].form
    assert form is not None
    assert (form.rows, form.features, form.scores, form.labels) == ((), ("a/b",), (("r", "*", "s"),), (("m~n",),))
