"""A model that adds nothing: two scores for every row, with more digits than anybody should see. For trying only."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


ThreadingHTTPServer(("", 8080), Model).serve_forever()
