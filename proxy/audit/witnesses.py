"""Who looks over the verifier's shoulder: a random sample with its proofs, the records of one incident, a report.

All of them see only records that a signature vouches for (`witness`). They read; they decide nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from proxy.audit.bundle import Proven
from proxy.audit.chain import Envelope
from proxy.audit.proofs import Proofs
from proxy.audit.reconcile import Reconciliation
from proxy.audit.summary import Summary
from proxy.record import AnyEvent, Completion, Decision

SAMPLE = 12  # records


@dataclass(slots=True)
class _Picked:
    proofs: "StreamProofs"
    seq: int
    line: bytes


class StreamProofs:
    """A `Witness` of one stream that can prove the records that `pick` wants."""

    def __init__(
        self,
        pick: Callable[["StreamProofs", Envelope, AnyEvent, bytes], bool],
        others: Reconciliation | None = None,
    ) -> None:
        self._pick = pick
        self._others = others
        self._stream = ""
        self.proofs = Proofs()
        self._note = self._certificate = ""

    def begin(self, size: int, peaks: list[bytes]) -> None:
        """Begin in the middle of a stream."""
        self.proofs = Proofs(size, peaks)

    def record(self, envelope: Envelope, event: AnyEvent | None, line: bytes, leaf: bytes) -> None:
        """Take a record; one that is picked is asked for before its block can be full and gone."""
        self.proofs.add(leaf)
        self._stream = envelope.stream
        if event is not None and self._others is not None:
            self._others.take(envelope, event, leaf)
        if event is not None and self._pick(self, envelope, event, line):
            self.proofs.want(envelope.seq)

    def withheld(self, seq: int, leaf: bytes) -> None:
        """Take a record of which only the hash is there."""
        self.proofs.add(leaf)
        if self._others is not None:
            self._others.withheld(self._stream, seq, leaf)

    def sealed(self, note: str, certificate: str) -> None:
        """Remember the newest head."""
        self.proofs.seal()
        self._note, self._certificate = note, certificate

    def proven(self, seq: int, line: bytes) -> Proven | None:
        """Return a record with its proof; None while no signed head covers it."""
        if seq >= self.proofs.sealed:
            return None
        path = tuple(step.hex() for step in self.proofs.proof(seq))
        return Proven(line.decode(), path, self._note, self._certificate)


class Incident:
    """Picks the records of one incident."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._found: list[_Picked] = []

    def stream(self) -> StreamProofs:
        """Return the witness of one more stream."""
        return StreamProofs(self._pick)

    def _pick(self, proofs: StreamProofs, envelope: Envelope, event: AnyEvent, line: bytes) -> bool:
        if not isinstance(event, Decision | Completion) or event.event != self._event:
            return False
        self._found.append(_Picked(proofs, envelope.seq, line))
        return True

    def proven(self) -> tuple[list[Proven], int]:
        """Return the records with their proofs, and how many no signed head covers yet."""
        found = [picked.proofs.proven(picked.seq, picked.line) for picked in self._found]
        good = [proven for proven in found if proven is not None]
        return good, len(found) - len(good)


class Sample:
    """Picks requests' records at random, each with the same chance, however many there are (reservoir sampling)."""

    def __init__(self, seed: str, size: int = SAMPLE) -> None:
        self.seed = seed  # whoever repeats the report with it gets the same sample
        self._size = size
        self._seen = 0
        self._picked: list[_Picked] = []

    def pick(self, proofs: StreamProofs, envelope: Envelope, event: AnyEvent, line: bytes) -> bool:
        """Say whether this record joins the sample, in the place of another one."""
        if not isinstance(event, Decision | Completion):
            return False
        self._seen += 1
        picked = _Picked(proofs, envelope.seq, line)
        if len(self._picked) < self._size:
            self._picked.append(picked)
            return True
        # By a hash, not by a generator: anybody can repeat it, in any language.
        draw = sha256(f"{self.seed} {self._seen}".encode()).digest()
        at = int.from_bytes(draw[:8], "big") % self._seen
        if at >= self._size:
            return False
        old, self._picked[at] = self._picked[at], picked
        old.proofs.proofs.forget(old.seq)
        return True

    def proven(self) -> list[Proven]:
        """Return the sample with its proofs, in the order of time; what no signed head covers is left out."""
        self._picked.sort(key=lambda picked: picked.line.partition(b'"t_ns":')[2])
        found = (picked.proofs.proven(picked.seq, picked.line) for picked in self._picked)
        return [proven for proven in found if proven is not None]


class Reporter:
    """What a report needs: the summary of all streams, the sample, and what others say."""

    def __init__(self, seed: str, others: Reconciliation | None = None) -> None:
        self.others = others
        self.summary = Summary()
        self.sample = Sample(seed)

    def stream(self) -> StreamProofs:
        """Return the witness of one more stream."""
        return StreamProofs(self._take, self.others)

    def _take(self, proofs: StreamProofs, envelope: Envelope, event: AnyEvent, line: bytes) -> bool:
        self.summary.take(envelope, event)
        return self.sample.pick(proofs, envelope, event, line)
