"""The texts of a request, for a detector: each message of a chat is one, whoever's role it has; each prompt is one.

The caller wrote all of it: it can put words into the model's mouth, or behind the system's. What is repeated from turn
to turn is an exact repeat to the query sequences. Images and token ids are no text: a request that has some cannot be
judged. Not read: the fields that only a rule opens (tools, grammars).
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from proxy.dialects.openai.fields import INPUTS, ImagePart, Message
from proxy.errors import Malformed
from proxy.exchange import Texts
from proxy.reasons import Reason


def texts(form: str, fields: Mapping[str, Any]) -> Texts:
    """Return the texts of a request whose fields are what they must be."""
    return Texts(partial(_read, form, fields))


def _read(form: str, fields: Mapping[str, Any]) -> list[bytes]:
    given = fields[INPUTS[form]]
    if form == "chat":
        return ["\n".join(_said(message)).encode() for message in given]
    every = [given] if isinstance(given, str) else list(given)
    if "suffix" in fields:
        every.append(fields["suffix"])
    if not all(isinstance(text, str) for text in every):
        raise _no_text("token ids")
    return [text.encode() for text in every]


def _said(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    for part in message.content if isinstance(message.content, list) else ():
        if isinstance(part, ImagePart):
            raise _no_text("an image")
        yield part.text
    if message.refusal is not None:
        yield message.refusal
    for call in message.tool_calls or ():
        yield from (call.function.name, call.function.arguments)


def _no_text(what: str) -> Malformed:
    return Malformed(Reason.SCHEMA_MISMATCH, f"{what}, and a detector reads text")
