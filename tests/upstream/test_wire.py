"""The bytes alone: the same answer however they are cut, and never more generous than a second, independent reader."""

import h11
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.wire import ResponseReader, request_head

HOST = b"host: u:1"
LIMIT = 1000  # bytes of body

Outcome = tuple[int, tuple[tuple[bytes, bytes], ...], bytes, bool] | str

# Pieces of which responses are made, valid and not, so that a random choice is often nearly right.
PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 304 Not Modified\r\n",
        b"content-length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"content-length: 5, 5\r\n",
        b"transfer-encoding: chunked\r\n",
        b"Transfer-Encoding: Chunked \r\n",
        b"transfer-encoding: gzip\r\n",
        b"connection: close\r\n",
        b"x:\t y \r\n",
        b"x:\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"hello",
        b"5\r\nhello\r\n",
        b"5;a=b\r\nhello\r\n",
        b"00005 \r\nhello\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"t: 1\r\n",
        b"\x00",
    ]
)
RESPONSES = st.one_of(
    st.lists(PIECES, max_size=8).map(b"".join),
    st.lists(PIECES, max_size=6).map(lambda pieces: b"HTTP/1.1 200 OK\r\n" + b"".join(pieces)),
    st.binary(max_size=60).map(lambda tail: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + tail),
    st.binary(max_size=60),
)


def read(cuts: list[bytes], *, method: str = "POST", end: bool = True) -> Outcome:
    """Return what a reader makes of the bytes, cut as given; a refusal by its words."""
    reader = ResponseReader(method, LIMIT, closes_end=True)
    body = b""
    try:
        for cut in cuts:
            body += reader.feed(cut)
        if end and not reader.complete:
            reader.eof()
    except httpx.RemoteProtocolError as error:
        return str(error)
    return reader.status, reader.headers, body, reader.reusable


def second_reader(data: bytes) -> tuple[int, bytes] | None:
    """Return what h11 makes of the first response, None if it refuses."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "u"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(data)
        ended = False
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif event is h11.NEED_DATA and not ended:
                connection.receive_data(b"")
                ended = True
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None


@given(RESPONSES, st.lists(st.integers(1, 7), min_size=1))
def test_how_the_bytes_are_cut_changes_nothing(data: bytes, widths: list[int]) -> None:
    """Whole, byte by byte, or in any pieces: the same response or a refusal each time."""
    cuts, at = [], 0
    while at < len(data):
        width = widths[len(cuts) % len(widths)]
        cuts.append(data[at : at + width])
        at += width
    whole, single, pieces = read([data]), read([data[n : n + 1] for n in range(len(data))]), read(cuts)
    if isinstance(whole, str):
        assert isinstance(single, str)
        assert isinstance(pieces, str)
    else:
        assert whole == single == pieces


@given(RESPONSES)
def test_whatever_we_accept_a_second_reader_reads_the_same_way(data: bytes) -> None:
    """No request smuggling without two readings: h11 agrees on status and body of everything that we take."""
    ours = read([data])
    if not isinstance(ours, str):
        assert second_reader(data) == (ours[0], ours[2])


@given(RESPONSES, st.binary(min_size=1, max_size=20))
def test_one_byte_more_and_the_connection_is_not_reusable(data: bytes, more: bytes) -> None:
    """Where a response was complete, everything behind it is left over, now or in a later piece."""
    alone = read([data], end=False)
    reader = ResponseReader("POST", LIMIT, closes_end=True)
    if isinstance(alone, str):
        return
    reader.feed(data)
    if reader.complete:
        assert read([data + more], end=False) == (*alone[:3], False)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", False),  # it may send the body all the same
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", False),
    ],
)
def test_a_head_request_has_no_body(head: bytes, reusable: bool) -> None:
    outcome = read([head], method="HEAD")
    assert outcome[2:] == (b"", reusable)


def test_names_are_lower_case_and_values_are_bare() -> None:
    outcome = read([b"HTTP/1.1 200 OK\r\nX-Name:\t a b \r\nx-name:\r\ncontent-length: 0\r\n\r\n"])
    assert outcome[1] == ((b"x-name", b"a b"), (b"x-name", b""), (b"content-length", b"0"))


def test_a_request_head_is_ours() -> None:
    """Framing and hop-by-hop fields of the caller are left out; the target goes out as it came."""
    theirs = [(b"Host", b"evil"), (b"content-length", b"9"), (b"Transfer-Encoding", b"chunked"), (b"accept", b"*/*")]
    assert request_head("POST", b"/a%2Fb/../c?d=e&f", HOST, theirs, 2) == (
        b"POST /a%2Fb/../c?d=e&f HTTP/1.1\r\nhost: u:1\r\naccept: */*\r\ncontent-length: 2\r\n\r\n"
    )


def test_an_empty_post_says_so_and_a_get_does_not() -> None:
    assert b"content-length: 0\r\n" in request_head("POST", b"/", HOST, [], 0)
    assert b"content-length" not in request_head("GET", b"/", HOST, [], 0)


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("CONNECT", b"/", []),
        ("get", b"/", []),
        ("GET / HTTP/1.1\r\nx:", b"/", []),
        ("GET", b"", []),
        ("GET", b"*", []),
        ("GET", b"http://evil/", []),
        ("GET", b"/ HTTP/1.1\r\nx: y", []),
        ("GET", b"/a b", []),
        ("GET", b"/#f", []),
        ("GET", b"/\xff", []),
        ("GET", b"/", [(b"x", b"1\r\ny: 2")]),
        ("GET", b"/", [(b"x", b"1\n")]),
        ("GET", b"/", [(b"x", b"\0")]),
        ("GET", b"/", [(b"x y", b"1")]),
        ("GET", b"/", [(b"", b"1")]),
        ("GET", b"/", [(b"x\r\ny", b"1")]),
    ],
)
def test_what_would_be_read_as_something_else_is_not_sent(
    method: str, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        request_head(method, target, HOST, fields, 0)
