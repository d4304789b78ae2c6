"""A bundle: a few records that prove themselves. Each comes with its inclusion proof, the signed head and the key's
certificate, so that a third party needs nothing but the auditor's public key.

Decides whether every record in it stood at its place under a head that a certified key signed. It does NOT prove that
the incident has no other records: who made the bundle chose them.
"""

import msgspec

from proxy.audit.certificate import Certificate
from proxy.audit.chain import LineError, split
from proxy.audit.checkpoint import Checkpoint, origin
from proxy.audit.findings import Fault, Status
from proxy.audit.merkle import included, leaf_hash
from proxy.audit.note import NoteError, Verifier

FORMAT = "hip-audit-bundle/v1"
MAX_RECORDS = 10_000
MAX_PROOF = 64  # steps: a tree of 2⁶⁴ leaves


class Proven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One record with all that proves it."""

    line: str  # exactly as written, without its newline
    proof: tuple[str, ...]  # hexadecimal, from the leaf up (RFC 9162 section 2.1.3.1)
    checkpoint: str  # signed note: the head of the stream
    certificate: str  # signed note: the long-term key certifies the key of that head


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    format: str
    about: str  # in words: which incident, which sample
    records: tuple[Proven, ...]


_read = msgspec.json.Decoder(Bundle).decode
_encode = msgspec.json.Encoder().encode


class BundleError(ValueError):
    """Not a bundle."""


def write(about: str, records: list[Proven]) -> bytes:
    """Return the file's content."""
    return msgspec.json.format(_encode(Bundle(format=FORMAT, about=about, records=tuple(records))), indent=2) + b"\n"


def is_bundle(start: bytes) -> bool:
    """Say whether a file that begins so is a bundle and not a journal file."""
    return FORMAT.encode() in start[:200]


def read(data: bytes) -> Bundle:
    """Read a bundle; raise BundleError."""
    try:
        bundle = _read(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"not a bundle: {error}"
        raise BundleError(message) from error
    if bundle.format != FORMAT:
        raise BundleError("a bundle of another format")
    if not 0 < len(bundle.records) <= MAX_RECORDS:
        raise BundleError("a bundle without records, or with too many")
    return bundle


def verify(bundle: Bundle, auditor: Verifier) -> list[Fault]:
    """Return what is wrong with a bundle."""
    faults = []
    for number, proven in enumerate(bundle.records):
        try:
            _verify(proven, auditor)
        except (LineError, NoteError, BundleError, ValueError) as error:
            faults.append(Fault(Status.TAMPERED, "bundle", number, str(error)))
    return faults


def _verify(proven: Proven, auditor: Verifier) -> None:
    line = proven.line.encode()
    envelope, _ = split(line)
    certificate = Certificate.open(proven.certificate, auditor)
    head = Checkpoint.parse(certificate.key.open(proven.checkpoint))
    if envelope.stream != certificate.stream or head.origin != origin(envelope.stream):
        raise BundleError("record, head and certificate are not of one stream")
    if not certificate.covers(head.t_ns):
        raise BundleError("the head was signed outside its key's window")
    if len(proven.proof) > MAX_PROOF:
        raise BundleError("a proof that is too long")
    path = [bytes.fromhex(step) for step in proven.proof]
    if not included(leaf_hash(line), envelope.seq, head.size, path, head.root):
        raise BundleError("the record is not the one under the signed head")
