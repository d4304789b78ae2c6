"""Dialects: what each family of model servers says over HTTP. Pure.

A dialect names which method and path is which action on which model, what a request costs, where its numbers are,
and how every form in which a score can leave is hardened. What a dialect cannot read completely is refused.
How to add one: docs/dialects.md.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from proxy.dialects.generic import Generic
from proxy.dialects.kserve_v1 import KserveV1
from proxy.dialects.mlflow import MLflow
from proxy.dialects.oip_v2 import OipV2
from proxy.dialects.openai import OpenAi
from proxy.dialects.torchserve import TorchServe
from proxy.exchange import (
    Action,
    Cost,
    Hardened,
    Headers,
    KnownParameter,
    Naming,
    Output,
    Parameters,
    Query,
    Reply,
    Target,
    Upstream,
)


class StreamHardener(Protocol):
    """One streamed answer under an output profile. It holds back what is not yet a whole event, up to a cap."""

    @property
    def headers(self) -> Headers:
        """The headers of the answer."""
        ...

    @property
    def cost(self) -> Cost | None:
        """What flowed so far is worth; None: the estimate stands."""
        ...

    def feed(self, piece: bytes) -> bytes:
        """Return what may leave now. Raise UpstreamFault(UPSTREAM_UNREADABLE): then the stream is cut."""
        ...

    def end(self) -> bytes:
        """Return what may leave last, once the upstream has ended. Raise what `feed` raises."""
        ...


class Dialect(Protocol):
    """One server family's HTTP."""

    @property
    def name(self) -> str:
        """The word in the policy file."""
        ...

    @property
    def naming(self) -> Naming:
        """Where its requests name their model."""
        ...

    @property
    def readiness(self) -> str | None:
        """The path that says with GET and 2xx that a server is ready; None: the family has none."""
        ...

    @property
    def parameters(self) -> Mapping[str, KnownParameter]:
        """The request parameters that a rule may speak of; every other one is refused, or always safe."""
        ...

    @property
    def manages(self) -> frozenset[Action]:
        """The actions of management whose replies it reads: no rule opens another one."""
        ...

    def classify(self, method: str, path: str, query: str) -> Target | None:
        """Name the action and the model; None: not a path of this dialect.

        Raise MethodNotAllowed, or UnknownRoute for a path that is of this dialect and still never served.
        """
        ...

    def read(self, target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:
        """Read a request body once. `allowed` are the parameters that may be used: the rule's, and else the defaults.

        Raise Malformed or UnsupportedMediaType.
        """
        ...

    def harden(self, target: Target, query: Query, reply: Reply, output: Output) -> Hardened:
        """Return what may leave. Raise UpstreamFault(UPSTREAM_UNREADABLE)."""
        ...

    def stream(self, target: Target, query: Query, begun: Reply, output: Output) -> StreamHardener:
        """Return a hardener for a reply to `Action.STREAM`; `begun` has its status and headers, and no body.

        Raise UpstreamFault(UPSTREAM_UNREADABLE) for headers of anything but a stream that the dialect reads.
        """
        ...


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {dialect.name: dialect for dialect in (Generic(), KserveV1(), MLflow(), OipV2(), OpenAi(), TorchServe())}
)


def spoken(upstreams: Iterable[Upstream]) -> tuple[Dialect, ...]:
    """Return the dialects of these servers, in the order of their names; `generic` as its server is described."""
    forms = {upstream.dialect: upstream.form for upstream in upstreams}
    return tuple(DIALECTS[name] if form is None else Generic(form) for name, form in sorted(forms.items()))
