"""Server-sent events: the same events however the bytes arrive, bounded memory, nothing but data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.sse import MAX_EVENT, Events, event
from proxy.errors import UpstreamFault

STREAMS = [
    (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    (b": a comment\n\nevent: x\nid: 7\nretry: 10\ndata:a\ndata: b\n\n", [b"a\nb"]),
    (b"event: ping\n\ndata: a\n\n", [b"a"]),
    (b"data: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
    (b"data: a\n\ndata: forgotten", [b"a", b"forgotten"]),
    (b"data\n\n", [b""]),
    (b"data: \n\n", [b""]),
    (b"data: a\rdata: b\n\n", [b"a\nb"]),
    (b"data: a\r\n\n", [b"a"]),
    (b"data: a\n\ndata: b\n\n\n", [b"a", b"b"]),
    (b"data: a\ndata: b\n\n", [b"a\nb"]),
    (b"data: \xc3\xa9\x0b\n\n", [b"\xc3\xa9\x0b"]),
    (b"", []),
]


@pytest.mark.parametrize(("stream", "found"), STREAMS)
def test_whole_byte_by_byte_and_cut_anywhere(stream, found):
    for cut in range(len(stream) + 1):
        assert read(stream[:cut], stream[cut:]) == found, cut
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == found


def read(*pieces):
    events = Events()
    return [data for piece in pieces for data in events.feed(piece)] + events.end()


@pytest.mark.parametrize(
    "stream", [b"0.98155\n\n", b"<html>\n\n", b'{"scores": [0.98155]}', b"datax: a\n\n", b"\xef\xbb\xbfdata: a\n\n"]
)
def test_what_is_not_an_event_is_refused(stream):
    with pytest.raises(UpstreamFault):
        read(stream)


def test_a_stream_without_line_ends_is_bounded():
    events = Events()
    events.feed(b"data: " + b"x" * (MAX_EVENT - 6))
    with pytest.raises(UpstreamFault):
        events.feed(b"x")


@given(st.lists(st.binary(max_size=20).filter(lambda data: not {10, 13} & set(data)), max_size=5))
def test_what_is_written_is_read(data):
    assert read(b"".join(map(event, data))) == data
