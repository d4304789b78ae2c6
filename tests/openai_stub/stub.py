"""A small server that speaks OpenAI's API as others of its family do, and leaks what they leak.

Written from the public description of the API. It answers log-probabilities in full, in answers and in chunks, with as
many alternatives as it is asked for; it names its model by the path of its file; with `echo` it scores the prompt; its
stream ends with or without `[DONE]`; its errors have tracebacks. What it is asked for, it remembers.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/srv/models/llama-3-8b-instruct.Q4_K_M.gguf"
TOKENS = ("The", " digit", " is", " four", ".")
EMBEDDING = [0.12345678, -0.98765432, 0.5]
HEADER = {"id": "chatcmpl-a1", "created": 1_700_000_000, "model": PATH, "system_fingerprint": "b4321"}


@dataclass
class Stub:
    """A running stub. `done`: whether its streams say `[DONE]`; `usage`: whether it counts; `breaks`: how it fails."""

    url: str = ""
    done: bool = True
    usage: bool = True
    breaks: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def score(token: str, rank: int = 0) -> float:
    """A log-probability with all its digits; the first alternative is the likeliest."""
    return -(0.0186149 + 0.0001234567 * len(token)) - 2.3456789 * rank


def chat_place(token: str, count: int) -> dict[str, Any]:
    ranked = [token, *(f"{token}~{chr(97 + rank)}" for rank in range(count))][:count]
    others = [
        {"token": one, "logprob": score(token, rank), "bytes": list(one.encode())} for rank, one in enumerate(ranked)
    ]
    return {"token": token, "logprob": score(token), "bytes": list(token.encode()), "top_logprobs": others}


def text_logprobs(tokens: tuple[str, ...], count: int) -> dict[str, Any]:
    places = [chat_place(token, count) for token in tokens]
    return {
        "tokens": list(tokens),
        "token_logprobs": [place["logprob"] for place in places],
        "top_logprobs": [{one["token"]: one["logprob"] for one in place["top_logprobs"]} for place in places],
        "text_offset": [sum(map(len, tokens[:at])) for at in range(len(tokens))],
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.stub.asked.append((self.path, {}))
        if self.path == "/v1/models":
            entry = {
                "id": PATH,
                "object": "model",
                "created": 1,
                "owned_by": "llamacpp",
                "meta": {"n_params": 8030261312},
            }
            self._json({"object": "list", "data": [entry]})
        else:
            self._json({"status": "ok", "path": PATH})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.stub.asked.append((self.path, body))
        if self.stub.breaks == "traceback":
            self._json({"error": {"message": f'File "{PATH}.py", line 3: ValueError 0.123456'}}, 500)
        elif self.stub.breaks == "unframed":
            self._events([b"The digit is 0.123456"])
        elif self.path == "/v1/embeddings":
            many = body["input"] if isinstance(body["input"], list) else [body["input"]]
            data = [{"object": "embedding", "index": at, "embedding": EMBEDDING} for at in range(len(many))]
            usage = {"prompt_tokens": 9, "total_tokens": 9}
            self._json({"object": "list", "data": data, "model": PATH, "usage": usage})
        elif body.get("stream"):
            self._events(self._chunks(body))
        else:
            self._json(self._chat(body) if "chat" in self.path else self._text(body))

    def _usage(self) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}} if self.stub.usage else {}

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        places = [chat_place(token, body.get("top_logprobs", 0)) for token in TOKENS]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(TOKENS)},
            "finish_reason": "stop",
            "logprobs": {"content": places},  # also when nobody asked
        }
        return HEADER | {"object": "chat.completion", "choices": [choice] * body.get("n", 1)} | self._usage()

    def _text(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = ((body["prompt"],) if body.get("echo") else ()) + TOKENS
        scores = text_logprobs(tokens, body.get("logprobs") or 0)
        choice = {"index": 0, "text": "".join(tokens), "finish_reason": "stop", "logprobs": scores}
        return HEADER | {"object": "text_completion", "choices": [choice]} | self._usage()

    def _chunks(self, body: dict[str, Any]) -> Iterator[bytes]:
        for token in TOKENS:
            if "chat" in self.path:
                place = chat_place(token, body.get("top_logprobs", 0))
                choice = {"index": 0, "delta": {"content": token}, "logprobs": {"content": [place]}}
            else:
                choice = {"index": 0, "text": token, "logprobs": text_logprobs((token,), body.get("logprobs") or 0)}
            yield self._event(HEADER | {"object": "chat.completion.chunk", "choices": [choice]})
        if (body.get("stream_options") or {}).get("include_usage"):
            yield self._event(HEADER | {"choices": []} | self._usage())
        if self.stub.breaks == "never ends":
            self.connection.settimeout(30)
            self.rfile.read(1)  # until the other side hangs up
            return
        if self.stub.done:
            yield b"data: [DONE]\n\n"

    @staticmethod
    def _event(data: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(data).encode() + b"\n\n"

    def _events(self, events: Any) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        if self.stub.breaks != "never ends":
            self.wfile.write(b"0\r\n\r\n")

    def _json(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running_stub() -> Iterator[Stub]:
    stub = Stub()
    handler = type("StubHandler", (Handler,), {"stub": stub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield stub
        server.shutdown()
        thread.join()
