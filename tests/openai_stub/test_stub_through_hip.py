"""Log-probabilities, model paths and tokens: the stub with `hip serve` before it, driven by the `openai` SDK."""

import base64
import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import openai
import pytest

from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from tests.hip import CONFIG, Hip, hip_serve
from tests.openai_stub.stub import PATH, TOKENS, Stub, running_stub
from tests.oracle.scanner import Profile, findings

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
  stub: {{url: "{url}", dialect: openai}}
models:
  llama: {{upstream: stub, served_as: {path}}}
budgets:
  plenty: [100000 requests/minute, 10000000 tokens/minute]
  little: [100 tokens/hour]
outputs:
  coarse: {{decimals: 2, top_k: 2}}
  label: {{label_only: true}}
parameters:
  scores: {{top_logprobs: {{at_most: 3}}, n: {{at_most: 2}}, echo: allow}}
  short: {{max_tokens: {{at_most: 10}}}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer, stream, metadata, health], models: [llama]}}
    budget: plenty
    output: coarse
    parameters: scores
  - id: readers
    allow: {{roles: [reader], actions: [infer], models: [llama]}}
    budget: little
    output: label
    parameters: short
"""
COARSE = Profile(decimals=2, top_k=2)
HELLO = [{"role": "user", "content": "Which digit is this?"}]
CHAT = {"model": "llama", "messages": HELLO}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stub, Hip, DemoIdentityProvider]]:
    directory = tmp_path_factory.mktemp("hip-openai-stub")
    identity = DemoIdentityProvider(port=1)  # never started: its keys are read from a file
    (directory / "jwks.json").write_bytes(identity.jwks())
    with running_stub() as stub:
        policy = POLICY.format(issuer=identity.issuer, audience=AUDIENCE, url=stub.url, path=PATH)
        with hip_serve(directory, policy) as hip:
            yield stub, hip, identity


@pytest.fixture
def stub(served) -> Stub:
    served[0].asked.clear()
    served[0].done, served[0].usage, served[0].breaks = True, True, ""
    return served[0]


@contextmanager
def http_as(served, role="analyst", name="alice") -> Iterator[httpx.Client]:
    _, hip, identity = served
    headers = {"authorization": f"Bearer {identity.token(name, (role,))}"}
    with httpx.Client(base_url=hip.url, verify=hip.trust(), trust_env=False, timeout=30, headers=headers) as http:
        yield http


@pytest.fixture
def http(served) -> Iterator[httpx.Client]:
    with http_as(served) as client:
        yield client


@pytest.fixture
def sdk(served) -> Iterator[openai.OpenAI]:
    _, hip, identity = served
    with httpx.Client(verify=hip.trust(), trust_env=False) as transport:
        token = identity.token("alice", ("analyst",))
        yield openai.OpenAI(base_url=f"{hip.url}/v1", api_key=token, http_client=transport, max_retries=0)


def test_the_sdk_chats_and_is_told_the_policys_name(stub, sdk):
    answer = sdk.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == "".join(TOKENS)
    assert (answer.model, answer.usage.total_tokens, answer.choices[0].logprobs) == ("llama", 16, None)
    ((_, asked),) = stub.asked
    assert (asked["model"], asked["max_tokens"]) == (PATH, 4096)


def test_the_sdk_gets_coarse_logprobs(stub, sdk):
    answer = sdk.chat.completions.create(**CHAT, logprobs=True, top_logprobs=20)
    places = answer.choices[0].logprobs.content
    assert [place.token for place in places] == list(TOKENS)
    assert {place.logprob for place in places} == {-0.02}
    assert {len(place.top_logprobs) for place in places} == {2}
    assert stub.asked[0][1]["top_logprobs"] == 3


@pytest.mark.parametrize("done", [True, False])
def test_the_sdk_streams(stub, sdk, done):
    stub.done = done
    chunks = list(sdk.chat.completions.create(**CHAT, stream=True, logprobs=True, top_logprobs=3))
    assert [chunk.choices[0].delta.content for chunk in chunks] == list(TOKENS)
    assert {chunk.model for chunk in chunks} == {"llama"}
    assert {chunk.choices[0].logprobs.content[0].logprob for chunk in chunks} == {-0.02}


def test_the_sdk_completes_and_embeds_and_lists(stub, sdk):
    answer = sdk.completions.create(model="llama", prompt="Hello", echo=True, logprobs=5)
    assert answer.choices[0].text == "Hello" + "".join(TOKENS)
    assert {len(top) for top in answer.choices[0].logprobs.top_logprobs} == {2}
    embedded = sdk.embeddings.create(model="llama", input=["a", "b"])
    assert [one.embedding for one in embedded.data] == [[0.12, -0.99, 0.5]] * 2
    assert [model.id for model in sdk.models.list()] == ["llama"]


def test_the_sdk_reads_refusals(stub, sdk):
    cases = [
        (openai.BadRequestError, {"logit_bias": {"5": 10}}),
        (openai.BadRequestError, {"extra_body": {"grammar": "root ::="}}),
        (openai.BadRequestError, {"n": 3, "extra_body": {"best_of": 9}}),
        (openai.NotFoundError, {"model": PATH}),
        (openai.NotFoundError, {"model": "../llama"}),
    ]
    for error, changes in cases:
        with pytest.raises(error):
            sdk.chat.completions.create(**(CHAT | changes))
    assert stub.asked == [], "what is refused never reaches the server"


ROADS = [
    ("chat", "/v1/chat/completions", CHAT),
    ("chat with logprobs", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 20}),
    ("chat, two choices", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2, "n": 2}),
    ("chat stream", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 20, "stream": True}),
    ("chat stream, not asked for scores", "/v1/chat/completions", CHAT | {"stream": True}),
    ("completions", "/v1/completions", {"model": "llama", "prompt": "x", "logprobs": 500}),
    ("completions with echo", "/v1/completions", {"model": "llama", "prompt": "x", "logprobs": 5, "echo": True}),
    ("completions stream", "/v1/completions", {"model": "llama", "prompt": "x", "logprobs": 5, "stream": True}),
    ("broken", "/v1/chat/completions", {"model": "llama"}),
]


@pytest.mark.parametrize(("name", "path", "body"), ROADS, ids=[road[0] for road in ROADS])
def test_the_oracle_finds_nothing(stub, http, name, path, body):
    answer = http.post(path, json=body)
    assert answer.status_code == (400 if name == "broken" else 200)
    content = re.sub(rb'"text_offset":\[[0-9,]*\]', b'"text_offset":0', answer.content)  # places, no classes
    assert findings(dict(answer.headers), content, COARSE) == []
    assert "/srv" not in answer.text


def test_the_oracle_finds_what_the_stub_tells(stub):
    """The scanner itself can fail: without the proxy it sees the digits."""
    for _, path, body in ROADS[:-1]:
        answer = httpx.post(stub.url + path, json=body, trust_env=False)
        assert findings(dict(answer.headers), answer.content, COARSE)


def test_embeddings_have_the_profiles_digits_in_both_forms(stub, http):
    for form in ("float", "base64"):
        answer = http.post("/v1/embeddings", json={"model": "llama", "input": "x", "encoding_format": form})
        (one,) = answer.json()["data"]
        numbers = one["embedding"]
        if isinstance(numbers, str):
            numbers = struct.unpack("<3f", base64.b64decode(numbers))
        assert [round(number, 6) for number in numbers] == [0.12, -0.99, 0.5]


@pytest.mark.parametrize("breaks", ["traceback", "unframed"])
def test_a_servers_words_do_not_leave(stub, http, breaks):
    stub.breaks = breaks
    answer = http.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 502
    assert "0.123" not in answer.text
    stream = CHAT | {"stream": True}
    if breaks == "traceback":
        assert http.post("/v1/chat/completions", json=stream).status_code == 502
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            http.post("/v1/chat/completions", json=stream)


CLOSED = ["/tokenize", "/detokenize", "/invocations", "/pooling", "/score", "/load_model", "/extras/tokenize", "/docs"]
CLOSED += ["/openapi.json", "/metrics", "/version", "/v1/models/llama", "/v1/rerank", "/v1/responses", "/v1/files"]


def test_everything_else_is_closed(stub, http):
    for path in CLOSED:
        assert http.post(path, json=CHAT).status_code == 404
        assert http.get(path).status_code == 404
    assert stub.asked == []


def test_without_a_token_nothing_is_told_about_models(served, stub):
    _, hip, _ = served
    for model in ("llama", "unknown"):
        body = CHAT | {"model": model}
        answer = httpx.post(f"{hip.url}/v1/chat/completions", json=body, verify=hip.trust(), trust_env=False)
        assert answer.status_code == 401


def test_tokens_are_reserved_and_then_paid_as_used(served, stub):
    """A budget of 100 tokens: a call reserves about 45 and pays 16, so that five go through before the sixth."""
    with http_as(served, "reader", "bob") as http:
        statuses = [http.post("/v1/chat/completions", json=CHAT).status_code for _ in range(8)]
        assert http.post("/v1/chat/completions", json=CHAT | {"stream": True}).status_code == 403
    granted = statuses.count(200)
    assert statuses == [200] * granted + [429] * (8 - granted)
    assert granted >= 4, "the reservation is given back"
    assert {asked["max_tokens"] for _, asked in stub.asked} == {10}
    ended = [one for one in map(json.loads, served[1].journal().splitlines()) if one["type"] == "completion"]
    assert [one["settled_tokens"] for one in ended[-granted:]] == [16] * granted


def test_a_client_that_hangs_up_leaves_its_record(served, stub, http):
    with http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
        next(answer.iter_bytes())
    for _ in range(1000):
        http.get("/health")  # gives the proxy its turn
        records = [json.loads(line) for line in served[1].journal().splitlines()]
        begun = [one["event"] for one in records if one.get("action") == "stream" and one["effect"] == "allow"]
        ended = {one["event"] for one in records if one["type"] == "completion"}
        if begun[-1] in ended:
            break
    assert set(begun) <= ended


def test_a_stream_that_the_end_of_the_proxy_cuts_is_not_the_clients_doing(tmp_path):
    identity = DemoIdentityProvider(port=1)
    (tmp_path / "jwks.json").write_bytes(identity.jwks())
    with running_stub() as stub:
        stub.breaks = "never ends"
        policy = POLICY.format(issuer=identity.issuer, audience=AUDIENCE, url=stub.url, path=PATH)
        config = CONFIG.replace("  port: 0\n  tls", "  port: 0\n  drain: 1s\n  tls")
        with hip_serve(tmp_path, policy, config) as hip, http_as((stub, hip, identity)) as http:
            with http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
                pieces = answer.iter_bytes()
                next(pieces)
                hip.process.terminate()
                with pytest.raises(httpx.TransportError):
                    list(pieces)
            hip.process.wait(30)
        ended = [one for one in map(json.loads, hip.journal().splitlines()) if one["type"] == "completion"]
        assert [one["reason"] for one in ended] == ["shutting_down"]
