"""What a caller is told of a budget: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).

Both are structured fields (RFC 9651), one member for each window, in the budget's order. `Retry-After` is no part of
this: it belongs to the refusal (`proxy.problem`). The numbers are hints, not promises (section 4.1.1): another request
of the same account may come first.
"""

from proxy.exchange import Charge, Exhausted, Headers, Unit, WindowState


def rate_limit_headers(outcome: Charge | Exhausted) -> Headers:
    """Return the two fields for what a ledger said."""
    return (
        (b"ratelimit-policy", ", ".join(map(_policy, outcome.states)).encode("ascii")),
        (b"ratelimit", ", ".join(map(_limit, outcome.states)).encode("ascii")),
    )


def _policy(state: WindowState) -> str:
    window = state.window
    # Section 3.1: without `qu` the unit is requests. Rows and tokens are not in the registry of section 10.3 yet;
    # an unregistered unit tells the truth, the default would not.
    unit = "" if window.unit is Unit.REQUESTS else f';qu="{window.unit}"'
    return f'"{window.name}";q={window.limit}{unit};w={window.seconds}'


def _limit(state: WindowState) -> str:
    return f'"{state.window.name}";r={state.remaining};t={state.reset}'
