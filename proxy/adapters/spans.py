"""Spans to OTLP/HTTP and to a file of OTLP JSON lines: `ports.Observer`.

Spans are encoded as soon as their exchange is finished, while all of it is in the processor's caches, and what is kept
until they leave are bytes; a thread only puts them together and sends them, so that it never has the core for long. A
full queue refuses the newest and counts it: loss is a number that can be read, never silence. There is no
TracerProvider (ADR 0006), so there is no sampler, no limit and no `OTEL_*` variable that could switch an audit span
off, change its ids or send it to a console. It is NOT the system of record.
"""

import asyncio
import logging
import os
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from proxy import __version__
from proxy.adapters.otlp import json_request, json_span, protobuf_request, protobuf_span, rejected, resource, works
from proxy.audit.pseudonym import Pseudonyms
from proxy.audit.trace import spans_of
from proxy.errors import ConfigError, Finding
from proxy.exchange import Exchange
from proxy.record import Position

MAX_QUEUED = 2_048  # exchanges that wait for the thread
BATCH = 256  # exchanges in one request
INTERVAL = 0.5  # seconds that a span waits for company
TIMEOUT = 5.0  # seconds for one request to the collector, and between two pieces of its answer
MAX_ANSWER = 64 << 10  # bytes of it
ATTEMPTS = 3  # for an answer that says "later"
BACKOFF = 0.25  # seconds before the second attempt, doubled before each further one
CLOSE_SECONDS = 5.0  # that a closing proxy waits for its last spans
MAX_FILE_BYTES = 256 << 20  # then the file is renamed to `….1`, over an older one

_RETRYABLE = frozenset({429, 502, 503, 504})  # OTLP specification, "Retryable Response Codes"

_log = logging.getLogger("hip.spans")


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """Where the exchanges and their spans went: what is in none of these numbers is in the thread's hands."""

    exchanges: int  # that were to leave spans
    refused: int  # of them: the queue was full
    failed: int  # that could not be described or encoded: a bug of ours
    waiting: int
    sent: int  # spans that the collector took
    unsent: int  # spans that it did not
    written: int  # spans in the file
    unwritten: int
    error: str  # the last one


class _Encoded(msgspec.Struct, frozen=True):
    """The spans of one exchange."""

    count: int
    objects: bytes  # as JSON, for the file; empty if there is none
    messages: bytes  # as protobuf, for the collector; empty if there is none


class Spans:
    """Takes finished exchanges, exports their spans in the background."""

    def __init__(self, *, endpoint: str | None, file: Path | None, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._resource = resource(secrets.token_hex(8))
        if not works(self._resource):
            raise ConfigError([Finding("telemetry", 0, 0, "spans cannot be encoded", "see the protobuf package")])
        self._endpoint = None if endpoint is None else _checked(endpoint)
        self._file = None if file is None else _LineFile(file)
        self._queue: deque[_Encoded] = deque()
        self._exchanges = self._refused = self._failed = 0
        self._sent = self._unsent = self._written = self._unwritten = 0
        self._error = ""
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        if self._endpoint is not None or self._file is not None:
            self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
            self._thread.start()

    def finished(self, exchange: Exchange, decision: Position | None, completion: Position | None) -> None:
        """Take note: neither blocks nor raises. The exchange itself is not kept, for it holds the bodies."""
        if self._thread is None:
            return
        self._exchanges += 1
        if len(self._queue) >= MAX_QUEUED:
            self._refused += 1
            return
        try:
            self._queue.append(self._encoded(exchange, decision, completion))
        except Exception as error:  # noqa: BLE001 - an observer must never disturb the request; the number shows it
            self._failed += 1
            self._error = f"{type(error).__name__} while encoding"
            return
        if len(self._queue) == BATCH:
            self._wake.set()

    def _encoded(self, exchange: Exchange, decision: Position | None, completion: Position | None) -> _Encoded:
        spans = spans_of(exchange, decision, completion, self._pseudonyms)
        return _Encoded(
            len(spans),
            b"" if self._file is None else b",".join([json_span(span) for span in spans]),
            b"" if self._endpoint is None else b"".join([protobuf_span(span) for span in spans]),
        )

    def counts(self) -> SpanCounts:
        """Return where the spans went so far."""
        return SpanCounts(
            exchanges=self._exchanges,
            refused=self._refused,
            failed=self._failed,
            waiting=len(self._queue),
            sent=self._sent,
            unsent=self._unsent,
            written=self._written,
            unwritten=self._unwritten,
            error=self._error,
        )

    async def close(self) -> None:
        """Export what waits, within a few seconds."""
        if self._thread is None:
            return
        self._closing.set()
        self._wake.set()
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    # ── in the thread ───────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        with httpx.Client(trust_env=False, timeout=TIMEOUT, follow_redirects=False) as client:
            while True:
                self._wake.wait(INTERVAL)
                self._wake.clear()
                while self._queue:
                    self._export_or_count(client, self._batch())
                if self._closing.is_set():
                    break
        if self._file is not None:
            self._file.close()

    def _batch(self) -> list[_Encoded]:
        return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    def _export_or_count(self, client: httpx.Client, batch: list[_Encoded]) -> None:
        count = sum([encoded.count for encoded in batch])
        try:
            self._export(client, batch, count)
        except Exception as error:  # noqa: BLE001 - one bad batch must not end the thread and all later spans with it
            self._failed += count
            self._error = f"{type(error).__name__} while exporting"
            _log.exception("a batch of spans is lost")

    def _export(self, client: httpx.Client, batch: list[_Encoded], count: int) -> None:
        if self._file is not None:
            try:
                self._file.append(json_request(self._resource, [encoded.objects for encoded in batch]))
                self._written += count
            except OSError as error:
                self._unwritten += count
                self._error = f"span file: {error.strerror}"
        if self._endpoint is not None:
            body = protobuf_request(self._resource, [encoded.messages for encoded in batch])
            taken = self._send(client, self._endpoint, body, count)
            self._sent += taken
            self._unsent += count - taken

    def _send(self, client: httpx.Client, endpoint: str, body: bytes, count: int) -> int:
        """Return how many spans the collector took."""
        headers = {
            "content-type": "application/x-protobuf",
            "accept-encoding": "identity",
            "user-agent": f"hip/{__version__}",
        }
        for attempt in range(ATTEMPTS):
            if attempt and self._closing.wait(BACKOFF * 2 ** (attempt - 1)):
                break
            try:
                status, content = _posted(client, endpoint, body, headers)
            except httpx.HTTPError as error:
                self._complain(f"collector: {type(error).__name__}")
                continue
            if status == httpx.codes.OK:
                return count - min(count, rejected(content))
            self._complain(f"collector: status {status}")
            if status not in _RETRYABLE:
                break
        return 0

    def _complain(self, error: str) -> None:
        if error != self._error:  # once for a run of the same, not once for each batch
            _log.warning("spans are not taken: %s", error)
        self._error = error


def _posted(client: httpx.Client, endpoint: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body of the answer. A collector that drips or talks without end is one that fails."""
    until = time.monotonic() + TIMEOUT
    content = b""
    with client.stream("POST", endpoint, content=body, headers=headers) as answer:
        for piece in answer.iter_raw():
            content += piece
            if len(content) > MAX_ANSWER or time.monotonic() > until:
                raise httpx.ReadTimeout("an answer that does not end")
    return answer.status_code, content


def _checked(endpoint: str) -> str:
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL as error:
        raise _config_error(endpoint, "is not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise _config_error(endpoint, "is not an HTTP URL")
    return endpoint


def _config_error(place: str, message: str) -> ConfigError:
    hint = "as http://127.0.0.1:4318/v1/traces"
    return ConfigError([Finding("telemetry.otlp", 0, 0, f"{place!r} {message}", hint)])


class _LineFile:
    """An append-only file of lines, private, with one older generation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        try:
            self._open()
        except OSError as error:
            message = f"cannot be written: {error.strerror}"
            raise ConfigError([Finding(str(path), 0, 0, message, "see its directory and mode")]) from error

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._bytes = os.fstat(self._fd).st_size

    def append(self, line: bytes) -> None:
        if self._bytes + len(line) > MAX_FILE_BYTES and self._bytes:
            self.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        if self._fd < 0:
            self._open()
        if os.writev(self._fd, (line, b"\n")) != len(line) + 1:
            raise OSError(0, "a line was not written whole")
        self._bytes += len(line) + 1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
