"""LitServe as it comes, before the proxy stands there: chat, event streams, and what it tells of itself."""

import json

from tests.servers.asking import answered, ask, differences
from tests.servers.questions import Question
from tests.servers.running import RunningServer


def test_litserve_answers_as_recorded(litserve: RunningServer) -> None:
    assert differences(litserve) == []


def test_litserve_chats(litserve: RunningServer) -> None:
    (choice,) = answered(litserve, "chat").json()["choices"]
    assert choice["message"]["content"] == "The digit is four."


def test_litserve_streams_events(litserve: RunningServer) -> None:
    answer = answered(litserve, "chat_stream")
    assert answer.media_type == "text/event-stream"
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    said = [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1]]
    assert "".join(token or "" for token in said) == "The digit is four."


def test_litserve_echoes_the_input_and_tells_of_itself(litserve: RunningServer) -> None:
    assert '"input":{"model":"digits"}' in answered(litserve, "no_messages").text
    assert answered(litserve, "info").json()["server"]["devices"] == ["cpu"]
    for path in ("/docs", "/openapi.json"):
        assert ask(litserve.url, Question("GET", path)).status == 200
