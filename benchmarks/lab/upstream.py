"""The model server of the laboratory: nginx with canned answers, and a small server of ours for streams.

The answers are what MLServer and vLLM would say, byte for byte the same at every request: what is measured is what
stands in front of them.
"""

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.lab.process import LAB_CORE, Started, free_port, start

MODEL, CHAT_MODEL, STREAM_MODEL = "digits", "chat", "live"
PIXELS, CLASSES = 64, 10
ROWS_1MB, ROWS_10MB = 4_096, 40_960  # rows of 64 float32: 1 and 10 MiB
HERE = Path(__file__).parent

_NGINX = """
worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on; sendfile on;
  client_max_body_size 0; client_body_buffer_size 12m; default_type application/json;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{
    listen 127.0.0.1:{port}; root {dir}/www;
    location = /v2/models/{model}/infer {{ return 200 '{scores}'; }}
    location = /v1/chat/completions {{ return 200 '{completion}'; }}
    location /binary/ {{
      default_type application/octet-stream;
      location = /binary/{rows_1mb} {{ add_header Inference-Header-Content-Length {head_1mb}; }}
      location = /binary/{rows_10mb} {{ add_header Inference-Header-Content-Length {head_10mb}; }}
    }}
    # A model server reads the whole tensor before it answers; nginx does so only where it forwards: here, to itself.
    proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length "";
    location = /v2/models/{model}-{rows_1mb}/infer {{ proxy_pass http://127.0.0.1:{port}/binary/{rows_1mb}; }}
    location = /v2/models/{model}-{rows_10mb}/infer {{ proxy_pass http://127.0.0.1:{port}/binary/{rows_10mb}; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the model servers are."""

    plain: Started
    streaming: Started

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.plain.port}"

    @property
    def streaming_url(self) -> str:
        return f"http://127.0.0.1:{self.streaming.port}"

    def stop(self) -> None:
        self.plain.stop()
        self.streaming.stop()


def scores_answer() -> str:
    """Return one row of scores, as MLServer writes them."""
    draw = random.Random(8)
    raw = [draw.random() for _ in range(CLASSES)]
    data = [value / sum(raw) for value in raw]
    output = {"name": "probabilities", "shape": [1, CLASSES], "datatype": "FP32", "parameters": {}, "data": data}
    return json.dumps({"model_name": MODEL, "model_version": "v1", "id": "5f2c", "outputs": [output]})


def binary_answer(rows: int) -> tuple[bytes, int]:
    """Return scores as a binary tensor (OIP binary extension), and how long its JSON head is."""
    scores = np.random.default_rng(8).dirichlet(np.ones(CLASSES), rows).astype("<f4").tobytes()
    output = {
        "name": "probabilities",
        "shape": [rows, CLASSES],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(scores)},
    }
    head = json.dumps({"model_name": MODEL, "outputs": [output]}).encode()
    return head + scores, len(head)


def completion_answer() -> str:
    """Return a chat completion of 64 words, as vLLM writes it."""
    message = {"role": "assistant", "content": " ".join(["word"] * 64)}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1760000000,
            "model": CHAT_MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 64, "total_tokens": 76},
        }
    )


def start_upstream(directory: Path) -> Upstream:
    """Start both servers on the laboratory's core."""
    www = directory / "www" / "binary"
    www.mkdir(parents=True)
    heads = {}
    for rows in (ROWS_1MB, ROWS_10MB):
        body, heads[rows] = binary_answer(rows)
        (www / str(rows)).write_bytes(body)
    for path in (directory, www.parent, www):
        path.chmod(0o755)
    port, streaming_port = free_port(), free_port()
    config = directory / "nginx.conf"
    config.write_text(
        _NGINX.format(
            dir=directory,
            port=port,
            model=MODEL,
            scores=scores_answer(),
            completion=completion_answer(),
            rows_1mb=ROWS_1MB,
            rows_10mb=ROWS_10MB,
            head_1mb=heads[ROWS_1MB],
            head_10mb=heads[ROWS_10MB],
        )
    )
    nginx = ["nginx", "-e", f"{directory}/error.log", "-c", config]
    plain = start(nginx, LAB_CORE, port, directory / "nginx.log")
    server = [sys.executable, HERE / "event_server.py", str(streaming_port)]
    return Upstream(plain, start(server, LAB_CORE, streaming_port, directory / "events.log"))
