"""Recorded inputs where they come from: `hip serve` keeps them, `hip detector fit` opens them, the detector serves."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from english import STRANGE, halves
from typer.testing import CliRunner

from proxy.cli import app
from proxy.cli.records import records
from proxy.demo.digits import load_digits, scaled
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.record import InputsRecorded
from tests.hip import CONFIG, Hip, hip_serve, serving
from tests.openai_stub.stub import PATH, running_stub

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
  stub: {{url: "{stub}", dialect: openai}}
  server: {{url: "{server}", dialect: oip-v2}}
models:
  llama: {{upstream: stub, served_as: {path}{record}}}
  digits: {{upstream: server{record}}}
budgets:
  plenty: [100000 requests/minute]
outputs:
  label: {{label_only: true}}
{detectors}rules:
  - id: readers
    allow: {{roles: [analyst], actions: [infer, metadata], models: [llama, digits]}}
    budget: plenty
    output: label
{use}"""
RECORD = ', record_inputs: {encrypt_to: "%s", rows_per_minute: 1000}'
SECRET = "the-lighthouse-keeper-sings-at-dawn"
CALLERS, TEXTS = 5, 180  # of .02, 124 are the least
run = CliRunner().invoke


@dataclass(frozen=True)
class Place:
    directory: Path
    identity: DemoIdentityProvider
    stub: str
    server: str
    private: Path
    public: str
    strange: httpx.Response

    def policy(self, detectors: str = "", use: str = "", record: str = "") -> str:
        return POLICY.format(
            issuer=self.identity.issuer,
            audience=AUDIENCE,
            stub=self.stub,
            server=self.server,
            path=PATH,
            detectors=detectors,
            use=use,
            record=record,
        )

    def client(self, hip: Hip, name: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.identity.token(name, ('analyst',))}"}
        return httpx.Client(base_url=hip.url, verify=hip.trust(), trust_env=False, timeout=30, headers=headers)

    @property
    def recordings(self) -> Path:
        return self.directory / "recordings"

    def files(self, model: str) -> list[Path]:
        return sorted(self.recordings.glob(f"inputs.{model}.*.sealed"))

    def fit(self, output: Path, *more: str, key: Path | None = None) -> tuple[int, str, str]:
        key = key or self.private
        done = run(
            app,
            ["detector", "fit", "--from-recorded", str(self.recordings), "--key", str(key), "-o", str(output), *more],
        )
        return done.exit_code, done.stdout, done.stderr


def chat(*texts: str) -> dict[str, object]:
    return {"model": "llama", "messages": [{"role": "user", "content": text} for text in texts]}


def tensor(rows: np.ndarray) -> dict[str, object]:
    data = rows.reshape(len(rows), -1)
    return {"inputs": [{"name": "x", "shape": list(data.shape), "datatype": "FP32", "data": data.tolist()}]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Traffic of some callers, through a proxy that has ended since."""
    directory = tmp_path_factory.mktemp("hip-recorded")
    key = X25519PrivateKey.generate()
    private = directory / "fitting.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    identity = DemoIdentityProvider(port=1)  # never started: its keys are read from a file
    (directory / "jwks.json").write_bytes(identity.jwks())
    command = [sys.executable, "-m", "proxy.demo.model_server"]
    with running_stub() as stub, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removesuffix("/v2/models/digits\n")
            where = Place(directory, identity, stub.url, url, private, public, httpx.Response(0))
            escaped = public.replace("\n", "\\n")
            with hip_serve(
                directory, where.policy(record=RECORD % escaped), CONFIG + "recordings: {directory: recordings}\n"
            ) as hip:
                strange = traffic(where, hip)
            yield Place(directory, identity, stub.url, url, private, public, strange)
        finally:
            server.terminate()


def traffic(where: Place, hip: Hip) -> httpx.Response:
    """Ask as several callers, some of them the same again; return an answer that was a refusal."""
    images = scaled(load_digits().training)
    texts = [text.decode() for text in halves()[0]][:TEXTS]

    def ask(number: int) -> httpx.Response:
        with where.client(hip, f"caller-{number}") as http:
            for at in range(number, TEXTS, CALLERS):
                assert http.post("/v2/models/digits/infer", json=tensor(images[at][None])).status_code == 200
                assert http.post("/v1/chat/completions", json=chat(texts[at])).status_code == 200
            for _ in range(3):
                assert http.post("/v2/models/digits/infer", json=tensor(images[number][None])).status_code == 200
            assert http.post("/v1/chat/completions", json=chat(f"{SECRET} {number}")).status_code == 200
            refused = http.post("/v2/models/digits/infer", json=tensor(np.full((1, 3), 0.123)))
            assert http.get("/v2/models/digits").status_code == 200
            return refused

    with ThreadPoolExecutor(CALLERS) as pool:
        refused = [*pool.map(ask, range(CALLERS))][-1]
    with httpx.Client(trust_env=False) as http:
        assert "inputs of digits, llama, encrypted" in http.get(f"{hip.admin_url}/readyz").text
    return refused


def test_only_the_private_key_reads_what_was_asked(place, tmp_path) -> None:
    """On the proxy's disk, nothing has the words of a caller or its name, in whatever form."""
    found = [path.read_bytes() for path in place.directory.rglob("*") if path.is_file() and path != place.private]
    assert not any(SECRET.encode() in data for data in found)
    for path in place.files("llama"):
        assert b"caller" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    assert place.recordings.stat().st_mode & 0o077 == 0
    other = tmp_path / "other.pem"
    other.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    code, _, said = place.fit(tmp_path / "x.onnx", "--model", "llama", "--kind", "text", key=other)
    assert (code, "sealed to the key" in said) == (2, True)
    assert not (tmp_path / "x.onnx").exists()


def test_every_file_is_on_record_with_its_key_and_its_rows(place) -> None:
    every = [event for _, event in records(place.directory / "audit") if isinstance(event, InputsRecorded)]
    files = {path.stem for model in ("llama", "digits") for path in place.files(model)}
    assert {event.file for event in every} == files
    assert sorted((event.effect, event.model) for event in every) == [
        (effect, model) for effect in ("begun", "ended") for model in ("digits", "llama")
    ]
    assert {len(event.recipient) for event in every} == {16}
    rows = {event.model: event.rows for event in every if event.effect == "ended"}
    assert rows == {"digits": TEXTS + 3 * CALLERS, "llama": TEXTS + CALLERS}


def test_what_was_refused_or_never_answered_is_not_recorded(place, tmp_path) -> None:
    """The model server refuses three features: they are no row of the sample, and nothing is of another width."""
    assert place.strange.status_code >= 400
    code, printed, said = place.fit(tmp_path / "digits.onnx", "--model", "digits", "--json", "--alpha", "0.02")
    assert code == 0, said
    assert json.loads(printed)["rows"] == TEXTS
    assert f"{3 * CALLERS} repeats" in said
    assert "another width" not in said


def test_numbers_are_recorded_bit_by_bit(place, tmp_path) -> None:
    """A fit from the recording is the fit from the same rows in a file, whatever their order: the digest says so."""
    from proxy.adapters.samples import read_files
    from proxy.audit.sealing import Opener

    rows = [
        row for file in read_files(place.recordings, ["digits"], Opener(place.private.read_bytes())) for row in file
    ]
    asked = scaled(load_digits().training)[:TEXTS].astype("<f4")
    assert {row.numbers for row in rows} == {row.tobytes() for row in asked}
    assert len({row.caller for row in rows}) == CALLERS


def test_the_share_of_one_caller_is_limited(place, tmp_path) -> None:
    code, _, said = place.fit(tmp_path / "x.onnx", "--model", "digits", "--alpha", "0.02", "--per-caller", "10")
    assert code == 2
    assert "above 10 of one caller in a file" in said
    assert f"{10 * CALLERS} rows" in said


def test_a_detector_of_recorded_inputs_serves(place, tmp_path) -> None:
    """Images and texts: what is like the traffic is answered, what is not is refused."""
    lines = ""
    for name, model, more in (
        ("images", "digits", ("--kind", "image", "--shape", "8x8", "--alpha", "0.02")),
        ("texts", "llama", ("--kind", "text", "--alpha", "0.02")),
    ):
        output = place.directory / "policy" / f"{name}.onnx"
        code, _, said = place.fit(output, "--model", model, *more)
        assert code == 0, said
        lines += f"  {name}: {{file: {name}.onnx, sha256: {sha256(output.read_bytes()).hexdigest()}}}\n"
    rules = """\
    detector: {use: texts, on_suspicion: refuse}
  - id: watchers
    allow: {roles: [analyst], actions: [infer], models: [digits]}
    budget: plenty
    output: label
    detector: {use: images, on_suspicion: refuse}
"""
    policy = place.policy(f"detectors:\n{lines}", rules).replace("models: [llama, digits]}", "models: [llama]}")
    (place.directory / "policy" / "policy.yaml").write_text(policy)
    texts = [text for text in halves()[1] if len(text) > 200]
    images = scaled(load_digits().heldout)[:20]
    with serving(place.directory) as (process, port, admin):
        certificates = type("C", (), {"ca": type("CA", (), {"certificate": place.directory / "certs" / "ca.crt"})})
        hip = Hip(place.directory, certificates, process, port, admin)  # type: ignore[arg-type]
        with place.client(hip, "somebody") as http:
            seen = [http.post("/v2/models/digits/infer", json=tensor(one[None])).status_code for one in images]
            assert seen.count(200) >= 17
            noise = np.random.default_rng(0).random((1, 64))
            assert http.post("/v2/models/digits/infer", json=tensor(noise)).status_code == 403
            assert http.post("/v1/chat/completions", json=chat(texts[0])).status_code == 200
            assert http.post("/v1/chat/completions", json=chat(STRANGE["base64"](texts[1]))).status_code == 403


def test_without_a_place_for_them_nothing_starts(place) -> None:
    """The policy asks for a recording, and hip.yaml has none: refused before anything serves."""
    policy = place.policy(record=RECORD % place.public.replace("\n", "\\n"))
    (place.directory / "policy" / "policy.yaml").write_text(policy)
    config = place.directory / "without.yaml"
    config.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "serve", "--config", str(config)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "inputs of `digits` are to be recorded, and there is no place for them" in done.stderr
