"""The RateLimit fields, as a client of the draft would read them."""

from proxy.budget.account import Account
from proxy.budget.fields import rate_limit_headers
from proxy.exchange import Budget, Cost, Exhausted, Unit, Window

NOW = 20_000 * 86_400 * 1_000_000  # where slices of all three windows begin
BUDGET = Budget("b", (Window(Unit.REQUESTS, 60, 60), Window(Unit.ROWS, 1000, 86_400), Window(Unit.TOKENS, 5, 10)))


def test_a_charge() -> None:
    """One member a window, in the budget's order; requests are the default unit, others are named."""
    outcome = Account().charge("a", BUDGET, Cost(10, 200, 0), NOW)
    assert rate_limit_headers(outcome) == (
        (
            b"ratelimit-policy",
            b'"requests-60s";q=60;w=60, "rows-86400s";q=1000;qu="rows";w=86400, "tokens-10s";q=5;qu="tokens";w=10',
        ),
        (b"ratelimit", b'"requests-60s";r=50;t=62, "rows-86400s";r=800;t=89100, "tokens-10s";r=5;t=10'),
    )


def test_a_refusal_has_the_same_fields() -> None:
    """And `Retry-After` is no earlier than the effective window of the window that refuses (section 6)."""
    account = Account()
    account.charge("a", BUDGET, Cost(60), NOW)
    outcome = account.charge("a", BUDGET, Cost(1), NOW)
    assert isinstance(outcome, Exhausted)
    assert outcome.retry_after is not None
    assert outcome.retry_after >= outcome.states[0].reset
    names = dict(rate_limit_headers(outcome))
    assert names[b"ratelimit"].startswith(b'"requests-60s";r=0;t=')
