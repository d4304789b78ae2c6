"""A compiled policy in words: what a rule asks and under which conditions it allows. Decides nothing.

`hip check`, `explain`, `replay` and `diff` say the same thing the same way; what is wide open stands in capitals.
"""

from collections.abc import Iterable, Iterator, Mapping

from proxy.exchange import Action, Budget, DetectorUse, Mfa, Output, Parameters, Principal, Window
from proxy.policy.model import AllowRule, Recorded, Scope

NO_MFA = "NO MFA"

MAX_WORDS = 12  # of one list; the rest is counted

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_PERIODS = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}


def listed(words: Iterable[str]) -> str:
    """Return words in order, and how many more there are."""
    named = sorted(words)
    more = f" and {len(named) - MAX_WORDS} more" if len(named) > MAX_WORDS else ""
    return ", ".join(named[:MAX_WORDS]) + more


def duration(seconds: int) -> str:
    """Return seconds as a policy writes them: `8h`, `90s`."""
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def conditions(scope: Scope) -> Mapping[str, str]:
    """Return what a rule asks, by its key; what it does not ask is not in it."""
    anything = scope.actions == frozenset(Action)
    asked = {
        "roles": "ANY ROLE" if scope.roles is None else listed(scope.roles),
        "issuers": None if scope.issuers is None else listed(scope.issuers),
        "clients": None if scope.clients is None else listed(scope.clients),
        "networks": None if scope.networks is None else ", ".join(map(str, scope.networks)),
        "hours": None if scope.hours is None else ", ".join(hours.text for hours in scope.hours),
        "claims": None if scope.claims is None else "; ".join(map(str, scope.claims)),
        "actions": "ANYTHING" if anything else listed(scope.actions),
        "models": listed(scope.models),
    }
    return {key: words for key, words in asked.items() if words is not None}


def obligations(rule: AllowRule) -> Iterator[str]:
    """Yield the conditions of a permission."""
    yield NO_MFA if rule.mfa is None else "MFA"
    yield f"budget {rule.budget.name}"
    yield from output(rule.output)
    if rule.asks is not None:
        yield f"parameters {rule.asks}"
    if rule.detector is not None:
        yield detector(rule.detector)


def output(profile: Output) -> Iterator[str]:
    """Yield how exactly an answer may speak."""
    if profile.label_only:
        yield "label only"
    if profile.decimals is not None:
        yield f"{profile.decimals} decimal{'' if profile.decimals == 1 else 's'}"
    if profile.top_k is not None:
        yield f"top {profile.top_k}"


def recorded(terms: Recorded) -> str:
    """Return what is kept of a model's inputs, for whom and how long."""
    rate = f"up to {terms.rows_per_minute} a minute"
    return f"{rate} are kept for {duration(terms.keep)}, encrypted to the key {terms.recipient}"


def detector(use: DetectorUse) -> str:
    """Return who judges the inputs, and what comes of it."""
    return f"detector {use.name} ({use.mode})"


def parameter_words(allowed: Parameters) -> tuple[str, ...]:
    """Return the request parameters that may be used, and how far."""
    return tuple(
        name if one.most is None else f"{name} up to {one.most}{'' if one.cap else ', no more'}"
        for name, one in sorted(allowed.items())
    )


def budget(limits: Budget) -> str:
    """Return a budget's windows as a policy writes them."""
    return ", ".join(map(_window, limits.windows))


def _window(window: Window) -> str:
    unit = window.unit.removesuffix("s") if window.limit == 1 else window.unit
    period = _PERIODS.get(window.seconds)
    return f"{window.limit} {unit}" + (f"/{period}" if period else f" per {duration(window.seconds)}")


def terms(mfa: Mfa | None, issuer: Mfa) -> str:
    """Return what a rule asks of the authentication, with what its issuer asks."""
    if mfa is None:
        return NO_MFA
    asked = mfa if mfa.any_amr or mfa.acr_values else issuer
    ways = [listed(asked.any_amr)] if asked.any_amr else []
    ways += [f"context {value}" for value in asked.acr_values]
    age = issuer.max_age if mfa.max_age is None else mfa.max_age
    recent = "" if age is None else f", at most {duration(age)} ago"
    return (" or ".join(ways) or "`mfa` or two kinds of factor") + recent


def authentication(principal: Principal, now: float) -> str:
    """Return how somebody signed in, in the words of the token."""
    words = [listed(principal.factors) or "no `amr`"]
    words += [f"context {principal.acr}"] if principal.acr is not None else []
    if principal.auth_time is None:
        words.append("no `auth_time`")
    else:
        words.append(f"signed in {duration(max(0, int(now) - principal.auth_time))} ago")
    return ", ".join(words)
