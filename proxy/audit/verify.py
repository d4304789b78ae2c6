"""Verification, apart from all input and output: lines in, a report out, constant memory.

Decides between four answers: intact, tampered, incomplete, cannot tell. It recomputes every hash, compares every
signed head that passes, and trusts one thing: the long-term public key it was given. It does NOT prove that a live,
compromised process wrote the truth, nor, without a head kept elsewhere, that a directory was not rolled back whole.
"""

from collections.abc import Mapping
from hashlib import sha256

from proxy.audit.certificate import Certificate
from proxy.audit.chain import GENESIS, NO_SALT, Envelope, LineError, SchemaError, read_event, spell, split
from proxy.audit.checkpoint import Checkpoint, origin
from proxy.audit.findings import Fault, Status, StreamReport
from proxy.audit.merkle import Tree, leaf_hash
from proxy.audit.note import NoteError, Verifier
from proxy.audit.pairs import MAX_OPEN_PAIRS, Pairs
from proxy.audit.roster import Known
from proxy.audit.withheld import is_withheld, read_withheld
from proxy.audit.witness import MAX_WAITING, Waiting, Witness
from proxy.record import SCHEMA_VERSION, AnyEvent, Completion, Decision, Segment, Stop
from proxy.record import Checkpoint as CheckpointRecord

NOTHING = sha256().hexdigest()
_REQUESTS = (b'decision"', b'completion"')
_TYPE = b',"type":"'


class _Wrong(ValueError):
    """A line that cannot be part of this stream."""


class StreamCheck:
    """One pass over one stream. `known` is what the anchor log says; without it a cut tail cannot show."""

    def __init__(
        self,
        stream: str,
        auditor: Verifier,
        known: Known | None = None,
        kept: Mapping[int, bytes] | None = None,  # size → root, of checkpoints that an auditor kept
        *,
        whole: bool = True,  # False: a file that was taken out of its stream may begin in the middle
        hash_only: bool = False,  # look at requests' hashes, not into them: three times as fast, pairs are not counted
        witness: Witness | None = None,
    ) -> None:
        self.report = StreamReport(stream)
        self._auditor = auditor
        self._known = known
        self._kept = dict(kept or {})
        self._whole = whole
        self._from_zero = whole and (known is None or known.deleted is None)
        self._hash_only = hash_only
        self._witness = None if witness is None else Waiting(witness)
        self._tree = Tree()
        self._prev = GENESIS
        self._certificate: Certificate | None = None
        self._segment = -1
        self._last_ns = 0
        self._torn = b""
        self._served = False
        self._stopped = False
        self._pairs = Pairs(whole=self._from_zero)
        self._note = ""
        self._events = {
            Segment: self._on_segment,
            CheckpointRecord: self._on_checkpoint,
            Decision: self._on_decision,
            Completion: self._on_completion,
            Stop: self._on_stop,
        }

    @property
    def broken(self) -> bool:
        """Say whether the chain has broken: what follows cannot be judged."""
        return any(fault.status is Status.TAMPERED for fault in self.report.faults)

    def feed(self, line: bytes) -> None:
        """Take the next line, with its newline; a line without one is what a crash left."""
        if self.broken:
            return
        if self._torn:
            self._fault(Status.TAMPERED, "records follow an unfinished one")
            return
        if not line.endswith(b"\n"):
            self._torn = line
            return
        try:
            self._take(line[:-1])
        except (_Wrong, LineError, NoteError) as error:
            self._fault(Status.TAMPERED, str(error))

    def _take(self, line: bytes) -> None:
        if is_withheld(line):
            self._take_withheld(line)
        elif not (self._hash_only and self._take_unread(line)):
            self._take_read(line)
        self._compare()

    def _take_read(self, line: bytes) -> None:
        envelope, body = split(line)
        if envelope.stream != self.report.stream:
            message = f"a record of stream {envelope.stream}"
            raise _Wrong(message)
        if not self.report.records:
            self._begin(envelope, body)
        tree = self._tree
        if envelope.seq != tree.size:
            message = f"record {envelope.seq} stands here: a record is missing, doubled or moved"
            raise _Wrong(message)
        if envelope.prev != self._prev:
            raise _Wrong("does not follow the record before it: one of the two was changed")
        event: AnyEvent | None = None
        leaf = leaf_hash(line)
        try:
            event = read_event(body, envelope.v)
            judge = self._events.get(type(event))
            if judge is not None:
                judge(event, envelope, line)  # type: ignore[operator]
        except SchemaError as error:  # an unknown schema leaves the chain judgeable
            self._fault(Status.UNKNOWN, str(error))
        finally:
            self._grow(leaf)
            self._last_ns = envelope.t_ns
        if isinstance(event, CheckpointRecord):
            self._seal(tree.size, envelope.t_ns)
        if self._witness is not None:
            self._witness.record(envelope, event, line, leaf)

    def _take_unread(self, line: bytes) -> bool:
        """Take a request's record by its bytes: the chain and the signed root speak for what is in it."""
        start = line.find(_TYPE) + len(_TYPE)
        if not self.report.records or not line.startswith(_REQUESTS, start):
            return False
        report = self.report
        head = f'{{"v":{SCHEMA_VERSION},"stream":"{report.stream}","seq":{self._tree.size},"prev":"{self._prev}",'
        if not line.startswith(head.encode()):
            return False  # the slow way says what is wrong
        self._serve()
        report.unread += 1
        self._grow(leaf_hash(line))
        return True

    def _take_withheld(self, line: bytes) -> None:
        seq, leaf = read_withheld(line)
        if not self.report.records or seq != self._tree.size:
            raise _Wrong("a withheld record out of its place")
        self._serve()
        self.report.withheld += 1
        self._grow(leaf)
        if self._witness is not None:
            self._witness.withheld(seq, leaf)

    def _grow(self, leaf: bytes) -> None:
        self._tree.add(leaf)
        self._prev = leaf.hex()
        self.report.records += 1

    # ── the journal's own records ───────────────────────────────────────────────────────────────────────────────

    def _begin(self, envelope: Envelope, body: bytes) -> None:
        """Find where the stream begins: at its first record, or with a segment's own account of what was before."""
        if envelope.seq == 0:
            return
        if self._from_zero:
            message = f"the stream begins with record {envelope.seq}: earlier segments are missing"
            raise _Wrong(message)
        event = read_event(body)
        if not isinstance(event, Segment):
            raise _Wrong("a file that does not begin with a segment record")
        try:
            self._tree = Tree(envelope.seq, [bytes.fromhex(peak) for peak in event.peaks])
        except ValueError as error:
            raise _Wrong("the tree's state in the segment record does not fit its seq") from error
        self._prev, self._segment = envelope.prev, event.index - 1
        self.report.first_seq = envelope.seq
        deleted = None if self._known is None else self._known.deleted
        if deleted is not None:
            self.report.pruned = event.index
            if envelope.seq > deleted.size or (envelope.seq == deleted.size and envelope.prev != deleted.hash):
                raise _Wrong("the stream does not begin where retention, on record, has cut it")
        if self._witness is not None:
            self._witness.begin(envelope.seq, list(self._tree.peaks))

    def _on_segment(self, event: Segment, envelope: Envelope, _: bytes) -> None:
        certificate = Certificate.open(event.certificate, self._auditor)
        if certificate.stream != self.report.stream or certificate.segment != event.index:
            raise _Wrong("the segment's key is certified for another stream or segment")
        if event.index != self._segment + 1:
            message = f"segment {event.index} follows segment {self._segment}"
            raise _Wrong(message)
        if list(event.peaks) != [peak.hex() for peak in self._tree.peaks]:
            raise _Wrong("the segment record tells of another tree")
        self._segment, self._certificate, self._note = event.index, certificate, event.certificate
        self._head(event.checkpoint)
        self._seal(envelope.seq, envelope.t_ns)

    def _on_checkpoint(self, event: CheckpointRecord, envelope: Envelope, line: bytes) -> None:
        if self._certificate is None:
            raise _Wrong("a checkpoint before the segment's certificate")
        head = self._head(event.note)
        if (envelope.t_ns, envelope.mono_ns, envelope.salt) != (head.t_ns, head.mono_ns, NO_SALT):
            raise _Wrong("a checkpoint's record and its signed note tell different times")
        if line != envelope.head() + b"," + spell(event)[1:]:  # every byte of this line is thereby signed for
            raise _Wrong("a checkpoint is not spelled as we write it")

    def _head(self, note: str) -> Checkpoint:
        """Check a signed head over exactly the records so far."""
        if self._certificate is None:
            raise _Wrong("a head before the segment's certificate")
        head = Checkpoint.parse(self._certificate.key.open(note))
        if head.origin != origin(self.report.stream) or head.size != self._tree.size:
            raise _Wrong("a checkpoint of another stream or place")
        if head.root != self._tree.root():
            raise _Wrong("the signed root is of other records")
        if not self._certificate.covers(head.t_ns):
            raise _Wrong("a checkpoint signed outside its key's window")
        self.report.head = note
        if self._witness is not None:
            self._witness.sealed(note, self._note)
        return head

    def _on_stop(self, *_: object) -> None:
        self._stopped = True

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_decision(self, event: Decision, *_: object) -> None:
        self._serve()
        self._pairs.decided(event)

    def _on_completion(self, event: Completion, *_: object) -> None:
        self._serve()
        self._pairs.completed(event)

    def _serve(self) -> None:
        self._served = True
        if self._stopped:
            raise _Wrong("a request after the stream has stopped")

    # ── seals ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _seal(self, size: int, t_ns: int) -> None:
        self.report.sealed, self.report.sealed_ns = size, t_ns

    def _compare(self) -> None:
        """Compare with whatever signed head speaks of exactly this many records."""
        size = self._tree.size
        root = self._kept.pop(size, None)
        if root is not None and root != self._tree.root():
            raise _Wrong("the records so far are not those of the head that was kept")
        if self._known is None:
            return
        for head in (self._known, self._known.found):
            if head is not None and head.size == size:
                if head.root != self._tree.root().hex():
                    raise _Wrong("the records so far are not those of the anchor log")
                self._seal(size, self._last_ns)
                if self._witness is not None:
                    self._witness.vouched()

    def finish(self) -> StreamReport:
        """Judge the end of the stream."""
        report, known = self.report, self._known
        report.torn_bytes = len(self._torn)
        pairs = self._pairs
        report.allowed, report.refused, report.completed = pairs.allowed, pairs.refused, pairs.completions
        report.unpaired = pairs.unpaired
        if self.broken:
            return report
        size = self._tree.size
        if any(kept > size for kept in self._kept):
            self._fault(Status.TAMPERED, f"cut: a head that was kept covers {max(self._kept)} records")
        elif known is not None and known.final_size > size:
            self._fault(Status.TAMPERED, f"cut: the anchor log has seen {known.final_size} records")
        elif known is not None and known.closed:
            self._finish_closed(known, size)
        elif not report.records:
            self._fault(Status.INCOMPLETE, "not one whole record")
        elif known is None and self._from_zero and self._served:
            self._fault(Status.TAMPERED, "served requests, but the anchor log does not know the stream")
        else:
            self._finish_open(known)
        if any(kept < size for kept in self._kept):
            self._fault(Status.UNKNOWN, "a head that was kept covers only records before this file")
        if self._witness is not None and self._witness.overflowed:
            self._fault(Status.UNKNOWN, f"more than {MAX_WAITING} records without a signed head: not shown")
        if pairs.lost:
            self._fault(Status.UNKNOWN, f"more than {MAX_OPEN_PAIRS} unpaired decisions: pairs were not all counted")
        return report

    def _finish_closed(self, known: Known, size: int) -> None:
        report = self.report
        report.ending = "recovered" if known.found is not None else "stopped"
        torn = (len(self._torn), sha256(self._torn).hexdigest())
        expected = (known.found.torn_bytes, known.found.torn_digest) if known.found else (0, NOTHING)
        if size > known.final_size:
            self._fault(Status.TAMPERED, f"records were added after the stream's end at {known.final_size}")
        elif torn != expected:
            self._fault(Status.TAMPERED, "the unfinished last line is not the one that was found after the crash")
        elif known.ended and not self._stopped:
            self._fault(Status.TAMPERED, "the anchor log tells of an orderly end, the stream does not")
        elif known.ended and report.unpaired:
            self._fault(Status.INCOMPLETE, f"{report.unpaired} requests have only one of their two records")

    def _finish_open(self, known: Known | None) -> None:
        report = self.report
        if known is None and not self._whole and self._stopped and not self._torn and not report.unsealed:
            report.ending = "stopped"
            return
        what = "the stream has no end yet: it is being written, or its process died and none has started since"
        if self._torn:
            what += f"; {len(self._torn)} bytes of an unfinished record"
        self._fault(Status.INCOMPLETE, what)

    def _fault(self, status: Status, what: str) -> None:
        self.report.faults.append(Fault(status, self.report.stream, self._tree.size, what))
