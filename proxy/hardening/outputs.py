"""Output profiles: how two of them become the stricter one."""

from proxy.exchange import Output


def stricter(rule: Output, floor: Output | None) -> Output:
    """Return the profile that satisfies both; it keeps the rule's name."""
    if floor is None:
        return rule
    return Output(
        name=rule.name,
        decimals=_least(rule.decimals, floor.decimals),
        top_k=_least(rule.top_k, floor.top_k),
        label_only=rule.label_only or floor.label_only,
    )


def _least(one: int | None, other: int | None) -> int | None:
    given = [value for value in (one, other) if value is not None]
    return min(given, default=None)
