"""The ports: what the gateway needs of the world, as Protocols. Adapters stand behind them, simulators in the tests.

Foreign exceptions never cross a port: an adapter raises only what its port names.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from proxy.exchange import (
    Budget,
    Certificate,
    Charge,
    Cost,
    Exchange,
    Exhausted,
    Inputs,
    Issuer,
    Outbound,
    Principal,
    Reply,
    Score,
    SequenceFinding,
    SequenceUse,
    Sightings,
    Streamed,
    Upstream,
)
from proxy.reasons import Reason
from proxy.record import Event, Position


class Clock(Protocol):
    """Time as an argument."""

    def now(self) -> float:
        """Return UNIX seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return so many seconds later."""
        ...


class VerificationKey(Protocol):
    """A public key that has passed the hygiene of its key set."""

    @property
    def kid(self) -> str:
        """The key's id in its set."""
        ...

    @property
    def algorithm(self) -> str:
        """The one JWS algorithm that it verifies (RFC 8725 section 3.1)."""
        ...

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether the signature (JWS form) over the message is this key's."""
        ...


class KeyRing(Protocol):
    """The issuers' public keys."""

    async def key(self, issuer: Issuer, kid: str) -> VerificationKey:
        """Return a key; raise Unauthenticated(TOKEN_KEY_UNKNOWN) or DependencyFault(KEYS_UNAVAILABLE)."""
        ...

    def generation(self, issuer: Issuer) -> int:
        """Return a number that changes with the issuer's keys, so that cached verdicts die with them."""
        ...


class RevocationList(Protocol):
    """Who and what is no longer believed, though its time has not come."""

    @property
    def generation(self) -> int:
        """Return a number that changes whenever `revoked` may name more callers: a stream asks again then."""
        ...

    def revoked(self, principal: Principal, certificate: Certificate | None) -> Reason | None:
        """Return TOKEN_REVOKED or CERTIFICATE_REVOKED, or None. `certificate` is the connection's."""
        ...


class Replays(Protocol):
    """Which proofs of possession have been seen."""

    async def first(self, proof: bytes, seconds: int) -> bool:
        """Remember a proof for so long; say whether it was new. Raise DependencyFault(PROOFS_UNAVAILABLE)."""
        ...


class Sources(Protocol):
    """How often an address may fail to authenticate."""

    def blocked(self, address: str) -> int | None:
        """Return the seconds to wait when the address has failed too often, else None."""
        ...

    def failed(self, address: str) -> None:
        """Count a failed authentication."""
        ...


class Places(Protocol):
    """How many requests one account may have under way at once."""

    def take(self, event: str, account: str) -> bool:
        """Give a request a place, if the account has one left."""
        ...

    def leave(self, event: str) -> None:
        """Free the place of a request, if it has one."""
        ...


class Ledger(Protocol):
    """Who has spent how much."""

    async def charge(self, account: str, budget: Budget, cost: Cost) -> Charge | Exhausted:
        """Charge every window of the budget at once, or none. Raise DependencyFault(LEDGER_UNAVAILABLE)."""
        ...

    async def settle(self, charge: Charge, actual: Cost) -> None:
        """Correct an estimated cost after the fact. Raise DependencyFault(LEDGER_UNAVAILABLE)."""
        ...


class Detector(Protocol):
    """A trained judge of inputs."""

    @property
    def features(self) -> int:
        """How many numbers a row has; 0: it judges texts, or encoded images."""
        ...

    async def judge(self, rows: Inputs) -> Score:
        """Return the strangest row's score. The loop does not wait for a large batch.

        Raise Malformed(SCHEMA_MISMATCH) for a wrong width, a number that is not finite, or the other kind of row, and
        DependencyFault(DETECTOR_FAILED) when the detector itself fails.
        """
        ...

    async def examine(self, rows: Inputs) -> tuple[Score, Sightings]:
        """Do as `judge`, and return what query sequences need of every row."""
        ...


class Sequences(Protocol):
    """What callers asked lately."""

    async def observe(
        self, account: str, detector: str, sightings: Sightings, use: SequenceUse, now: float
    ) -> SequenceFinding | None:
        """Take note of a request's rows, seen by the detector of this digest, and say what the caller's rows show."""
        ...


class UpstreamClient(Protocol):
    """The way to the model servers."""

    async def send(self, upstream: Upstream, request: Outbound) -> Reply:
        """Send one request and return the whole reply, at most `upstream.max_reply_bytes` long.

        Raise UpstreamFault (UNREACHABLE, PROTOCOL, TOO_LARGE), UpstreamTimeout, or Overloaded (UPSTREAM_OPEN).
        """
        ...

    def stream(self, upstream: Upstream, request: Outbound) -> AbstractAsyncContextManager[Streamed]:
        """Send one request and hand out the reply as it comes, no faster than it is taken; leaving early ends it.

        Raise what `send` raises, also while the pieces come.
        """
        ...


class Trail(Protocol):
    """The audit journal, the system of record."""

    async def append(self, event: Event) -> Position:
        """Return when the record is as durable as the configuration promises.

        Raise DependencyFault(AUDIT_UNWRITABLE): then nothing may be forwarded or answered.
        """
        ...


class Observer(Protocol):
    """Spans and metrics: told of every finished exchange, never waited for, never the system of record."""

    def finished(self, exchange: Exchange, decision: Position | None, completion: Position | None) -> None:
        """Take note. Must neither block nor raise."""
        ...
