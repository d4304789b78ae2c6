"""Asking a server a question directly, keeping the answer byte for byte, and comparing it with a recorded one."""

import base64
import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.servers.questions import QUESTIONS, Question
from tests.servers.running import RunningServer

RECORDED = Path(__file__).parent / "recorded"
TIMEOUT = 30.0  # seconds
UNSTABLE = frozenset({"content-length", "date"})  # they follow ids and places


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: header names as sent, the body with its chunking undone and its content coding kept."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def media_type(self) -> str | None:
        """The content type without its parameters."""
        sent = next((value for name, value in self.headers if name.lower() == "content-type"), None)
        return sent.partition(";")[0].strip() if sent is not None else None

    @property
    def header_names(self) -> frozenset[str]:
        """The names that every answer to this question has, in lower case."""
        return frozenset(name.lower() for name, _ in self.headers) - UNSTABLE

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body read as JSON."""
        return json.loads(self.body)


def answered(server: RunningServer, title: str) -> Answer:
    """Ask a running server one of its questions."""
    return ask(server.url, QUESTIONS[server.name][title])


def ask(url: str, question: Question) -> Answer:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
    try:
        connection.request(question.method, question.path, question.body or None, dict(question.headers))
        response = connection.getresponse()
        return Answer(response.status, tuple(response.getheaders()), response.read())
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A question with the answer that a real server gave."""

    question: Question
    answer: Answer

    def to_json(self) -> dict[str, object]:
        """Return the form of the files in recorded/: see the README there."""
        return {
            "request": {
                "method": self.question.method,
                "path": self.question.path,
                "headers": self.question.headers,
                **_written(self.question.body),
            },
            "response": {
                "status": self.answer.status,
                "headers": self.answer.headers,
                **_written(self.answer.body),
            },
        }

    @classmethod
    def from_json(cls, entry: Any) -> Self:
        """Read an entry back."""
        asked, got = entry["request"], entry["response"]
        headers, received = (tuple((name, value) for name, value in part["headers"]) for part in (asked, got))
        return cls(
            Question(asked["method"], asked["path"], _read(asked), headers),
            Answer(got["status"], received, _read(got)),
        )


def recorded(server: str) -> dict[str, Recorded]:
    """Return what one server said, by the names of `questions`."""
    entries = json.loads((RECORDED / f"{server}.json").read_text())
    return {name: Recorded.from_json(entry) for name, entry in entries.items()}


def differences(server: RunningServer) -> list[str]:
    """Ask everything again; name the questions whose answer has another status, header set, type or JSON form."""
    known = recorded(server.name)
    stale = known.keys() ^ QUESTIONS[server.name].keys()
    different = [
        title
        for title, entry in known.items()
        if title not in stale
        and (
            entry.question != QUESTIONS[server.name][title]
            or _surface(title, ask(server.url, entry.question)) != _surface(title, entry.answer)
        )
    ]
    return sorted(stale) + different


def _surface(title: str, answer: Answer) -> tuple[object, ...]:
    try:
        content = _form(answer.json())
    except ValueError:  # whatever the content type says: MLflow calls plain text JSON
        content = None
    if "statistics" in title:  # they grow with what was asked before
        content = None
    return answer.status, answer.media_type, answer.header_names, content


def _form(value: object) -> object:
    """A JSON value's keys and types, without what changes from run to run."""
    if isinstance(value, dict):
        return {key: _form(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_form(entry) for entry in value]
    return type(value).__name__


def _written(body: bytes) -> dict[str, str]:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _read(part: Any) -> bytes:
    return part["text"].encode() if "text" in part else base64.b64decode(part["base64"])
