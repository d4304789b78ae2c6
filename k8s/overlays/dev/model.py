"""A model that adds nothing: two scores for every row, with more digits than anybody should see. For trying only."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

SCORES = [0.123456789012, 0.876543210988]


class Model(BaseHTTPRequestHandler):
    """Open Inference Protocol v2, as much of it as a first look needs."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that it is ready."""
        self._answer({"ready": True})

    def do_POST(self) -> None:
        """Answer an inference request."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        rows = asked["inputs"][0]["shape"][0]
        scores = {"name": "probabilities", "datatype": "FP64", "shape": [rows, 2], "data": SCORES * rows}
        self._answer({"model_name": "sample", "outputs": [scores]})

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Asks no name server for its own name, which it may not reach."""

    server_bind = TCPServer.server_bind


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process of a container has no other end
Server(("", 8080), Model).serve_forever()
