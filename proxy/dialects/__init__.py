"""Dialects: what each family of model servers says over HTTP. Pure.

A dialect names which method and path is which action on which model, what a request costs, where its numbers are,
and how every form in which a score can leave is hardened. What a dialect cannot read completely is refused.
How to add one: docs/dialects.md.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from proxy.dialects.oip_v2 import OipV2
from proxy.exchange import Headers, Output, Query, Reply, Target


class Dialect(Protocol):
    """One server family's HTTP."""

    @property
    def name(self) -> str:
        """The word in the policy file."""
        ...

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Name the action and the model; None: not a path of this dialect.

        Raise MethodNotAllowed, or UnknownRoute for a path that is of this dialect and still never served.
        """
        ...

    def read(self, target: Target, headers: Headers, body: bytes) -> Query:
        """Read a request body once. Raise Malformed or UnsupportedMediaType."""
        ...

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> tuple[Headers, bytes]:
        """Return the headers and body that may leave. Raise UpstreamFault(UPSTREAM_UNREADABLE)."""
        ...


DIALECTS: Mapping[str, Dialect] = MappingProxyType({dialect.name: dialect for dialect in (OipV2(),)})
