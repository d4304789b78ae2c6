"""Two receivers of spans: one that parses with the official classes, and a foreign collector in front of it."""

import contextlib
import gzip
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

READY_WITHIN = 30.0  # seconds


class Collector(ThreadingHTTPServer):
    """A small OTLP/HTTP receiver that parses with the official classes and answers as a test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: list[SpanMessage] = []
        self.requests: list[dict[str, str]] = []
        self.statuses: list[int] = []  # answers to give before 200
        self.rejected = 0
        self.hold = threading.Event()
        self.hold.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.hold.wait()
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append({key.lower(): value for key, value in self.headers.items()})
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    self.server.spans += scope.spans
        answer = ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=self.server.rejected)
        )
        data = answer.SerializeToString()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Run the small receiver."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Rotel:
    """A collector that others wrote (Rust): takes OTLP/HTTP, forwards what it took, and can be killed and restarted."""

    def __init__(self, agent: Path, directory: Path, ports: list[int], behind: Collector) -> None:
        self._directory = directory
        self._http, grpc = (f"127.0.0.1:{port}" for port in ports)
        self._command = [
            agent,
            "start",
            *("--otlp-http-endpoint", self._http),
            *("--otlp-grpc-endpoint", grpc),
            *("--exporter", "otlp"),
            *("--otlp-exporter-protocol", "http"),
            *("--otlp-exporter-endpoint", behind.endpoint.removesuffix("/v1/traces")),
            *("--batch-timeout", "20ms"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self._http}/v1/traces"

    def start(self) -> None:
        with (self._directory / "rotel.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._directory, env={}, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                httpx.post(self.endpoint, headers={"content-type": "application/x-protobuf"}, trust_env=False)
                return
            time.sleep(0.02)
        pytest.fail(f"rotel is not ready:\n{(self._directory / 'rotel.log').read_text(errors='replace')[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
