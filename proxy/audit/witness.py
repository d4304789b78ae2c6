"""Who looks over the verifier's shoulder: a report, a proof, an export. Sees only what a signature vouches for.

Records wait here until a signed head covers them; what is behind the last one, or at a break, is shown to nobody.
"""

from typing import Protocol

from proxy.audit.chain import Envelope
from proxy.record import AnyEvent

MAX_WAITING = 100_000  # records; the journal signs at least every 1,000


class Witness(Protocol):
    """One for each stream."""

    def begin(self, size: int, peaks: list[bytes]) -> None:
        """Take note of the tree before the first record that is there; not called for a stream that begins with 0."""
        ...

    def record(self, envelope: Envelope, event: AnyEvent | None, line: bytes, leaf: bytes) -> None:
        """Take the next record; `event` is None where its schema is not known."""
        ...

    def withheld(self, seq: int, leaf: bytes) -> None:
        """Take the next record, of which only the hash is there."""
        ...

    def sealed(self, note: str, certificate: str) -> None:
        """Take note that this signed head covers every record so far."""
        ...


class Waiting:
    """Holds records back until they are vouched for."""

    __slots__ = ("_records", "_witness", "overflowed")

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._records: list[tuple[Envelope, AnyEvent | None, bytes, bytes] | tuple[int, bytes]] = []
        self.overflowed = False  # too many records without a signature: nothing more is shown

    def begin(self, size: int, peaks: list[bytes]) -> None:
        """Pass on."""
        self._witness.begin(size, peaks)

    def record(self, envelope: Envelope, event: AnyEvent | None, line: bytes, leaf: bytes) -> None:
        """Hold a record back."""
        self._hold((envelope, event, line, leaf))

    def withheld(self, seq: int, leaf: bytes) -> None:
        """Hold its place back."""
        self._hold((seq, leaf))

    def _hold(self, record: tuple[Envelope, AnyEvent | None, bytes, bytes] | tuple[int, bytes]) -> None:
        if len(self._records) >= MAX_WAITING:
            self.overflowed = True
        if not self.overflowed:
            self._records.append(record)

    def vouched(self) -> None:
        """Show everything that waits."""
        if self.overflowed:
            return
        for record in self._records:
            if len(record) == 2:
                self._witness.withheld(*record)
            else:
                self._witness.record(*record)
        self._records.clear()

    def sealed(self, note: str, certificate: str) -> None:
        """Show everything that waits, and the head that covers it."""
        self.vouched()
        if not self.overflowed:
            self._witness.sealed(note, certificate)
