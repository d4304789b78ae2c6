"""The chain: one event becomes one line, bound to the line before it and to the tree over all lines.

Decides the bytes of a record: `{"v":1,"stream":…,"seq":…,"prev":…,"salt":…,"t_ns":…,"mono_ns":…,"type":…,…}`. What is
hashed is the line as it was written, without its newline, so that no canonical form is ever needed. `prev` is the
leaf hash of the line before. A chain alone does NOT show that its tail was cut: checkpoints and anchors do.
"""

from collections.abc import Callable

import msgspec

from proxy.audit.merkle import Tree, leaf_hash
from proxy.record import SCHEMA_VERSION, AnyEvent, Event, Position

GENESIS = "0" * 64  # `prev` of a stream's first record
SALT_BYTES = 16  # what is not guessable can be disclosed or withheld record by record
NO_SALT = "0" * 2 * SALT_BYTES  # of checkpoints: nothing in them needs hiding, and every byte of them is signed
MAX_LINE = 1 << 20  # bytes; a line beyond is refused by the writer and by the reader

_encode = msgspec.json.Encoder().encode
_BODY = b',"type":'


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every line begins with."""

    v: int
    stream: str
    seq: int
    prev: str
    salt: str
    t_ns: int
    mono_ns: int

    def head(self) -> bytes:
        """Return the one spelling of the line's beginning, up to the comma before `type`."""
        return _encode(self)[:-1]


_read_envelope = msgspec.json.Decoder(Envelope).decode
_read_event: Callable[[bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode


class LineError(ValueError):
    """Not a record line as we write it."""


class SchemaError(LineError):
    """A well-formed line of a schema that this version does not know."""


def split(line: bytes) -> tuple[Envelope, bytes]:
    """Return a line's envelope and its event as JSON; the envelope must stand in its one spelling."""
    cut = line.find(_BODY)
    try:
        envelope = _read_envelope(line[:cut] + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LineError("not a record") from error
    if cut < 0 or envelope.head() != line[:cut]:
        raise LineError("the envelope is not spelled as we write it")
    return envelope, b"{" + line[cut + 1 :]


def spell(event: Event) -> bytes:
    """Return an event as JSON, as `Chain.add` writes it."""
    return _encode(event)


def read_event(body: bytes, version: int = SCHEMA_VERSION) -> AnyEvent:
    """Read an event; an unknown type or field is an error."""
    if version != SCHEMA_VERSION:
        message = f"schema version {version}, this verifier reads version {SCHEMA_VERSION}"
        raise SchemaError(message)
    try:
        return _read_event(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"not an event of this schema: {error}"
        raise SchemaError(message) from error


class Chain:
    """A stream's state while it is written: O(log n) memory."""

    __slots__ = ("_open", "prev", "stream", "tree")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.tree = Tree()
        self.prev = GENESIS
        self._open = f'{{"v":{SCHEMA_VERSION},"stream":"{stream}","seq":'

    @property
    def size(self) -> int:
        """How many records the stream has; the next one's `seq`."""
        return self.tree.size

    def add(self, event: Event, salt: str, t_ns: int, mono_ns: int) -> tuple[bytes, Position]:
        """Return the next line, newline included, and its position. An event that cannot be encoded changes nothing."""
        body = _encode(event)
        seq = self.tree.size
        line = (
            f'{self._open}{seq},"prev":"{self.prev}","salt":"{salt}","t_ns":{t_ns},"mono_ns":{mono_ns},'.encode()
            + body[1:]
        )
        if len(line) > MAX_LINE:
            message = f"a record of {len(line)} bytes, the cap is {MAX_LINE}"
            raise LineError(message)
        leaf = leaf_hash(line)
        self.tree.add(leaf)
        self.prev = leaf.hex()
        return line + b"\n", Position(self.stream, seq, self.prev)
