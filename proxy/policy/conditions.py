"""The conditions that no index answers: where a connection is from, when it is, what else the token says. Pure.

What cannot be read is in no allowed network and in every denied one; the same holds for claims (`proxy.policy.facts`).
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from proxy.exchange import Principal
from proxy.policy.model import Scope

Address = IPv4Address | IPv6Address


def unmet(scope: Scope, principal: Principal, address: Address | None, now: float, *, unknown: bool) -> Iterator[str]:
    """Yield the keys of the conditions that do not hold. `unknown` is the answer for what cannot be read."""
    if scope.networks is not None and not (
        unknown if address is None else any(address in network for network in scope.networks)
    ):
        yield "networks"
    if scope.hours is not None and not any(hours.hold(now) for hours in scope.hours):
        yield "hours"
    if scope.claims is not None and not all(claim.holds(principal.claims, unknown=unknown) for claim in scope.claims):
        yield "claims"


def read_address(text: str) -> Address | None:
    """Read an address; IPv4 inside IPv6 (RFC 4291 section 2.5.5.2) is IPv4, or a rule could be walked around."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
