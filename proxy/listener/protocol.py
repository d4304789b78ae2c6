"""One connection of the listener: uvicorn's httptools protocol with its holes closed (RFC 9112 throughout).

A message moves the connection through IDLE, HEAD, BODY and back, and each phase has a deadline, looked at by
`sweep()`. A fault in a head is the listener's: it answers, tells `on_refused`, and the connection ends. A fault in a
body belongs to the application, which has begun on the message: its `receive()` raises, so that a message has one
record and not two. Once a byte was unclean, no later byte is read as a message.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from proxy.errors import BodyTimeout, BodyTooLarge, Malformed
from proxy.exchange import Peer
from proxy.listener.cycle import Cycle
from proxy.listener.limits import Limits
from proxy.listener.message import read_head
from proxy.listener.peer import peer_of
from proxy.listener.rejection import (
    BODY_TOO_LARGE,
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    INTERNAL,
    TARGET_TOO_LONG,
    UNCLEAN,
    Refused,
    Rejected,
    Rejection,
    answer,
)
from proxy.listener.rounds import Rounds
from proxy.listener.upload import LARGE, Upload

FIELD_OVERHEAD = 4  # bytes of a field line beside its name and value: ": " and CRLF
FEED_BYTES = 16_384  # given to the parser at once: by how much a section may exceed its cap before it is seen
CHUNK_OVERHEAD = 32  # bytes of a chunk beside its data: size, CRLF, CRLF, and some air

_log = logging.getLogger(__name__)


class Phase(Enum):
    """Where in a message the next byte stands."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


IDLE, HEAD, BODY = Phase  # looking a member up costs as much as a call, and every field line of a message does


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a listener have in common."""

    config: Config
    server: ServerState
    state: Mapping[str, object]  # becomes `scope["state"]`, with the peer
    limits: Limits
    on_refused: Callable[[Refused, Peer], None]
    rounds: Rounds


class Connection(HttpToolsProtocol):
    """One connection. Somebody must call `sweep(now)` every `Limits.sweep_seconds`."""

    peer: Peer
    cycle: Cycle  # of the message read last

    def __init__(self, shared: Shared, leave: Callable[[], None]) -> None:
        super().__init__(shared.config, shared.server, dict(shared.state), asyncio.get_running_loop())
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)  # uvicorn has set it
        self._limits = shared.limits
        self._on_refused = shared.on_refused
        self._rounds = shared.rounds
        self._leave = leave
        self._phase = IDLE
        self._began = self._heard = self._moved = self.loop.time()  # of the phase; last byte in; last byte out
        self._messages = 0
        self._head_bytes = self._fields = 0  # of the header or trailer section, as the parser shows it
        self._body_bytes = self._chunks = 0
        self._length = 0  # of the body, as its head says
        self._raw_bytes = 0  # of the phase, as they arrived
        self._unsent = 0  # bytes that the transport still held at the last sweep
        self._answering: Cycle | None = None
        self._last_words: bytes | None = None  # a refusal that waits for the answers before it
        self._deaf = False  # what still arrives is not read
        self._draining = False
        self._ending: float | None = None  # since when we wait for the end of the connection

    # ── the connection ──────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take note of the peer, once."""
        super().connection_made(transport)
        try:
            self.peer = peer_of(transport)
        except ValueError:
            _log.warning("closed a connection: its client certificate cannot be read")
            transport.abort()
            return
        self.app_state["peer"] = self.peer

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and give the place away."""
        super().connection_lost(exc)
        self._rounds.streams.discard(self)
        if self._answering is not None:  # uvicorn tells the message read last only
            self._answering.disconnected = True
            self._answering.message_event.set()
        self._leave()

    def last_message(self) -> None:
        """Let the message under way be the last of this connection, or the next one where its answer has begun."""
        self._draining = True
        if self._answering is not None and not self._answering.response_started:
            self._answering.last = True

    def shutdown(self) -> None:
        """Answer what has begun and nothing after it; close at once where nothing has."""
        self._draining = True
        if self._answering is not None:
            self._answering.last = True
        elif self._phase is IDLE:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count what it does not show."""
        whole = memoryview(data)
        for start in range(0, len(data), FEED_BYTES):
            if self._deaf or self.transport.is_closing():
                return
            self._feed(whole[start : start + FEED_BYTES])

    def _feed(self, data: memoryview) -> None:
        if self._phase is IDLE:
            self._enter(HEAD)
        self._heard = self.loop.time()
        before = self._phase, self._messages
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._deaf:
                self._reject(_rejected(exc))
            return
        if before == (self._phase, self._messages):  # else these bytes are of two phases, and nobody knows how many
            self._count(len(data))

    def _count(self, arrived: int) -> None:
        """Cap what has no callback: a field that never ends, chunk extensions (RFC 9112 section 7.1.1)."""
        self._raw_bytes += arrived
        limits = self._limits
        if self._phase is HEAD and self._raw_bytes > limits.target_bytes + limits.header_bytes:
            self._reject(Rejected(HEAD_TOO_LARGE, "a header section above the limit"))
        elif self._phase is BODY:
            framing = self._raw_bytes - self._body_bytes
            if framing > limits.header_bytes + self._chunks * CHUNK_OVERHEAD:
                self._reject(Rejected(UNCLEAN, "chunk extensions or trailers above the limit"))

    # ── the parser's callbacks ──────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """The first byte that is not an empty line."""
        if self._deaf:  # RFC 9112 section 9.6: what follows the last message of a connection is not processed
            raise Rejected(UNCLEAN, "bytes after the last message")
        super().on_message_begin()
        self._head_bytes = self._fields = self._body_bytes = self._chunks = 0
        if self._phase is not HEAD:
            self._enter(HEAD)

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        super().on_url(url)
        if len(self.url) > self._limits.target_bytes:
            raise Rejected(TARGET_TOO_LONG, "a target above the limit")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field line; a trailer is counted and dropped, never merged (RFC 9110 section 6.5.1)."""
        self._head_bytes += len(name) + len(value) + FIELD_OVERHEAD
        self._fields += 1
        if self._head_bytes > self._limits.header_bytes or self._fields > self._limits.header_count:
            raise Rejected(HEAD_TOO_LARGE, "header fields above the limit")
        if self._phase is HEAD:
            self.headers.append((name.lower(), value.strip(b" \t")))  # RFC 9110 section 5.5

    def on_headers_complete(self) -> None:
        """Judge the header section; start the application, or let the message wait its turn."""
        method = self.parser.get_method().decode("ascii")
        head = read_head(method, self.parser.get_http_version(), self.url, self.headers, self._limits)
        if len(self.pipeline) >= self._limits.pipelined:
            raise Rejected(UNCLEAN, "pipelined messages above the limit")
        self.scope["method"] = method
        self.scope["path"] = head.path
        self.scope["raw_path"] = head.path.encode("ascii")
        self.scope["query_string"] = head.query.encode("ascii")
        self._length = head.length
        self._messages += 1
        self._head_bytes = self._fields = 0
        self._enter(BODY)
        self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        self.cycle.conversation = self
        self.cycle.last = (
            self._draining
            or self._messages >= self._limits.requests_per_connection
            or not self.parser.should_keep_alive()
        )
        if self._answering is None:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_chunk_header(self) -> None:
        """One more chunk, and what it may cost in framing."""
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise Rejected(BODY_TOO_LARGE, "a body above the limit")
        if self.cycle.hold(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """The last byte of a message, and perhaps of the connection."""
        self.cycle.more_body = False
        self.cycle.message_event.set()
        self._enter(IDLE)
        self._deaf = self.cycle.last

    # ── the application's side ──────────────────────────────────────────────────────────────────────────────────

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        assert isinstance(cycle, Cycle)  # noqa: S101 - for mypy: nobody else makes cycles
        self._answering = cycle
        begin = super()._start_asgi_task
        self._rounds.begin(lambda: begin(cycle, app), under_way=len(self.server_state.tasks))

    def ask_for_body(self) -> None:
        """Send `100 Continue`, unless the body is here already; the client's clock starts now."""
        if self._phase is not BODY or self.transport.is_closing():
            return
        self._enter(BODY)
        if not self._body_bytes:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def resume_reading(self) -> None:
        """Read on, unless messages wait already: their queue would grow."""
        if not self.pipeline and not self.transport.is_closing():
            if self._length - self._body_bytes >= LARGE:
                self._begin_upload()
            self.flow.resume_reading()

    def streaming(self) -> None:
        """Take note that the answer will be under way for long."""
        self._rounds.streams.add(self)

    def failed(self) -> str:
        """Refuse in the application's place."""
        return self._refuse(INTERNAL, "the application raised, or answered nothing")

    def on_response_complete(self) -> None:
        """The last byte of an answer: go on with what waits, or wait."""
        self.server_state.total_requests += 1
        self._rounds.streams.discard(self)
        cycle, self._answering = self._answering, None
        if self.transport.is_closing():
            return
        if cycle is not None and cycle.last:
            self._end(unread=cycle.more_body)
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_words is not None:
            self._say(self._last_words)
        elif self._phase is IDLE:
            self._enter(IDLE)

    # ── a large body ────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_upload(self) -> None:
        """Let a body go past the parser, once the application waits for it."""
        waited_for = self._phase is BODY and self.cycle is self._answering and not self._deaf
        # uvloop's transport of plain TCP cannot change the way of its reading while it reads.
        if waited_for and self.scheme == "https" and self.transport.get_protocol() is self:
            self.transport.set_protocol(Upload(self, self.cycle.give_up(), self._length))

    def uploading(self) -> None:
        """Take note that the client still sends."""
        self._heard = self.loop.time()

    def uploaded(self, body: bytes) -> None:
        """Go on with what follows a body, by another parser: this one still waits for what it was not shown."""
        self.transport.set_protocol(self)
        self.parser = httptools.HttpRequestParser(self)
        self._body_bytes = len(body)
        self.cycle.hold(body)
        self.on_message_complete()

    # ── deadlines ───────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._began = self._heard = self.loop.time()
        self._raw_bytes = 0

    def sweep(self, now: float) -> None:
        """End what has taken too long."""
        if self._stalled(now):
            self.transport.abort()
        elif self.transport.is_closing() or self._ending is not None:
            self._wait_for_the_end(now)
        elif not self._deaf:
            self._keep_time(now)

    def _keep_time(self, now: float) -> None:
        limits, elapsed = self._limits, now - self._began
        match self._phase:
            case Phase.IDLE if self._answering is None:
                if elapsed > (limits.keep_alive if self._messages else limits.head):
                    self.transport.close()
            case Phase.HEAD if elapsed > limits.head:
                self._reject(Rejected(HEAD_TIMEOUT, "a header section that did not end in time"))
            case Phase.BODY if self.cycle.waiting_for_100_continue:
                pass  # it is the application's turn, not the client's
            case Phase.BODY:
                if self.flow.read_paused:  # likewise
                    self._heard = now
                if elapsed > limits.body_total or now - self._heard > limits.body_idle:
                    self._deaf = True
                    self.transport.set_protocol(self)  # an upload ends here
                    self.cycle.fail(BodyTimeout(detail="a body that did not end in time"))
            case _:
                pass

    def _stalled(self, now: float) -> bool:
        """Say whether the client has stopped taking what we send."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        return now - self._moved > self._limits.write_stall

    def _wait_for_the_end(self, now: float) -> None:
        """Let the client read our last word; then close, then cut."""
        if self._ending is None or self._unsent:
            self._ending = now
        elif now - self._ending > self._limits.close:
            if self.transport.is_closing():
                self.transport.abort()
            else:
                self._ending = now
                self.transport.close()

    # ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────

    def _reject(self, rejected: Rejected) -> None:
        """Refuse a head ourselves; leave the fault of a body to the application."""
        self._deaf = True
        if self._phase is BODY:
            kind = BodyTooLarge if rejected.rejection is BODY_TOO_LARGE else Malformed
            self.cycle.fail(kind(rejected.rejection.reason, rejected.detail))
            return
        incident = self._refuse(rejected.rejection, rejected.detail)
        words = answer(rejected.rejection, incident, self.server_state.default_headers)
        if self._answering is None:
            self._say(words)
        else:  # answers keep the order of their messages (RFC 9112 section 9.3.2)
            self._last_words = words

    def _refuse(self, rejection: Rejection, detail: str) -> str:
        incident = secrets.token_hex(16)
        self._on_refused(Refused(incident, rejection.reason, rejection.status, detail), self.peer)
        return incident

    def _say(self, words: bytes) -> None:
        self.transport.write(words)
        self._end(unread=True)

    def _end(self, *, unread: bool) -> None:
        """End our side, and drain the other: closing over unread bytes is a reset, which can eat the answer (9.6)."""
        self._deaf = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        elif not unread:
            self.transport.close()  # TLS has no half-close in asyncio; its close waits for the client's
        self._ending = self.loop.time()


def _rejected(exc: Exception) -> Rejected:
    """Return why the parser stopped: one of our callbacks, or its own judgement."""
    cause = exc.__context__
    if isinstance(cause, Rejected):
        return cause
    if isinstance(exc, httptools.HttpParserCallbackError):
        _log.error("a callback of the parser failed", exc_info=cause)
        return Rejected(INTERNAL, "a callback of the parser failed")
    return Rejected(UNCLEAN, "not HTTP/1.1 as the parser reads it")
