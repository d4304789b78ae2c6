"""The fields of a request: what each must be, and which of them a rule has a say in. A field without a line is refused.

https://platform.openai.com/docs/api-reference, and what vLLM and llama.cpp added to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from proxy.exchange import KnownParameter, Parameter

MAX_TOKENS = 4096  # of one choice, where no rule says otherwise
MAX_ALTERNATIVES = 5  # `top_logprobs`, where no rule says otherwise

Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Number = int | float
Data = Annotated[str, msgspec.Meta(pattern="^data:image/(png|jpeg|webp|gif);base64,")]


class Image(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An image in the request itself: an address would make the model server fetch what the caller chooses."""

    url: Data
    detail: Literal["auto", "low", "high"] | None = None


class TextPart(msgspec.Struct, tag="text", forbid_unknown_fields=True):
    """A part of a message."""

    text: str


class ImagePart(msgspec.Struct, tag="image_url", forbid_unknown_fields=True):
    """A part of a message."""

    image_url: Image


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """What a model called; `arguments` is JSON that it wrote, and so a text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    """A call that a model made."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | ImagePart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a stream has beside its text."""

    include_usage: bool = False


class PlainFormat(msgspec.Struct, forbid_unknown_fields=True):
    """A `response_format` without a schema."""

    type: Literal["text", "json_object"]


Prompt = str | list[str | Count | list[Count]]  # a text, a list of token ids, or a list of either


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its type, and the word under which a rule speaks of it; without one it is always safe."""

    kind: Any  # a type that msgspec converts to
    word: str | None = None


_SAMPLING = {
    "temperature": Field(Number),
    "top_p": Field(Number),
    "top_k": Field(int),
    "min_p": Field(Number),
    "frequency_penalty": Field(Number),
    "presence_penalty": Field(Number),
    "repetition_penalty": Field(Number),
    "seed": Field(int),
    "stop": Field(str | list[str]),
    "user": Field(str),
    "stream": Field(bool),
    "stream_options": Field(StreamOptions),
    "n": Field(Count, "n"),
    "logit_bias": Field(dict[str, Number], "logit_bias"),
    # A grammar is a program for the server: a malformed one has ended llama.cpp.
    **dict.fromkeys(
        ("grammar", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "structured_outputs"),
        Field(Any, "guided_decoding"),
    ),
    "response_format": Field(Any, "guided_decoding"),  # unless it is plain: proxy.dialects.openai.requests
}

FORMS: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {
        "chat": _SAMPLING
        | {
            "messages": Field(Annotated[list[Message], msgspec.Meta(min_length=1)]),
            "max_tokens": Field(Count, "max_tokens"),
            "max_completion_tokens": Field(Count, "max_tokens"),
            "logprobs": Field(bool, "logprobs"),
            "top_logprobs": Field(Count, "top_logprobs"),
            "tools": Field(list[Any], "tools"),
            "tool_choice": Field(Any, "tools"),
            "parallel_tool_calls": Field(bool, "tools"),
        },
        "completions": _SAMPLING
        | {
            "prompt": Field(Prompt),
            "suffix": Field(str),
            "max_tokens": Field(Count, "max_tokens"),
            "logprobs": Field(Count, "top_logprobs"),
            "echo": Field(bool, "echo"),
            "best_of": Field(Count, "n"),
        },
        "embeddings": {
            "input": Field(Prompt),
            "dimensions": Field(Count),
            "encoding_format": Field(Literal["float", "base64"]),
            "user": Field(str),
        },
    }
)
INPUTS: Mapping[str, str] = MappingProxyType({"chat": "messages", "completions": "prompt", "embeddings": "input"})

PARAMETERS: Mapping[str, KnownParameter] = MappingProxyType(
    {
        "max_tokens": KnownParameter(Parameter(MAX_TOKENS), counted=True),
        "n": KnownParameter(Parameter(1, cap=False), counted=True),
        "logprobs": KnownParameter(Parameter()),
        "top_logprobs": KnownParameter(Parameter(MAX_ALTERNATIVES), counted=True),
        "echo": KnownParameter(),
        "guided_decoding": KnownParameter(),
        "logit_bias": KnownParameter(),
        "tools": KnownParameter(),
    }
)
