"""LitServe's chat with `hip serve` before it, driven by the `openai` SDK, plain and streaming."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.oracle.scanner import Profile, findings
from tests.servers.asking import ask
from tests.servers.begun import hip_init
from tests.servers.questions import QUESTIONS
from tests.servers.roads import walk
from tests.servers.running import RunningServer
from tests.servers.through import DECIMALS, Through, ask_through, hip_before, leaks

ASKED = QUESTIONS["litserve"]
SAID = "The digit is four."
HELLO = [{"role": "user", "content": "Which digit is this?"}]

STREAMERS = """\
version: v1
rules:
  - id: streamers
    allow: {roles: [streamer], actions: [infer, stream], models: [digits]}
    budget: plenty
    output: coarse
"""


@pytest.fixture(scope="session")
def through(litserve: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    directory: Path = tmp_path_factory.mktemp("hip-litserve")
    (directory / "policy").mkdir()
    (directory / "policy" / "streamers.yaml").write_text(STREAMERS)
    with hip_before(litserve, "openai", directory) as running:
        yield running


@pytest.fixture
def sdk(through: Through) -> Iterator[openai.OpenAI]:
    with httpx.Client(verify=through.hip.trust(), trust_env=False) as transport:
        token = through.token("streamer")
        yield openai.OpenAI(base_url=f"{through.hip.url}/v1", api_key=token, http_client=transport, max_retries=0)


def test_the_sdk_chats(sdk):
    answer = sdk.chat.completions.create(model="digits", messages=HELLO, temperature=0)
    assert (answer.choices[0].message.content, answer.model) == (SAID, "digits")


def test_the_sdk_streams(sdk):
    chunks = list(sdk.chat.completions.create(model="digits", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID


def test_the_sdk_is_refused_in_its_own_words(through, sdk):
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model="gpt-5", messages=HELLO)
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="nonsense").chat.completions.create(model="digits", messages=HELLO)
    analyst = sdk.with_options(api_key=through.token())
    with pytest.raises(openai.PermissionDeniedError):  # an analyst may not stream
        analyst.chat.completions.create(model="digits", messages=HELLO, stream=True)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_no_answer_leaks(through, name):
    """Every question that LitServe was asked, good and wrong."""
    with through.client(through.token("streamer", "analyst")) as http:
        answer = ask_through(http, ASKED[name])
    assert leaks(answer) == []
    headers = {header.lower(): value for header, value in answer.headers}
    assert findings(headers, answer.body, Profile(decimals=DECIMALS)) == []
    if answer.status >= 400:
        assert answer.media_type == "application/problem+json"


def test_the_scanner_sees_what_the_server_leaks(through):
    """The scanner itself can fail: without the proxy, it sees the software that answers."""
    assert leaks(ask(through.server.url, ASKED["wrong_content"]))
    assert b"devices" in ask(through.server.url, ASKED["info"]).body


def test_health_is_open_and_the_rest_is_closed(through):
    with through.client() as http:
        assert http.get("/health").status_code == 200
        for path in ("/info", "/docs", "/openapi.json", "/metrics", "/predict"):
            assert http.get(path).status_code == 404


def test_its_line_in_the_documentation_is_true(through):
    walk(through, "LitServe", "streamer")


def test_what_init_writes_serves(litserve, tmp_path):
    """LitServe lists no models and takes any name: the policy's own is `model` until somebody says another."""
    with hip_init(litserve, tmp_path / "hip") as begun:
        assert (begun.told["dialect"], begun.told["models"]) == ("openai", {"model": "model"})
        assert begun.statuses() == ("200", "401")
    with hip_init(litserve, tmp_path / "named", ["--model", "digits"]) as begun:
        answer = begun.ask(ASKED["chat"])
        assert answer.json()["choices"][0]["message"]["content"] == SAID
        assert begun.ask(ASKED["chat"], token="nonsense").status_code == 401
