"""What a verification can find, and how its findings weigh against each other."""

from dataclasses import dataclass, field
from enum import IntEnum


class Status(IntEnum):
    """The exit codes of `hip audit verify`."""

    INTACT = 0
    TAMPERED = 1
    INCOMPLETE = 2
    UNKNOWN = 3


_GRAVITY = (Status.TAMPERED, Status.UNKNOWN, Status.INCOMPLETE, Status.INTACT)


def gravest(statuses: set[Status]) -> Status:
    """Return the answer that outweighs the others: one forged record outweighs any number of open tails."""
    return next((status for status in _GRAVITY if status in statuses), Status.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where. `seq` is None where a whole stream is concerned."""

    status: Status
    stream: str
    seq: int | None
    what: str


@dataclass(slots=True)
class StreamReport:
    """What was found of one stream."""

    stream: str
    records: int = 0
    first_seq: int = 0
    sealed: int = 0  # records vouched for by a signature
    sealed_ns: int = 0  # when, by the signer's clock
    torn_bytes: int = 0
    ending: str = "open"  # "stopped", "recovered", "open"
    allowed: int = 0
    refused: int = 0
    completed: int = 0
    unpaired: int = 0  # decisions without a completion, and the reverse
    withheld: int = 0  # records of which only the hash is there: encrypted, or left out of an export
    unread: int = 0  # records whose hash was checked and nothing else (`hash_only`)
    pruned: int = 0  # segments that retention deleted on record
    head: str = ""  # the last checkpoint: a note to keep
    faults: list[Fault] = field(default_factory=list)

    @property
    def unsealed(self) -> int:
        """How many records no signature covers yet."""
        return max(0, self.first_seq + self.records - self.sealed)

    @property
    def status(self) -> Status:
        """The gravest finding."""
        return gravest({fault.status for fault in self.faults} or {Status.INTACT})
