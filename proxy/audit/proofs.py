"""Inclusion proofs for a few records of a long stream, in one pass and little memory (RFC 9162 section 2.1.3).

Keeps one hash for each full block of leaves, and whole blocks only around the records that were asked for: 32 MB of
leaf hashes a million records become 32 kB. A proof speaks of the tree under the last signed head; records behind that
head have none.
"""

from collections.abc import Sequence

from proxy.audit.merkle import node_hash, root_of

BLOCK = 1 << 10  # leaves


class Proofs:
    """The tree of one stream, remembered as far as proofs need it. `peaks` is the tree before the first leaf here."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        self._first = self.size = size
        self._given = _places(size, peaks)
        self._roots: dict[int, bytes] = {}  # block → root
        self._kept: dict[int, list[bytes]] = {}  # block → its leaves
        self._leaves: list[bytes] = []  # of the block that is not full
        self._full: list[bytes] = []  # of the last full one: its last record may still be asked for
        self._wanted: dict[int, int] = {}  # block → how many records of it are asked for
        self.sealed = 0  # the size that the last signed head covers
        self._tail: tuple[int, list[bytes], int] = (0, [], 0)  # at that head: block, its leaves, how many of them

    def add(self, leaf: bytes) -> None:
        """Take the next leaf hash."""
        self._leaves.append(leaf)
        self.size += 1
        if self.size % BLOCK == 0:
            block = self.size // BLOCK - 1
            start = max(self._first, block * BLOCK)
            self._roots[block] = (
                root_of(self._leaves)
                if start % BLOCK == 0
                else self._root(block * BLOCK, self.size, {block: self._leaves})
            )
            if block in self._wanted:
                self._kept[block] = self._leaves
            self._full, self._leaves = self._leaves, []

    def want(self, index: int) -> None:
        """Ask for the proof of the record that was added last."""
        if index != self.size - 1:
            raise ValueError("only the newest record can be asked for")
        block = index // BLOCK
        self._wanted[block] = self._wanted.get(block, 0) + 1
        if self.size % BLOCK == 0:
            self._kept[block] = self._full

    def forget(self, index: int) -> None:
        """Ask no longer."""
        block = index // BLOCK
        self._wanted[block] -= 1
        if not self._wanted[block]:
            del self._wanted[block]
            self._kept.pop(block, None)

    def seal(self) -> None:
        """Take note that a signed head covers all leaves so far."""
        self.sealed = self.size
        self._tail = (self.size // BLOCK, self._leaves, len(self._leaves))

    def proof(self, index: int) -> list[bytes]:
        """Return the proof that a record is under the last signed head."""
        if not self._first <= index < self.sealed:
            raise ValueError("no signed head covers this record")
        block, leaves, count = self._tail
        known = {**self._kept, block: leaves[:count]}
        path: list[bytes] = []
        start, end = 0, self.sealed
        while end - start > 1:
            cut = start + (1 << (end - start - 1).bit_length() - 1)
            if index < cut:
                path.append(self._root(cut, end, known))
                end = cut
            else:
                path.append(self._root(start, cut, known))
                start = cut
        return path[::-1]

    def _root(self, start: int, end: int, known: dict[int, list[bytes]]) -> bytes:
        """Return the tree hash over leaves `start` up to `end`, from whatever of it is remembered."""
        given = self._given.get((start, end))
        if given is not None:
            return given
        block = start // BLOCK
        if end - start == BLOCK and block in self._roots:
            return self._roots[block]
        if start >= self._first and end - start <= BLOCK and block in known:
            offset = max(self._first, block * BLOCK)
            return root_of(known[block][start - offset : end - offset])
        cut = start + (1 << (end - start - 1).bit_length() - 1)
        return node_hash(self._root(start, cut, known), self._root(cut, end, known))


def _places(size: int, peaks: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """Return which leaves each peak stands for."""
    places, start = {}, 0
    for peak in peaks:
        width = 1 << (size - start).bit_length() - 1
        places[start, start + width] = peak
        start += width
    return places
