"""Rebuilds an answer, or an event of a stream, from what we understand of it. What is not named here does not leave."""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec
import numpy as np

from proxy.dialects.loose_json import encode
from proxy.dialects.openai.logprobs import harden_place
from proxy.dialects.openai.requests import input_tokens, tokens
from proxy.errors import UpstreamFault
from proxy.exchange import Cost, Output, Query, Target
from proxy.hardening.scores import harden_row
from proxy.reasons import Reason

MAX_USAGE = 1 << 40  # tokens: more is not a count

T = TypeVar("T")

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


# ── what it may hold ────────────────────────────────────────────────────────────────────────────────────────────


class _Alternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: None = None  # the same token again: not repeated


class _Place(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Alternative] = []
    bytes: None = None


class _GivenAlternative(msgspec.Struct):
    token: str
    logprob: float


class _GivenPlace(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_GivenAlternative] | None = None


class _ChatLogprobs(msgspec.Struct):
    content: list[_GivenPlace] | None = None
    refusal: list[_GivenPlace] | None = None


class _TextLogprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


class _Called(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, omit_defaults=True):
    function: _Called
    index: int | None = None
    id: str | None = None
    type: Literal["function"] | None = None


class _Message(msgspec.Struct, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None

    @property
    def size(self) -> int:
        """The bytes of its text."""
        calls = [call.function.arguments or "" for call in self.tool_calls or ()]
        return sum(len(text.encode()) for text in (self.content or "", self.refusal or "", *calls))


_Finish = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class _ChatChoice(msgspec.Struct):
    index: int
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: _Finish | None = None
    logprobs: _ChatLogprobs | None = None


class _TextChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: _Finish | None = None
    logprobs: _TextLogprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class _ChatReply(msgspec.Struct):
    choices: list[_ChatChoice]
    id: str = ""
    created: int = 0
    usage: _Usage | None = None


class _TextReply(msgspec.Struct):
    choices: list[_TextChoice]
    id: str = ""
    created: int = 0
    usage: _Usage | None = None


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    usage: _Usage | None = None


_chat_decoder = msgspec.json.Decoder(_ChatReply)
_text_decoder = msgspec.json.Decoder(_TextReply)
_embeddings_decoder = msgspec.json.Decoder(_Embeddings)


# ── what becomes of it ──────────────────────────────────────────────────────────────────────────────────────────


class Shown(msgspec.Struct):
    """An answer or an event that may leave, the bytes of text in it, and what its `usage` says it is worth."""

    body: bytes
    text_bytes: int
    cost: Cost | None


def rebuilt(target: Target, query: Query, data: bytes, output: Output, *, chunk: bool) -> Shown:
    """Return what may leave of an answer, or of a chunk of one. Raise UpstreamFault(UPSTREAM_UNREADABLE)."""
    try:
        return _FORMS[target.form](target, query, data, output, chunk)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError, OverflowError) as exc:
        raise UpstreamFault(Reason.UPSTREAM_UNREADABLE, f"{target.form}: {type(exc).__name__}") from exc


def _chat(target: Target, query: Query, data: bytes, output: Output, chunk: bool) -> Shown:
    reply = _chat_decoder.decode(data)
    choices, size = [], 0
    for choice in _counted(reply.choices, query):
        said = choice.delta if chunk else choice.message
        if said is None:
            msg = "a choice without a message"
            raise ValueError(msg)
        size += said.size
        if not chunk:
            said.role = "assistant"
        choices.append(
            {
                "index": choice.index,
                ("delta" if chunk else "message"): said if chunk else {"content": None, **msgspec.to_builtins(said)},
                "finish_reason": choice.finish_reason,
                "logprobs": _chat_logprobs(choice.logprobs, query, output),
            }
        )
    kind = "chat.completion.chunk" if chunk else "chat.completion"
    return _answer(target, query, reply, {"object": kind, "choices": choices}, size)


def _text(target: Target, query: Query, data: bytes, output: Output, chunk: bool) -> Shown:  # noqa: ARG001 - one signature
    reply = _text_decoder.decode(data)
    choices = [
        {
            "index": choice.index,
            "text": choice.text,
            "finish_reason": choice.finish_reason,
            "logprobs": _text_logprobs(choice.logprobs, query, output),
        }
        for choice in _counted(reply.choices, query)
    ]
    size = sum(len(choice.text.encode()) for choice in reply.choices)
    return _answer(target, query, reply, {"object": "text_completion", "choices": choices}, size)


def _embeddings(target: Target, query: Query, data: bytes, output: Output, chunk: bool) -> Shown:  # noqa: ARG001 - one signature
    reply = _embeddings_decoder.decode(data)
    if len(reply.data) != query.cost.rows:
        msg = "not as many embeddings as inputs"
        raise ValueError(msg)
    for one in reply.data:
        one.embedding = _embedding(one.embedding, output)
    body = {"object": "list", "data": reply.data, "model": target.model, "usage": reply.usage}
    return Shown(encode(body), 0, _cost(query, reply.usage))


_FORMS = {"chat": _chat, "completions": _text, "embeddings": _embeddings}


def _answer(target: Target, query: Query, reply: _ChatReply | _TextReply, said: dict[str, object], size: int) -> Shown:
    identity = reply.id if _ID.fullmatch(reply.id) else ""
    body = {"id": identity, "created": reply.created, "model": target.model, **said}
    if reply.usage is not None:
        body["usage"] = reply.usage
    return Shown(encode(body), size, _cost(query, reply.usage))


def _counted(choices: list[T], query: Query) -> list[T]:
    if len(choices) > query.cost.rows:
        msg = "more choices than were asked for"
        raise ValueError(msg)
    return choices


def _cost(query: Query, usage: _Usage | None) -> Cost | None:
    """Return what `usage` says. Servers that do not count say 0: then there is nothing to believe."""
    if usage is None or not 0 < usage.total_tokens <= MAX_USAGE:
        return None
    return Cost(rows=query.cost.rows, tokens=usage.total_tokens)


def estimated(query: Query, text_bytes: int, events: int = 0) -> Cost:
    """Return what a request and so much text are worth, where the server does not say: an event is a token at least."""
    return Cost(rows=query.cost.rows, tokens=input_tokens(query.body) + max(events, tokens(text_bytes)))


# ── scores ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _chat_logprobs(given: _ChatLogprobs | None, query: Query, output: Output) -> object:
    if given is None or query.alternatives is None or output.label_only:
        return None
    return {
        "content": _places(given.content, query.alternatives, output),
        "refusal": _places(given.refusal, query.alternatives, output),
    }


def _places(given: Sequence[_GivenPlace] | None, count: int, output: Output) -> list[_Place] | None:
    if given is None:
        return None
    places = []
    for place in given:
        others = [(one.token, one.logprob) for one in place.top_logprobs or ()]
        score, shown = harden_place((place.token, place.logprob), others, count, output)
        places.append(_Place(place.token, score, [_Alternative(*one) for one in shown]))
    return places


def _text_logprobs(given: _TextLogprobs | None, query: Query, output: Output) -> object:
    if given is None or query.alternatives is None or output.label_only:
        return None
    count, places = query.alternatives, len(given.tokens)
    tops = given.top_logprobs if given.top_logprobs is not None else [None] * places
    if not places == len(given.token_logprobs) == len(tops):
        msg = "logprobs of different lengths"
        raise ValueError(msg)
    scores: list[float | None] = []
    shown: list[dict[str, float] | None] = []
    for token, score, top in zip(given.tokens, given.token_logprobs, tops, strict=True):
        if score is None:  # the first token of a prompt has no score
            if top:
                msg = "alternatives without a score"
                raise ValueError(msg)
            scores.append(None)
            shown.append(None)
            continue
        new, others = harden_place((token, score), list((top or {}).items()), count, output)
        scores.append(new)
        shown.append(dict(others) if top is not None else None)
    return {"tokens": given.tokens, "token_logprobs": scores, "top_logprobs": shown, "text_offset": given.text_offset}


def _embedding(given: list[float] | str, output: Output) -> list[float] | str:
    """Round each number by itself: an embedding has no classes, and so no best of them. Base64 holds float32."""
    if isinstance(given, list):
        return [harden_row([number], output)[0] for number in given]
    numbers = np.frombuffer(b64decode(given, validate=True), dtype="<f4").tolist()
    rounded = [harden_row([number], output)[0] for number in numbers]
    return b64encode(np.array(rounded, dtype="<f4").tobytes()).decode()
