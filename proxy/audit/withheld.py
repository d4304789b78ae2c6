"""A withheld record: its place and its hash stand where its line stood, so that everything else still verifies.

The clear half of an encrypted segment is made of these, and so is an export that leaves out what a reader may not see.
The salt in every line keeps the hash from being guessed. It does NOT show what kind of record was withheld.
"""

import msgspec

from proxy.audit.chain import LineError

_PREFIX = b'{"withheld":'
HASH_BYTES = 32
_TYPE = b',"type":"'
_PRIVATE = (b'decision"', b'completion"', b'lookup"')


class Withheld(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line."""

    withheld: int  # `seq`
    leaf: str  # hexadecimal


_read = msgspec.json.Decoder(Withheld).decode
_encode = msgspec.json.Encoder().encode


def is_withheld(line: bytes) -> bool:
    """Say whether a line stands for another."""
    return line.startswith(_PREFIX)


def is_private(line: bytes) -> bool:
    """Say whether a line speaks of persons: what the journal says of itself stays in clear, so that it verifies."""
    start = line.find(_TYPE) + len(_TYPE)
    return line.startswith(_PRIVATE, start)


def withhold(seq: int, leaf: bytes) -> bytes:
    """Return what stands for a line, without a newline."""
    return _encode(Withheld(seq, leaf.hex()))


def read_withheld(line: bytes) -> tuple[int, bytes]:
    """Return place and hash; raise LineError for any other spelling than ours."""
    try:
        found = _read(line)
        leaf = bytes.fromhex(found.leaf)
    except (msgspec.DecodeError, ValueError) as error:
        raise LineError("not a withheld record") from error
    if len(leaf) != HASH_BYTES or withhold(found.withheld, leaf) != line:
        raise LineError("a withheld record is not spelled as we write it")
    return found.withheld, leaf
