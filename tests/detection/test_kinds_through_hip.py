"""Every kind of detector where it works: `hip serve` before real servers, detectors that `hip detector fit` made."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from english import STRANGE, halves
from typer.testing import CliRunner

from proxy.cli import app
from proxy.cli.records import records
from proxy.demo.digits import load_digits, scaled
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.record import Decision, Judged
from tests.hip import Hip, hip_serve
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
  llama: {{upstream: stub, served_as: {path}}}
  digits: {{upstream: server}}
budgets:
  plenty: [100000 requests/minute]
outputs:
  label: {{label_only: true}}
detectors:
  texts: {{file: texts.onnx, sha256: {texts}}}
  images: {{file: images.onnx, sha256: {images}}}
rules:
  - id: writers
    allow: {{roles: [analyst], actions: [infer, stream], models: [llama]}}
    budget: plenty
    output: label
    detector: {{use: texts, on_suspicion: refuse}}
  - id: watchers
    allow: {{roles: [watcher], actions: [infer], models: [digits]}}
    budget: plenty
    output: label
    detector: {{use: images, mode: shadow}}
  - id: readers
    allow: {{roles: [analyst], actions: [infer], models: [digits]}}
    budget: plenty
    output: label
    detector: {{use: images, on_suspicion: refuse}}
"""
run = CliRunner().invoke


@dataclass(frozen=True)
class Place:
    hip: Hip
    identity: DemoIdentityProvider
    texts: Path
    images: Path

    def ask(self, path: str, body: object, role: str = "analyst", name: str = "alice") -> httpx.Response:
        headers = {"authorization": f"Bearer {self.identity.token(name, (role,))}"}
        with httpx.Client(verify=self.hip.trust(), trust_env=False, timeout=30, headers=headers) as http:
            return http.post(self.hip.url + path, json=body)

    def chat(self, *texts: object, **more: object) -> httpx.Response:
        messages = [{"role": "user", "content": text} for text in texts]
        return self.ask("/v1/chat/completions", {"model": "llama", "messages": messages, **more})

    def image(self, rows: np.ndarray) -> httpx.Response:
        return self.ask("/v2/models/digits/infer", tensor(rows))

    def judged(self) -> list[Judged]:
        every = [event for _, event in records(self.hip.directory / "audit")]
        return [event.judged for event in every if isinstance(event, Decision) and event.judged is not None]


def tensor(rows: np.ndarray) -> dict[str, object]:
    data = rows.reshape(len(rows), -1)
    return {"inputs": [{"name": "x", "shape": list(data.shape), "datatype": "FP32", "data": data.tolist()}]}


def fitted(source: Path, output: Path, *more: str) -> str:
    done = run(app, ["detector", "fit", str(source), "-o", str(output), *more])
    assert done.exit_code == 0, done.output
    return sha256(output.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("hip-kinds")
    (directory / "policy").mkdir()
    texts, images = directory / "policy" / "texts.onnx", directory / "policy" / "images.onnx"
    bodies = [{"model": "m", "messages": [{"role": "user", "content": text.decode()}]} for text in halves()[0]]
    (directory / "chats.jsonl").write_text("\n".join(map(json.dumps, bodies)))
    np.save(directory / "digits.npy", scaled(load_digits().training).reshape(-1, 8, 8))
    digests = {
        "texts": fitted(directory / "chats.jsonl", texts, "--model", "llama", "--kind", "text", "--alpha", "0.02"),
        "images": fitted(directory / "digits.npy", images, "--model", "digits", "--kind", "image"),
    }
    identity = DemoIdentityProvider(port=1)  # never started: its keys are read from a file
    (directory / "jwks.json").write_bytes(identity.jwks())
    command = [sys.executable, "-m", "proxy.demo.model_server"]
    with running_stub() as stub, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removesuffix("/v2/models/digits\n")
            policy = POLICY.format(
                issuer=identity.issuer, audience=AUDIENCE, stub=stub.url, server=url, path=PATH, **digests
            )
            with hip_serve(directory, policy) as hip:
                yield Place(hip, identity, texts, images)
        finally:
            server.terminate()


ORDINARY = [text for text in halves()[1] if len(text) > 200][:3]


def test_ordinary_texts_are_answered_and_gibberish_is_not(place) -> None:
    assert place.chat(*ORDINARY).status_code == 200
    assert place.judged()[-1].rows == 3
    refused = place.chat(ORDINARY[0], STRANGE["base64"](ORDINARY[1]), ORDINARY[2])
    assert (refused.status_code, refused.json()["title"]) == (403, "anomalous input")
    said = place.judged()[-1]
    assert (said.detector, said.row, said.rows, said.verdict) == ("texts", 1, 3, "refuse")
    assert "base64" not in refused.text


def test_every_role_of_a_chat_is_judged(place) -> None:
    strange = STRANGE["gibberish"](ORDINARY[0])
    for role in ("system", "assistant", "tool"):
        messages = [{"role": role, "content": strange}, {"role": "user", "content": ORDINARY[0]}]
        assert place.ask("/v1/chat/completions", {"model": "llama", "messages": messages}).status_code == 403, role


def test_streams_prompts_and_embeddings_are_judged(place) -> None:
    strange = STRANGE["base64"](ORDINARY[0])
    assert place.chat(ORDINARY[0], stream=True).status_code == 200
    assert place.chat(strange, stream=True).status_code == 403
    for path, key in (("/v1/completions", "prompt"), ("/v1/embeddings", "input")):
        assert place.ask(path, {"model": "llama", key: [ORDINARY[0], ORDINARY[1]]}).status_code == 200
        assert place.ask(path, {"model": "llama", key: [ORDINARY[0], strange]}).status_code == 403
    assert place.ask("/v1/completions", {"model": "llama", "prompt": ORDINARY[0], "suffix": strange}).status_code == 403


@pytest.mark.parametrize(
    "content",
    [[{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], [{"type": "text", "text": "x"}] * 0],
    ids=["image", "nothing"],
)
def test_what_a_detector_of_texts_cannot_read_is_refused_or_judged(place, content) -> None:
    answer = place.chat(content)
    assert answer.status_code == (400 if content else 200)


def test_token_ids_cannot_be_judged(place) -> None:
    assert place.ask("/v1/completions", {"model": "llama", "prompt": [1, 2, 3]}).status_code == 400


def test_ordinary_images_are_answered_and_noise_is_not(place) -> None:
    images = scaled(load_digits().heldout)[:20]
    assert [place.image(one[None]).status_code for one in images].count(200) >= 19
    assert place.image(np.random.default_rng(0).random((1, 64))).status_code == 403
    assert place.image(images[:1] + 1 / 37).status_code == 403


def test_numbers_of_another_shape_and_texts_are_no_images(place) -> None:
    assert place.image(np.zeros((1, 63))).status_code == 400
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}
    assert place.ask("/v2/models/digits/infer", body).status_code == 400


def test_check_sees_in_the_journal_whether_traffic_has_drifted(place) -> None:
    """Ordinary traffic of several callers first; then all of them send negatives."""

    def check() -> tuple[int, dict[str, object]]:
        journal = str(place.hip.directory / "audit")
        done = run(app, ["detector", "check", str(place.images), "--journal", journal, "--json"])
        (found,) = json.loads(done.stdout)["models"] or [{}]
        return done.exit_code, found

    assert check()[0] == 3  # too few
    images = scaled(load_digits().heldout)[100:]
    for number in range(120):
        name = f"caller-{number % 6}"
        assert place.ask("/v2/models/digits/infer", tensor(images[number][None]), "watcher", name).status_code == 200
    code, found = check()
    assert (code, found["enough"], found["model"]) == (0, True, "digits")
    for number in range(120, 240):
        body = tensor(1 - images[number][None])
        assert place.ask("/v2/models/digits/infer", body, "watcher", f"caller-{number % 6}").status_code == 200
    code, found = check()
    assert (code, found["drifted"]) == (1, True)
    told = run(app, ["detector", "check", str(place.images), "--journal", str(place.hip.directory / "audit")])
    assert told.exit_code == 1
    for words in ("digits: DRIFTED", "7 callers", "p-values", "expected at the rate 0.01"):
        assert words in told.stdout, told.stdout
