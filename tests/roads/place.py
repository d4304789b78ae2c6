"""The page's own policy, run: one `hip serve` before six servers of ours, each the tone of its family, each counted.

The servers answer as their documentation says, and tell all that such servers tell: what they were asked stands in
`asked`. A test may put another answer in `instead`. Callers find each server under a host of its own.
"""

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from tests.hip import CONFIG, Hip, hip_serve
from tests.oracle.scanner import Profile
from tests.servers.asking import Answer

PAGE = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text()
(POLICY,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
RULES = """\
issuers:
  corp:
    issuer: {issuer}
    audience: {audience}
    jwks_file: ../jwks.json
    algorithms: [ES256, EdDSA]
    roles_claim: realm_access.roles
budgets: {{plenty: [1000000 requests/minute, 100000000 tokens/minute]}}
outputs: {{coarse: {{decimals: 2, top_k: 2}}}}
parameters:
  scores: {{classification: allow, tensors: {{at_most: 8}}}}
  prose: {{text_output: allow}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer, stream, metadata, health], models: any}}
    budget: plenty
    output: coarse
    parameters: scores
  - id: readers
    allow: {{roles: [reader], actions: [infer], models: [digits]}}
    budget: plenty
    output: coarse
    parameters: prose
"""
MORE = "failed_authentications: 1000000 requests/minute\n"
PATIENCE = 20.0  # seconds until a test that waits fails
PROFILE = Profile(decimals=2, top_k=2)
SCORES = [0.9123456, 0.0712345, 0.0164199]
WORDS = "Traceback /srv/models/secret.py line 7 numpy 1.26.4 0.9815572"
JSON = "application/json"


@dataclass
class Said:
    """An answer of a server. `endless`: the body again and again, until nobody listens."""

    body: bytes
    kind: str | None = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    endless: bool = False


@dataclass
class Upstream:
    """A server of one family."""

    dialect: str
    model: str
    asked: list[tuple[str, str]] = field(default_factory=list)  # method, path
    bodies: list[bytes] = field(default_factory=list)
    kinds: list[str | None] = field(default_factory=list)  # their content types
    instead: Said | None = None
    url: str = ""

    @property
    def host(self) -> str:
        return f"{self.dialect}.example.com"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Secret/1.2.3", "Python/3.11.9"
    upstream: Upstream

    def log_message(self, *args: object) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.upstream.asked.append((self.command, self.path))
        self.upstream.bodies.append(body)
        self.upstream.kinds.append(self.headers["content-type"])
        said = self.upstream.instead or usual(self.upstream.dialect, self.path)
        self.send_response(said.status)
        if said.kind is not None:
            self.send_header("content-type", said.kind)
        for name, value in said.headers.items():
            self.send_header(name, value)
        if not said.endless:
            self.send_header("content-length", str(len(said.body)))
        else:
            self.send_header("connection", "close")
        self.end_headers()
        try:
            self.wfile.write(said.body)
            while said.endless:
                self.wfile.write(said.body)
        except OSError:
            pass
        self.close_connection = self.close_connection or said.endless


for _method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
    setattr(Handler, f"do_{_method}", Handler.answer)


def usual(dialect: str, path: str) -> Said:
    """What a server of a family says, with everything that it would rather tell."""
    end = path.rsplit("/", 1)[-1].rpartition(":")[2]
    event_stream = "text/event-stream"
    match dialect, end:
        case _, "ping" | "health" | "ready" | "live" | "healthz":
            return _json({"status": "Healthy", "path": "/srv/models", "load": 0.9815572})
        case "oip-v2", "infer":
            return _json(tensors())
        case "oip-v2", "infer_stream":
            return Said(b"id: 0.98155\ndata: " + json.dumps(tensors()).encode() + b"\n\n", event_stream)
        case "oip-v2", "generate":
            return _json(flat())
        case "oip-v2", "generate_stream":
            return Said(b"data: " + json.dumps(flat()).encode() + b"\n\n", event_stream)
        case "oip-v2", "v2":
            return _json({"name": "secret", "version": "1.26.4", "extensions": [WORDS]})
        case "oip-v2", _:
            inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
            return _json({"name": "m", "platform": WORDS, "versions": ["1.26.4"], "inputs": inputs, "outputs": []})
        case "kserve-v1", "predict":
            return _json({"predictions": [SCORES], "model": WORDS})
        case "kserve-v1", "classify":
            return _json({"results": [[[name, score] for name, score in zip("abc", SCORES, strict=True)]]})
        case "kserve-v1", "regress":
            return _json({"results": [0.9815572]})
        case "kserve-v1", "models":
            return _json({"models": ["secret-0.9815572"]})
        case "kserve-v1", _:
            state = {"version": "0.9815572", "state": "AVAILABLE", "status": {"error_message": WORDS}}
            return _json({"model_version_status": [state]})
        case "torchserve", _:
            named = dict(zip(("tabby", "tiger_cat", "lynx"), SCORES, strict=True))
            return Said(json.dumps(named, indent=2).encode(), None)
        case "mlflow", _:
            return _json({"predictions": [SCORES], "debug": WORDS})
        case "openai", "embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": SCORES}]
            return _json({"data": data, "model": WORDS, "usage": {"prompt_tokens": 2, "total_tokens": 2}})
        case "openai", "models":
            return _json({"object": "list", "data": [{"id": "/srv/models/secret.gguf", "created": 0.9815572}]})
        case "openai", _:
            said = {"text": "four"} if path == "/v1/completions" else {"message": {"role": "assistant", "content": "4"}}
            choice = {"index": 0, "finish_reason": "stop", **said}
            return _json({"id": "a-1", "model": WORDS, "choices": [choice], "timings": {"ms": 0.9815572}})
        case _:
            return _json({"results": [{"label": "cod", "scores": SCORES, "debug": WORDS}], "seconds": 0.9815572})


def tensors() -> dict[str, Any]:
    rows = [{"name": name, "datatype": "FP32", "shape": [1, 3], "data": SCORES} for name in ("p", "logits")]
    lone = [{"name": name, "datatype": "FP32", "shape": [1, 1], "data": [score]} for name, score in zip("abc", SCORES)]  # noqa: B905
    classes = [f"{score}:{at}:c{at}" for at, score in enumerate(SCORES)]
    words = {"name": "classes", "datatype": "BYTES", "shape": [1, 3], "data": classes}
    return {"model_name": WORDS, "model_version": "1.26.4", "id": "0.98155", "outputs": [*rows, *lone, words]}


def flat() -> dict[str, Any]:
    return {"model_name": WORDS, "p": SCORES, "a": SCORES[0], "b": SCORES[1], "c": SCORES[2]}


def _json(content: object) -> Said:
    return Said(json.dumps(content).encode())


# What a client sends: dialect -> path, with MODEL for the model's name -> body. Everything else is asked without one.
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}
CHAT = {"model": "MODEL", "messages": [{"role": "user", "content": "Which digit is this?"}]}
BODIES: Mapping[str, Mapping[str, object]] = {
    "oip-v2": {
        "infer": {"inputs": [TENSOR]},
        "infer_stream": {"inputs": [TENSOR]},
        "generate": {"x": [0.5, 1.5]},
        "generate_stream": {"x": [0.5, 1.5]},
    },
    "kserve-v1": {
        "predict": {"instances": [[0.5, 1.5]]},
        "classify": {"examples": [{"x": 0.5}]},
        "regress": {"examples": [{"x": 0.5}]},
    },
    "torchserve": {"MODEL": [[0.5, 1.5]], "2.0": [[0.5, 1.5]]},
    "mlflow": {"invocations": {"inputs": [[0.5, 1.5]]}},
    "openai": {
        "chat/completions": CHAT,
        "v1/completions": {"model": "MODEL", "prompt": "Which digit is this?"},
        "embeddings": {"model": "MODEL", "input": "seven"},
    },
    "generic": {"classify": {"inputs": [[0.5, 1.5]]}},
}


def body_for(dialect: str, method: str, path: str) -> bytes:
    """Return what a client of a family sends to a path of its table, which has `m` where a model is named."""
    if method == "GET":
        return b""
    found = [body for end, body in BODIES[dialect].items() if re.search(rf"[/:]{end}$", path.replace("/m", "/MODEL"))]
    return json.dumps(found[0]).encode() if found else b"{}"


@dataclass
class Place:
    """The proxy and what stands behind it."""

    hip: Hip
    upstreams: Mapping[str, Upstream]
    identity: DemoIdentityProvider

    def token(self, role: str = "analyst") -> str:
        return self.identity.token("alice", (role,))

    def ask(
        self,
        dialect: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        known: bool = True,
        role: str = "analyst",
    ) -> Answer:
        """Ask with the path as it is, on a connection of its own. `known`: with a token. MODEL is the model's name."""
        model = self.upstreams[dialect].model
        body = body.replace(b"MODEL", model.encode())
        sent = {"content-type": JSON} if body else {}
        sent |= {"authorization": f"Bearer {self.token(role)}"} if known else {}
        sent |= {"content-length": str(len(body))} if body or method == "POST" else {}
        sent |= headers or {}
        connection = http.client.HTTPSConnection("localhost", self.hip.port, context=self.hip.trust(), timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"host": self.upstreams[dialect].host} | sent).items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            return Answer(response.status, tuple(response.getheaders()), response.read())
        finally:
            connection.close()

    def ask_torn(self, dialect: str, path: str, body: bytes) -> bytes:
        """Post, and return every byte that came until the connection's end, however it ended."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self.upstreams[dialect].host}\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {self.token()}\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        found = b""
        with (
            socket.create_connection(("127.0.0.1", self.hip.port), timeout=30) as plain,
            self.hip.trust().wrap_socket(plain, server_hostname="localhost") as wrapped,
            suppress(OSError),
        ):
            wrapped.sendall(head.encode() + body)
            while piece := wrapped.recv(1 << 16):
                found += piece
        return found

    def records(self, answer: Answer) -> list[dict[str, Any]]:
        """Return the records of a refusal, by its incident. What the listener refuses is recorded after the answer."""
        incident = answer.json()["instance"].removeprefix("urn:hip:incident:")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if found := [json.loads(line) for line in self.hip.journal().splitlines() if incident in line]:
                return found
            time.sleep(0.01)
        return []

    @property
    def hits(self) -> int:
        return sum(len(one.asked) for one in self.upstreams.values())

    @property
    def peak(self) -> int:
        """The most memory that the proxy ever held, in bytes; 0 where the kernel does not say."""
        status = Path(f"/proc/{self.hip.process.pid}/status")
        found = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else [0]
        return int(found[0]) * 1024


@contextmanager
def place(directory: Path) -> Iterator[Place]:
    """Start the servers and the proxy."""
    yaml = YAML()
    document = yaml.load(POLICY)
    models = {entry["upstream"]: name for name, entry in document["models"].items()}
    identity = DemoIdentityProvider(port=1)  # never started: its keys are read from a file
    (directory / "jwks.json").write_bytes(identity.jwks())
    with ExitStack() as stack:
        upstreams = {}
        for name, entry in document["upstreams"].items():
            one = stack.enter_context(_running(Upstream(entry["dialect"], models[name])))
            entry.update(url=one.url, host=one.host)
            upstreams[one.dialect] = one
        document.update(yaml.load(RULES.format(issuer=identity.issuer, audience=AUDIENCE)))
        text = StringIO()
        yaml.dump(document, text)
        hip = stack.enter_context(hip_serve(directory, text.getvalue(), CONFIG + MORE))
        yield Place(hip, upstreams, identity)


@contextmanager
def _running(upstream: Upstream) -> Iterator[Upstream]:
    handler = type("RoadHandler", (Handler,), {"upstream": upstream})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        upstream.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield upstream
        server.shutdown()
        thread.join()
