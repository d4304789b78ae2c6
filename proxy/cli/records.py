"""The records of a journal for those who ask what happened: in order of time, over all its streams.

Reads, does not verify; a line that is no record is left out here, and named by `hip audit verify`.
"""

import heapq
from collections.abc import Iterator
from pathlib import Path

from proxy.adapters.journal.disk import segments
from proxy.adapters.journal.reading import stream_lines
from proxy.audit.chain import Envelope, LineError, read_event, split
from proxy.record import AnyEvent

Record = tuple[Envelope, AnyEvent]


def records(journal: Path, containing: str = "") -> Iterator[Record]:
    """Yield the records whose lines have a text in them."""
    streams = [
        _stream(journal, stream, indices[0], containing.encode()) for stream, indices in segments(journal).items()
    ]
    return heapq.merge(*streams, key=lambda record: record[0].t_ns)


def _stream(journal: Path, stream: str, first: int, needle: bytes) -> Iterator[Record]:
    for line in stream_lines(journal, stream, first):
        if needle in line:
            try:
                envelope, body = split(line.rstrip(b"\n"))
                yield envelope, read_event(body, envelope.v)
            except LineError:
                continue
