"""What a caller is told of a budget: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).

Both are structured fields (RFC 9651), one member for each window, in the budget's order. `Retry-After` is no part of
this: it belongs to the refusal (`proxy.problem`). The numbers are hints, not promises (section 4.1.1): another request
of the same account may come first.
"""

from proxy.exchange import Charge, Exhausted, Headers


def rate_limit_headers(outcome: Charge | Exhausted) -> Headers:
    """Return the two fields for what a ledger said."""
    states = outcome.states
    quotas = [state.window.quota for state in states]
    limits = [f'"{state.window.name}";r={state.remaining};t={state.reset}' for state in states]
    return (
        (b"ratelimit-policy", ", ".join(quotas).encode("ascii")),
        (b"ratelimit", ", ".join(limits).encode("ascii")),
    )
