"""What is asked. A case is one request, how often and over how many connections, and which answer counts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from benchmarks.lab.setting import ANALYST, STRANGER, TRIAL
from benchmarks.lab.upstream import CHAT_MODEL, MODEL, PIXELS, ROWS_1MB, ROWS_10MB, STREAM_MODEL
from proxy.demo.digits import load_digits, scaled


class Load(Enum):
    """How it is asked."""

    CLOSED = auto()  # each connection asks as soon as it is answered: throughput
    PACED = auto()  # at a set rate, whatever the answers do: latency without coordinated omission
    HANDSHAKES = auto()  # a new connection for each request
    EVENTS = auto()  # streams


class Tokens(Enum):
    """Which token a request carries."""

    ONE = auto()
    COLD = auto()  # a pool of distinct ones in turn: the signature is verified each time
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    family: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    load: Load = Load.CLOSED
    connections: int = 32
    tokens: Tokens = Tokens.ONE
    role: str = ANALYST
    status: int = 200
    share: float = 0.5  # PACED: of the contender's own throughput at 32 connections, up to `measure.MAX_RATE`
    every_variant: bool = False  # also asked of hip with one protection off
    quick: bool = False  # part of the short run

    @property
    def needs_tokens(self) -> bool:
        """Say whether the answer means anything from a contender that checks no tokens."""
        return self.tokens is not Tokens.ONE or self.role != ANALYST


_JSON = {"content-type": "application/json"}
_SMALL, _CHAT = f"/v2/models/{MODEL}/infer", "/v1/chat/completions"


def _row() -> bytes:
    """A real digit, as a client writes it."""
    data = [round(float(value), 4) for value in scaled(load_digits().heldout[:1])[0]]
    tensor = {"name": "x", "shape": [1, PIXELS], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def _binary(rows: int) -> tuple[bytes, dict[str, str]]:
    """Real digits, repeated, as tritonclient writes them."""
    digits = np.resize(scaled(load_digits().heldout), (rows, PIXELS)).astype("<f4").tobytes()
    tensor = {
        "name": "x",
        "shape": [rows, PIXELS],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(digits)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return head + digits, headers


def _chat(model: str, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "Say sixty-four words."}]
    asked = {"model": model, "messages": messages, "max_tokens": 64}
    return json.dumps(asked | ({"stream": True} if stream else {})).encode()


def cases() -> list[Case]:
    """Return every case, in the order of the table."""
    small, chat, live = _row(), _chat(CHAT_MODEL, stream=False), _chat(STREAM_MODEL, stream=True)
    found = [
        Case("small JSON, 1 connection", "oip", _SMALL, small, _JSON, connections=1, quick=True),
        Case("small JSON, 32 connections", "oip", _SMALL, small, _JSON, every_variant=True, quick=True),
        Case("small JSON, 256 connections", "oip", _SMALL, small, _JSON, connections=256),
        Case("small JSON, half of capacity", "oip", _SMALL, small, _JSON, Load.PACED),
        Case("small JSON, cold tokens", "oip", _SMALL, small, _JSON, tokens=Tokens.COLD, quick=True),
        Case("new TLS connections", "oip", _SMALL, small, _JSON, Load.HANDSHAKES, connections=8, quick=True),
        Case("denied: no token, 401", "oip", _SMALL, small, _JSON, tokens=Tokens.NONE, status=401),
        Case("denied: role, 403", "oip", _SMALL, small, _JSON, role=STRANGER, status=403),
        Case("denied: budget, 429", "oip", _SMALL, small, _JSON | {"x-limited": "1"}, role=TRIAL, status=429),
    ]
    for rows, words in ((ROWS_1MB, "1 MB"), (ROWS_10MB, "10 MB")):
        body, headers = _binary(rows)
        path = f"/v2/models/{MODEL}-{rows}/infer"
        found.append(Case(f"{words} binary tensor, 4 connections", "oip", path, body, headers, connections=4))
    found += [
        Case("chat completion, 32 connections", "chat", _CHAT, chat, _JSON, quick=True),
        Case(
            "chat stream, 8 connections",
            "chat",
            _CHAT,
            live,
            _JSON | {"accept": "text/event-stream"},
            Load.EVENTS,
            connections=8,
        ),
    ]
    return found
