"""Requests out of records: a decision with its completion, whole again, for exports.

Decides what belongs together; a decision whose completion does not come is handed out alone, at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.audit.chain import Envelope
from proxy.record import AnyEvent, Completion, Decision, Position

MAX_OPEN = 100_000  # decisions that wait; beyond, the oldest is handed out alone


@dataclass(frozen=True, slots=True)
class Half:
    """One of the two records, and where it stands."""

    at: Position
    t_ns: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is on record of one request."""

    decision: Decision
    decided: Half
    completion: Completion | None = None
    completed: Half | None = None


class Requests:
    """A `Witness` of one stream that hands out requests."""

    def __init__(self, take: Callable[[Request], None]) -> None:
        self._take = take
        self._open: dict[str, tuple[Decision, Half]] = {}

    def begin(self, size: int, peaks: list[bytes]) -> None:
        """Begin in the middle of a stream."""

    def record(self, envelope: Envelope, event: AnyEvent | None, line: bytes, leaf: bytes) -> None:  # noqa: ARG002 - the signature of the port
        """Take a record."""
        half = Half(Position(envelope.stream, envelope.seq, leaf.hex()), envelope.t_ns)
        if isinstance(event, Decision):
            if event.effect == "deny":
                self._take(Request(event, half))
                return
            self._open[event.event] = (event, half)
            if len(self._open) > MAX_OPEN:
                self._take(Request(*self._open.pop(next(iter(self._open)))))
        elif isinstance(event, Completion):
            before = self._open.pop(event.event, None)
            if before is not None:
                self._take(Request(*before, event, half))

    def withheld(self, seq: int, leaf: bytes) -> None:
        """Pass over a record that is not there."""

    def sealed(self, note: str, certificate: str) -> None:
        """Pass over a signed head."""

    def finish(self) -> None:
        """Hand out the decisions that are still alone."""
        for decision, half in self._open.values():
            self._take(Request(decision, half))
        self._open.clear()
