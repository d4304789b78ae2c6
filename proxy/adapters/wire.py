"""HTTP/1.1 as bytes: how a request is written, and what counts as one clean response (RFC 9110, RFC 9112).

Decides where a response ends, and whether the connection that carried it may carry another. It knows exactly which
bytes belong to the response: one byte more, and the connection is not reusable. Whatever RFC 9112 leaves to a
recipient's patience (obs-fold, bare LF, two equal lengths, unknown transfer codings) is refused.

Not guaranteed: that the content is what its type says, that a coding can be decoded (nothing is decoded but `chunked`),
or that an upstream which keeps the framing does not answer with somebody else's data.
"""

import re
from collections.abc import Callable, Iterable

import httpx

from proxy.exchange import Headers

MAX_HEAD_BYTES = 64 * 1024  # status line and fields of one response, interim ones counted on their own
MAX_FIELDS = 200  # fields of one response
MAX_INTERIM = 8  # 1xx responses before the final one
MAX_CHUNK_LINE = 256  # bytes of a chunk size with its extensions
MAX_TRAILER_BYTES = 8 * 1024  # bytes of the trailer section, which is checked and dropped
MAX_CHUNK_OVERHEAD = 64 * 1024  # bytes of chunk framing beyond the bytes of the body itself: a flood of tiny chunks

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})  # say `content-length: 0` when empty, RFC 9110 section 8.6

_OWN_FIELDS = frozenset(
    {
        b"host",
        b"content-length",
        b"connection",
        b"transfer-encoding",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
    }
)

_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*+").fullmatch  # RFC 9112 section 3.2.1: origin-form, without a fragment
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110 section 5.6.2
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*+)").fullmatch  # section 5.5, without obs-fold
_FIELDS = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*+)\r\n").findall
_BLOCK = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+").fullmatch
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?+").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,15}").fullmatch
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?+").fullmatch  # RFC 9112 section 7.1
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_VERSION = b"HTTP/1."


class ReplyTooLarge(httpx.RemoteProtocolError):
    """More body than this upstream may send."""


def request_head(method: str, target: bytes, host: bytes, fields: Iterable[tuple[bytes, bytes]], length: int) -> bytes:
    """Return the head of a request whose framing is ours: the caller's own framing and hop-by-hop fields are left out.

    Raise httpx.LocalProtocolError for anything that would not be read as exactly this one request.
    """
    if method not in METHODS:
        raise httpx.LocalProtocolError("a method that we do not send")
    if _TARGET(target) is None:
        raise httpx.LocalProtocolError("a request target that is not in origin-form")
    lines = [name + b": " + value + b"\r\n" for name, value in fields if name.lower() not in _OWN_FIELDS]
    if length or method in WITH_CONTENT:
        lines.append(b"content-length: %d\r\n" % length)
    block = b"".join(lines)
    if _BLOCK(block) is None or block.count(b"\n") != len(lines):  # else a value has become a line of its own
        raise httpx.LocalProtocolError("a header field with invalid bytes")
    return b"%b %b HTTP/1.1\r\n%b\r\n%b\r\n" % (method.encode(), target, host, block)


def _framing(fields: Headers) -> dict[bytes, bytes]:
    """Return the fields that say where a body ends, and what becomes of the connection."""
    found = [field for field in fields if field[0] in _FRAMING]
    framing = dict(found)
    if len(framing) != len(found):
        names = [name for name, _ in found]
        if names.count(b"content-length") > 1 or names.count(b"transfer-encoding") > 1:
            raise httpx.RemoteProtocolError("two fields that say where the body ends")
        # RFC 9110 section 5.3: a list may come in several lines
        framing[b"connection"] = b",".join(value for name, value in found if name == b"connection")
    return framing


def _closes(options: bytes) -> bool:
    """Say whether `close` is among the connection options, RFC 9110 section 7.6.1."""
    return b"close" in [option.strip(b" \t") for option in options.lower().split(b",")]


class ResponseReader:
    """Reads one response: bytes in, body bytes out; raises httpx.RemoteProtocolError for everything unclean.

    `started` tells that a byte has come, `status` and `headers` that the final head is here, `complete` that the
    response is, and `reusable` that nothing of it can be left on the connection.
    """

    __slots__ = (
        "_body",
        "_closes_end",
        "_head_only",
        "_interim",
        "_left",
        "_overhead",
        "_rest",
        "_room",
        "_trailer",
        "complete",
        "headers",
        "reusable",
        "started",
        "status",
    )

    def __init__(self, method: str, max_body: int, *, closes_end: bool) -> None:
        """`closes_end`: whether a closed connection may end a body (RFC 9112 section 6.3, last rule)."""
        self.started = False
        self.complete = False
        self.reusable = False
        self.status = 0
        self.headers: Headers = ()
        self._head_only = method == "HEAD"
        self._closes_end = closes_end
        self._room = max_body
        self._interim = 0
        self._rest = b""
        self._left = 0  # bytes still to come of the body, or of the chunk
        self._overhead = 0
        self._trailer = -1  # bytes of the trailer section; -1: not there yet
        self._body: Callable[[bytes], bytes] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they came; return those of the body."""
        self.started = True
        if self._body is not None:
            return self._body(data)
        data = self._rest + data if self._rest else data
        body = None
        while body is None:
            end = data.find(b"\r\n\r\n")
            if (len(data) - 3 if end < 0 else end) > MAX_HEAD_BYTES:  # 3: the end may be half here
                raise httpx.RemoteProtocolError("a response head above the limit")
            if end < 0:
                if data[:7] != _VERSION[: len(data)]:
                    raise httpx.RemoteProtocolError("not HTTP/1")
                self._rest = data
                return b""
            body = self._head(data[: end + 2])
            data = data[end + 4 :]
        self._rest, self._body = b"", body
        return body(data)

    def eof(self) -> None:
        """Take note that the upstream has closed; raise unless that is how this response ends."""
        if self._body != self._until_close:
            raise httpx.RemoteProtocolError("closed in the middle of a response")
        self.complete = True

    # ── the head ────────────────────────────────────────────────────────────────────────────────────────────────

    def _head(self, head: bytes) -> Callable[[bytes], bytes] | None:
        """Take a head; return how the body behind it is read, None behind an interim one."""
        line, _, block = head.partition(b"\r\n")
        start = _STATUS(line)
        if start is None:
            raise httpx.RemoteProtocolError("an invalid status line")
        found = _FIELDS(block)
        if len(found) > MAX_FIELDS:
            raise httpx.RemoteProtocolError("too many header fields")
        # Every byte of the block belongs to a field that we have found, or something else stands between them.
        if sum([len(name) + len(value) + 3 for name, value in found]) != len(block):
            raise httpx.RemoteProtocolError("an invalid header field")
        fields = tuple([(name.lower(), value.strip(b" \t")) for name, value in found])
        framing = _framing(fields)
        status = int(start[2])
        if status < 200:
            self._interim_head(status, framing)
            return None
        self.status, self.headers = status, fields
        options = framing.pop(b"connection", None)
        self.reusable = start[1] == b"1" and (options is None or not _closes(options))  # RFC 9112 section 9.3
        return self._framed(framing, http11=start[1] == b"1")

    def _interim_head(self, status: int, framing: dict[bytes, bytes]) -> None:
        self._interim += 1
        if status == 101:  # RFC 9110 section 15.2.2: we never ask for an upgrade
            raise httpx.RemoteProtocolError("switches protocols unasked")
        if b"content-length" in framing or b"transfer-encoding" in framing:  # section 8.6, RFC 9112 section 6.1
            raise httpx.RemoteProtocolError("an interim response with a body")
        if self._interim > MAX_INTERIM:
            raise httpx.RemoteProtocolError("too many interim responses")

    def _framed(self, framing: dict[bytes, bytes], *, http11: bool) -> Callable[[bytes], bytes]:
        """RFC 9112 section 6.3, in its order."""
        coding, length = framing.get(b"transfer-encoding"), framing.get(b"content-length")
        if coding is not None and length is not None:
            raise httpx.RemoteProtocolError("transfer-encoding with content-length")
        if coding is not None and (coding.lower() != b"chunked" or not http11):
            raise httpx.RemoteProtocolError("a transfer coding other than chunked")
        if length is not None and _LENGTH(length) is None:
            raise httpx.RemoteProtocolError("an invalid content-length")
        if self._head_only or self.status == 304:  # rule 1: these describe a body and have none
            self.reusable = self.reusable and not framing
            return self._counted
        if self.status == 204 and (coding or int(length or 0)):  # RFC 9110 section 8.6
            raise httpx.RemoteProtocolError("no content, with a body")
        if coding is not None:
            return self._chunked
        if length is not None or self.status == 204:
            self._left = int(length or 0)
            self._admit(self._left)
            return self._counted
        if not self._closes_end:
            raise httpx.RemoteProtocolError("a body without a length over TLS: cannot be told from a truncated one")
        self.reusable = False
        return self._until_close

    def _admit(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise ReplyTooLarge("a body above the limit")

    # ── the three forms of a body ───────────────────────────────────────────────────────────────────────────────

    def _counted(self, data: bytes) -> bytes:
        if len(data) < self._left:
            self._left -= len(data)
            return data
        if len(data) > self._left:
            self.reusable = False  # somebody's bytes, but not this response's
            data = data[: self._left]
        self._left = 0
        self.complete = True
        return data

    def _until_close(self, data: bytes) -> bytes:
        self._admit(len(data))
        return data

    def _chunked(self, data: bytes) -> bytes:
        """RFC 9112 section 7.1. `_left` counts what is missing of a chunk, the CRLF behind it included."""
        data = self._rest + data if self._rest else data
        pieces: list[bytes] = []
        at = 0
        while not self.complete:
            if self._left > 2:
                piece = data[at : at + self._left - 2]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
            if self._left > 2 or (self._left and len(data) - at < 2):
                break
            if self._left:
                if data[at : at + 2] != b"\r\n":
                    raise httpx.RemoteProtocolError("a chunk longer than it said")
                at += 2
                self._left = 0
            end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE + 2 if self._trailer < 0 else len(data))
            if end < 0:
                if len(data) - at - 1 > (MAX_CHUNK_LINE if self._trailer < 0 else MAX_TRAILER_BYTES):
                    raise httpx.RemoteProtocolError("a chunk line above the limit")
                break
            self._line(data[at:end])
            at = end + 2
        self._rest = data[at:]
        if self.complete and self._rest:
            self.reusable = False
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _line(self, line: bytes) -> None:
        """Take a chunk's size, or a line of the trailer section."""
        if self._trailer >= 0:
            self._trailer += len(line)
            if not line:
                self.complete = True
            elif self._trailer > MAX_TRAILER_BYTES or _FIELD(line) is None:
                raise httpx.RemoteProtocolError("an invalid trailer section")
            return
        match = _CHUNK(line)
        if match is None:
            raise httpx.RemoteProtocolError("an invalid chunk size")
        size = int(match[1], 16)
        self._admit(size)
        self._overhead += len(line) + 4 - size  # the part of the framing that the body does not pay for
        if self._overhead > MAX_CHUNK_OVERHEAD:
            raise httpx.RemoteProtocolError("too many tiny chunks")
        if size:
            self._left = size + 2
        else:
            self._trailer = 0
