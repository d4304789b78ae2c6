"""Rebuilds an answer, or an event of a stream, from what we understand of it. What is not named here does not leave."""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

import msgspec
import numpy as np

from proxy.dialects.loose_json import encode
from proxy.dialects.openai.logprobs import ChatLogprobs, TextLogprobs, chat_logprobs, text_logprobs
from proxy.dialects.openai.requests import input_tokens, tokens
from proxy.errors import UpstreamFault
from proxy.exchange import Cost, Output, Query, Target
from proxy.hardening.scores import harden_row
from proxy.reasons import Reason

MAX_USAGE = 1 << 40  # tokens: more is not a count

T = TypeVar("T")

_is_id = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


# ── what it may hold ────────────────────────────────────────────────────────────────────────────────────────────


def _bytes(text: str | None) -> int:
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode())


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
        size = _bytes(self.content) + _bytes(self.refusal)
        if self.tool_calls is not None:
            size += sum([_bytes(call.function.arguments) for call in self.tool_calls])
        return size


_Finish = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class _ChatChoice(msgspec.Struct):
    index: int
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: _Finish | None = None
    logprobs: ChatLogprobs | None = None


class _TextChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: _Finish | None = None
    logprobs: TextLogprobs | None = None


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


# ── what leaves ─────────────────────────────────────────────────────────────────────────────────────────────────


class _ShownDelta(msgspec.Struct):
    index: int
    delta: _Message
    finish_reason: _Finish | None
    logprobs: object


class _ShownText(msgspec.Struct):
    index: int
    text: str
    finish_reason: _Finish | None
    logprobs: object


_Choice: TypeAlias = _ShownDelta | _ShownText | Mapping[str, object]


class _Shown(msgspec.Struct):
    id: str
    created: int
    model: str | None
    object: str
    choices: Sequence[_Choice]
    usage: _Usage | msgspec.UnsetType = msgspec.UNSET


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
    choices: list[_Choice] = []
    size = 0
    for choice in _counted(reply.choices, query):
        said = choice.delta if chunk else choice.message
        if said is None:
            msg = "a choice without a message"
            raise ValueError(msg)
        size += said.size
        scores = chat_logprobs(choice.logprobs, query.alternatives, output)
        if chunk:
            choices.append(_ShownDelta(choice.index, said, choice.finish_reason, scores))
            continue
        said.role = "assistant"
        message = {"content": None, **msgspec.to_builtins(said)}
        rest = {"finish_reason": choice.finish_reason, "logprobs": scores}
        choices.append({"index": choice.index, "message": message, **rest})
    return _answer(target, query, reply, "chat.completion.chunk" if chunk else "chat.completion", choices, size)


def _text(target: Target, query: Query, data: bytes, output: Output, chunk: bool) -> Shown:  # noqa: ARG001 - one signature
    reply = _text_decoder.decode(data)
    choices = [
        _ShownText(
            choice.index, choice.text, choice.finish_reason, text_logprobs(choice.logprobs, query.alternatives, output)
        )
        for choice in _counted(reply.choices, query)
    ]
    size = sum([_bytes(choice.text) for choice in reply.choices])
    return _answer(target, query, reply, "text_completion", choices, size)


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


def _answer(
    target: Target, query: Query, reply: _ChatReply | _TextReply, kind: str, choices: Sequence[_Choice], size: int
) -> Shown:
    identity = reply.id if _is_id(reply.id) else ""
    shown = _Shown(identity, reply.created, target.model, kind, choices)
    if reply.usage is None:
        return Shown(encode(shown), size, None)
    shown.usage = reply.usage
    return Shown(encode(shown), size, _cost(query, reply.usage))


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


def _embedding(given: list[float] | str, output: Output) -> list[float] | str:
    """Round each number by itself: an embedding has no classes, and so no best of them. Base64 holds float32."""
    if isinstance(given, list):
        return [harden_row([number], output)[0] for number in given]
    numbers = np.frombuffer(b64decode(given, validate=True), dtype="<f4").tolist()
    rounded = [harden_row([number], output)[0] for number in numbers]
    return b64encode(np.array(rounded, dtype="<f4").tobytes()).decode()
