"""Takes spans by OTLP/HTTP and prints one line for each. For trying only; an OpenTelemetry Collector in earnest."""

import gzip
import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LARGEST = 4 << 20  # bytes of a message, as it arrives


class Receiver(BaseHTTPRequestHandler):
    """https://opentelemetry.io/docs/specs/otlp/#otlphttp, binary form."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that it is ready."""
        self._answer(200, b"ready")

    def do_POST(self) -> None:
        """Take a batch; an empty message says that all of it was taken."""
        length = int(self.headers["content-length"])
        if self.path != "/v1/traces" or length > LARGEST:
            return self._answer(404, b"")
        body = self.rfile.read(length)
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    print(json.dumps({"span": span.name, "trace": span.trace_id.hex()}), flush=True)
        return self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print spans only."""


class Server(ThreadingHTTPServer):
    """Asks no name server for its own name, which it may not reach."""

    server_bind = TCPServer.server_bind


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process of a container has no other end
Server(("", 4318), Receiver).serve_forever()
