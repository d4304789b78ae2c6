"""Encoded images where they come: `hip serve` before MLServer and Triton, and servers of KServe v1 and TorchServe.

The latter two are ours: neither TF Serving nor TorchServe is a package of this environment. What they were sent, they
keep, so that a test sees what passed.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pictures import SIDE, bomb, digits, saved
from typer.testing import CliRunner

from proxy.cli import app
from proxy.cli.records import records
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.record import Decision, Judged
from tests.hip import CONFIG, Hip, hip_serve
from tests.servers import launch
from tests.servers.conftest import servers_environment  # noqa: F401 - a fixture
from tests.servers.running import PYTHON, free_ports, running

POLICY = """\
version: v1
issuers:
  corp:
    issuer: {issuer}
    audience: {audience}
    jwks_file: ../jwks.json
    algorithms: [ES256, EdDSA]
    roles_claim: realm_access.roles
upstreams:
  mlserver: {{url: "{mlserver}", dialect: oip-v2}}
  triton: {{url: "{triton}", dialect: oip-v2}}
  serving: {{url: "{other}", dialect: kserve-v1}}
  torch: {{url: "{other}", dialect: torchserve}}
models:
  images: {{upstream: mlserver}}
  digits: {{upstream: triton}}
  scans: {{upstream: serving, record_inputs: {{encrypt_to: "{key}", rows_per_minute: 1000}}}}
  photos: {{upstream: torch}}
budgets:
  plenty: [100000 requests/minute]
outputs:
  label: {{label_only: true}}
detectors:
  pictures: {{file: pictures.onnx, sha256: {digest}}}
rules:
  - id: watchers
    allow: {{roles: [watcher], actions: [infer], models: [images, digits, scans, photos]}}
    budget: plenty
    output: label
    detector: {{use: pictures, mode: shadow}}
  - id: readers
    allow: {{roles: [analyst], actions: [infer], models: [images, digits, scans, photos]}}
    budget: plenty
    output: label
    detector: {{use: pictures, on_suspicion: refuse, sequences: enforce}}
"""
TRITON = """
backend: "python"
max_batch_size: 16
input { name: "image" data_type: TYPE_STRING dims: [1] }
output { name: "scores" data_type: TYPE_FP32 dims: [2] }
"""
MODELS = Path(__file__).parents[1] / "servers" / "models"
run = CliRunner().invoke
pytestmark = pytest.mark.server


class Serving(ThreadingHTTPServer):
    """Says what such servers say of one row, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Answers)


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Serving

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.sent.append((self.path, body))
        given = json.loads(body) if ":" in self.path else {}
        rows = len(given.get("instances") or given.get("inputs", {}).get("image_bytes", [0]))
        scores = [0.25, 0.75]
        said = json.dumps({"predictions": [scores] * rows} if ":" in self.path else scores).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Place:
    hip: Hip
    identity: DemoIdentityProvider
    serving: Serving
    private: Path
    http: httpx.Client

    def post(self, path: str, role: str = "analyst", name: str = "alice", **sent: object) -> httpx.Response:
        token, more = self.identity.token(name, (role,)), sent.pop("headers", {})
        headers = {"authorization": f"Bearer {token}", **more}  # type: ignore[dict-item]
        return self.http.post(path, headers=headers, **sent)  # type: ignore[arg-type]

    def oip(self, *files: bytes, **who: str) -> httpx.Response:
        data = [base64.b64encode(file).decode() for file in files]
        tensor = {"name": "image", "shape": [len(files), 1], "datatype": "BYTES", "data": data}
        tensor["parameters"] = {"content_type": "base64"}
        return self.post("/v2/models/images/infer", json={"inputs": [tensor]}, **who)

    def binary(self, *files: bytes) -> httpx.Response:
        raw = b"".join(len(file).to_bytes(4, "little") + file for file in files)
        tensor = {"name": "image", "shape": [len(files), 1], "datatype": "BYTES"}
        tensor["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
        return self.post("/v2/models/digits/infer", content=head + raw, headers=headers)

    def kserve(self, *files: bytes, **who: str) -> httpx.Response:
        instances = [{"image_bytes": {"b64": base64.b64encode(file).decode()}} for file in files]
        return self.post("/v1/models/scans:predict", json={"instances": instances}, **who)

    def columns(self, *files: bytes) -> httpx.Response:
        inputs = {"image_bytes": [{"b64": base64.b64encode(file).decode()} for file in files]}
        return self.post("/v1/models/scans:predict", json={"inputs": inputs})

    def torch(self, file: bytes, kind: str = "image/png") -> httpx.Response:
        return self.post("/predictions/photos", content=file, headers={"content-type": kind})

    def octets(self, file: bytes) -> httpx.Response:
        return self.torch(file, "application/octet-stream")

    def form(self, file: bytes) -> httpx.Response:
        return self.post("/predictions/photos", files={"data": ("one.png", file, "image/png")})

    def data(self, file: bytes) -> httpx.Response:
        return self.post("/predictions/photos", json={"data": base64.b64encode(file).decode()})

    def judged(self) -> list[Judged]:
        every = [event for _, event in records(self.hip.directory / "audit")]
        return [event.judged for event in every if isinstance(event, Decision) and event.judged is not None]


ROADS = ("oip", "binary", "kserve", "columns", "torch", "octets", "form", "data")


@pytest.fixture(scope="module")
def place(servers_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:  # noqa: F811
    directory = tmp_path_factory.mktemp("hip-encoded")
    (directory / "policy").mkdir()
    (directory / "scans").mkdir()
    for number, one in enumerate(digits("training")):
        (directory / "scans" / f"{number:04}.png").write_bytes(saved(one))
    output = directory / "policy" / "pictures.onnx"
    names = [part for model in ("images", "digits", "scans", "photos") for part in ("--model", model)]
    done = run(app, ["detector", "fit", str(directory / "scans"), "--kind", "image", "-o", str(output), *names])
    assert done.exit_code == 0, done.output
    assert "16 x 16 cells" in done.stdout

    key = X25519PrivateKey.generate()
    private = directory / "fitting.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    identity = DemoIdentityProvider(port=1)  # never started: its keys are read from a file
    (directory / "jwks.json").write_bytes(identity.jwks())
    with ExitStack() as stack:
        serving = stack.enter_context(Serving())
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        stack.callback(serving.shutdown)
        policy = POLICY.format(
            issuer=identity.issuer,
            audience=AUDIENCE,
            mlserver=stack.enter_context(mlserver(directory / "mlserver")).url,
            triton=stack.enter_context(launch.triton(directory / "triton", TRITON, "triton_images.py")).url,
            other=f"http://127.0.0.1:{serving.server_port}",
            digest=sha256(output.read_bytes()).hexdigest(),
            key=public.replace("\n", "\\n"),
        )
        config = CONFIG + "recordings: {directory: recordings}\n"
        hip = stack.enter_context(hip_serve(directory, policy, config))
        http = stack.enter_context(httpx.Client(base_url=hip.url, verify=hip.trust(), trust_env=False, timeout=30))
        yield Place(hip, identity, serving, private, http)


def mlserver(directory: Path):
    directory.mkdir()
    (directory / "images.py").write_text((MODELS / "images_for_mlserver.py").read_text())
    http, grpc, metrics = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (directory / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
    (directory / "model-settings.json").write_text(json.dumps({"name": "images", "implementation": "images.Images"}))
    command = [PYTHON.with_name("mlserver"), "start", "."]
    return running("mlserver", command, http, "/v2/models/images/ready", directory)


HELD = list(digits("heldout"))
NOISE = saved(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8))


@pytest.mark.parametrize("road", ROADS)
def test_ordinary_images_are_answered_and_strange_ones_are_not(place, road) -> None:
    ask = getattr(place, road)
    ordinary = saved(HELD[1 + ROADS.index(road)])
    assert ask(ordinary).status_code == 200
    assert place.judged()[-1].verdict == "pass"
    refused = ask(NOISE)
    assert (refused.status_code, refused.json()["title"]) == (403, "anomalous input")
    assert place.judged()[-1].verdict == "refuse"


def test_the_server_gets_the_file_as_it_was_sent(place) -> None:
    file = saved(HELD[20], "JPEG", quality=95)
    place.torch(file, "image/jpeg")
    assert place.serving.sent[-1] == ("/predictions/photos", file)
    place.kserve(file)
    instances = json.loads(place.serving.sent[-1][1])["instances"]
    assert base64.b64decode(instances[0]["image_bytes"]["b64"]) == file


BAD = {
    "too-large": bomb(50_000, 50_000, rows=1),
    "bomb": bomb(20_000, 20_000, rows=100),
    "cut": saved(HELD[0], "JPEG")[:-100],
    "gif": saved(HELD[0], "GIF"),
    "text": b"\x89PNG and nothing else",
    "no-frame": b"\xff\xd8\xff\xc0\0\2\xff\xda\0\2\xff\xd9",
}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_decoded_is_the_callers_fault(place, road, name) -> None:
    before = len(place.serving.sent)
    refused = getattr(place, road)(BAD[name])
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")
    assert len(place.serving.sent) == before
    assert "pixel" not in refused.text


def test_a_shadow_lets_them_pass_and_nobody_falls_over(place) -> None:
    for file in BAD.values():
        assert place.kserve(file, role="watcher").status_code == 200
    assert place.kserve(NOISE, role="watcher").status_code == 200
    assert place.judged()[-1].verdict == "shadow_refuse"


def test_the_strangest_row_answers_and_a_row_is_one_image(place) -> None:
    files = [saved(HELD[30]), NOISE, saved(HELD[31])]
    assert place.oip(*files).status_code == 403
    assert (place.judged()[-1].row, place.judged()[-1].rows) == (1, 3)
    assert place.kserve(*files).status_code == 403
    two = [{"b64": base64.b64encode(files[0]).decode(), "key": "1"}]
    assert place.post("/v1/models/scans:predict", json={"instances": two}).status_code == 400
    numbers = {"instances": [[0.0] * 512]}
    assert place.post("/v1/models/scans:predict", json=numbers).status_code == 400


def test_an_attack_in_small_steps_is_seen(place) -> None:
    pixels = HELD[40].astype(int)
    answers = []
    for step in range(12):
        pixels[step, step] = (pixels[step, step] + 3) % 256
        answers.append(place.kserve(saved(pixels.astype(np.uint8)), name="mallory").status_code)
    assert answers[0] == 200
    assert answers[-1] == 403
    said = [event for _, event in records(place.hip.directory / "audit") if isinstance(event, Decision)][-1]
    assert said.judged is not None
    assert said.judged.sequence is not None
    assert said.judged.sequence.pattern == "near_duplicates"


def test_recorded_images_are_what_a_detector_is_fitted_to(place, tmp_path) -> None:
    for number in range(130):
        file = saved(HELD[50 + number])
        assert place.kserve(file, role="watcher", name=f"caller-{number % 5}").status_code == 200
    place.hip.process.send_signal(15)
    place.hip.process.wait(30)
    output = tmp_path / "again.onnx"
    recordings = str(place.hip.directory / "recordings")
    words = ["--from-recorded", recordings, "--key", str(place.private), "--model", "scans", "--alpha", "0.02"]
    done = run(app, ["detector", "fit", *words, "--kind", "image", "-o", str(output), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["rows"] >= 130
    assert found["image"]["layout"] == "encoded"
    assert "no image" in done.stderr  # those that the shadow let pass
