"""Heads in a second place: a file on other storage, or a syslog collector (RFC 5424 over TLS, RFC 5425, or over TCP).

A head that the operator of the journal cannot change shows that journal and anchor log were rolled back together. The
loss of the place stops nothing and delays nothing: a thread delivers, an error is shown until the next success. NOT
guaranteed: syslog acknowledges nothing, so what was under way when a connection broke may be lost; therefore the
newest head, which covers all before it, is sent again on every new connection.
"""

import logging
import os
import re
import socket
import ssl
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from proxy.adapters.journal.disk import PRIVATE_FILE
from proxy.errors import ConfigError, Finding

MAX_WAITING = 1_000  # heads; beyond, the oldest is dropped: a newer one covers it
RETRY_SECONDS = 1.0
TIMEOUT = 5.0  # seconds to connect, and to send
CLOSE_SECONDS = 6.0  # that a closing journal waits for its last head
PRIORITY = 13 * 8 + 5  # RFC 5424 section 6.2.1: facility "log audit", severity "notice"

_URL = re.compile(r"syslog\+(tls|tcp)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

_log = logging.getLogger("hip.audit")


class Place(Protocol):
    """Where heads go."""

    def deliver(self, line: bytes) -> None:
        """Return when the place has one anchor line, without its newline; raise OSError."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class FilePlace:
    """A file, on storage that does not share the journal's fate."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def deliver(self, line: bytes) -> None:
        """Append, and sync."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            if os.write(fd, line + b"\n") != len(line) + 1:
                raise OSError(0, "the head was not written whole")
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Keep nothing open."""


class SyslogPlace:
    """A collector. Messages are framed by their length (RFC 5425 section 4.3, RFC 6587 section 3.4.1)."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host, self._port, self._context = host, port, context
        self._line: socket.socket | None = None
        self._last = b""
        name = socket.gethostname()
        self._name = name if name.isascii() and name.isprintable() and " " not in name else "-"

    def __str__(self) -> str:
        return f"syslog at {self._host}:{self._port}"

    def deliver(self, line: bytes) -> None:
        """Send, on the connection that is there or on a new one."""
        if self._line is not None and _ended(self._line):
            self.close()
        fresh = self._line is None
        if self._line is None:
            self._line = self._connect()
        try:
            if fresh and self._last:
                self._line.sendall(self._framed(self._last))
            self._line.sendall(self._framed(line))
        except OSError:
            self.close()
            raise
        self._last = line

    def _connect(self) -> socket.socket:
        raw = socket.create_connection((self._host, self._port), TIMEOUT)
        if self._context is None:
            return raw
        try:
            return self._context.wrap_socket(raw, server_hostname=self._host)
        except BaseException:
            raw.close()
            raise

    def _framed(self, line: bytes) -> bytes:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        head = f"<{PRIORITY}>1 {stamp} {self._name} hip {os.getpid()} head - "
        message = head.encode("ascii") + line
        return b"%d %s" % (len(message), message)

    def close(self) -> None:
        """Hang up; a collector that reads to the end gets everything."""
        if self._line is not None:
            self._line.close()
        self._line = None


def _ended(line: socket.socket) -> bool:
    """Say whether the collector has hung up: it sends nothing, so anything to read is an end."""
    line.settimeout(0)
    try:
        return line.recv(1) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        line.settimeout(TIMEOUT)


class SecondPlace:
    """Delivers in a thread of its own, in order."""

    def __init__(self, place: FilePlace | SyslogPlace) -> None:
        self._place = place
        self.error = ""  # why heads do not arrive; empty when they do
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit heads", daemon=True)
        self._thread.start()

    def send(self, line: bytes) -> None:
        """Put a head in line; neither blocks nor raises."""
        self._waiting.append(line)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._wake.set()

    def close(self) -> None:
        """Deliver what waits, if that is possible within a few seconds. Blocks."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        if self._waiting:
            _log.error("audit journal: %d heads did not reach %s", len(self._waiting), self._place)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.is_set()  # before the last attempt, which then is for everything
            while self._waiting and not self._delivered() and not closing:
                self._closing.wait(RETRY_SECONDS)
                closing = self._closing.is_set()
            if closing:
                self._place.close()
                return

    def _delivered(self) -> bool:
        """Deliver what waits; say whether all of it arrived."""
        while self._waiting:
            line = self._waiting[0]
            try:
                self._place.deliver(line)
            except (OSError, ValueError) as error:  # ValueError: a host that is no name
                why = error.strerror if isinstance(error, OSError) else None
                self._complain(f"{self._place}: {why or type(error).__name__}")
                return False
            if self._waiting and self._waiting[0] is line:  # else it was dropped meanwhile
                self._waiting.popleft()
        if self.error:
            _log.warning("audit journal: heads reach %s again, %d were dropped", self._place, self._dropped)
        self.error = ""
        return True

    def _complain(self, error: str) -> None:
        if error != self.error:
            _log.error("audit journal: heads do not reach their second place: %s", error)
        self.error = error


def second_place(text: str, here: Path, ca_file: str | None) -> SecondPlace:
    """Return the place that the configuration names; raise ConfigError."""
    found = _URL.fullmatch(text)
    if found is None:
        if "://" in text or ca_file is not None:
            hint = "a path, syslog+tls://HOST:PORT or syslog+tcp://HOST:PORT; `heads_ca_file` goes with syslog+tls"
            raise ConfigError([Finding("audit.heads", 0, 0, f"{text!r} is no second place for heads", hint)])
        return SecondPlace(FilePlace(here / text))
    scheme, host, port = found.groups()
    if not 0 < int(port) < 1 << 16 or (ca_file is not None and scheme != "tls"):
        hint = "a port from 1 to 65535; `heads_ca_file` goes with syslog+tls"
        raise ConfigError([Finding("audit.heads", 0, 0, f"{text!r} is no second place for heads", hint)])
    return SecondPlace(SyslogPlace(host.strip("[]"), int(port), _context(here, ca_file) if scheme == "tls" else None))


def _context(here: Path, ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(here / ca_file))
    except OSError as error:
        hint = "a PEM file of CA certificates"
        message = "the collector's CA cannot be read"
        raise ConfigError([Finding(str(here / (ca_file or "")), 0, 0, message, hint)]) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
