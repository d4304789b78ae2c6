"""Request parameters: an allow-list per rule. Pure.

A dialect knows which parameters are always safe and what their values are made of; everything else is refused unless
the rule names it. NOT decided here: what a parameter means to a server.
"""

from proxy.errors import Malformed
from proxy.exchange import Parameters
from proxy.reasons import Reason

Value = bool | int | float | str


def permitted(name: str, value: Value, allowed: Parameters) -> Value:
    """Return the value that may be forwarded: as it is, or as much of it as the rule allows. Raise Malformed."""
    rule = allowed.get(name)
    if rule is None:
        raise Malformed(Reason.FORBIDDEN_PARAMETER, "a parameter that the rule does not allow")
    if rule.most is None:
        return value
    if isinstance(value, bool | str):
        raise Malformed(Reason.FORBIDDEN_PARAMETER, "a parameter with a limit that is not a number")
    if value <= rule.most:
        return value
    if not rule.cap:
        raise Malformed(Reason.FORBIDDEN_PARAMETER, "a parameter above the rule's limit")
    return rule.most
