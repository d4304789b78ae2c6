"""Reads a request: which model and action it is about, what it may ask for, and what it may cost."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from proxy.dialects import loose_json, strict_json
from proxy.dialects.openai.fields import FORMS, INPUTS, MAX_TOKENS, PlainFormat
from proxy.dialects.openai.texts import texts
from proxy.dialects.parameters import permitted
from proxy.errors import Malformed
from proxy.exchange import Action, Cost, Headers, Parameter, Parameters, Query, Target
from proxy.reasons import Reason

BYTES_PER_TOKEN = 4  # of English text; an estimate errs on the caller's side for most others
IMAGE_TOKENS = 1500  # what an image may cost: about a large one in high detail

_UNSAID = Parameter(MAX_TOKENS)  # where no caller may say `max_tokens`: the server is told, or it goes on for ever
_IMAGE = re.compile(rb'"data:image/[a-z]+;base64,[^"]*"')


class _Named(msgspec.Struct):
    """What the path does not say."""

    model: str
    stream: bool | None = None


_named_decoder = msgspec.json.Decoder(_Named)
_decoder = msgspec.json.Decoder(dict[str, Any])


def complete(target: Target, body: bytes) -> Target:
    """Return the target with the model that the body names, as a stream if the body wants one."""
    named = strict_json.decode(_named_decoder, body)
    action = Action.STREAM if named.stream else target.action
    return replace(target, model=named.model, action=action, complete=None)


def read(target: Target, headers: Headers, body: bytes, allowed: Parameters) -> Query:
    """Return what may be forwarded of a request that says the same as `complete` was told. Raise Malformed."""
    loose_json.require_json(headers)
    document = strict_json.decode(_decoder, body)
    strict_json.refuse_duplicates(body, loose_json.encode(document))
    if document.pop("model", None) != target.model or bool(document.get("stream")) != (target.action is Action.STREAM):
        raise Malformed(detail="a body that was read in two ways")
    given = {name: value for name, value in document.items() if value is not None and value is not False}
    if INPUTS[target.form] not in given:
        raise Malformed(detail=f"no {INPUTS[target.form]}")
    fields = {name: _field(target.form, name, value, allowed) for name, value in given.items()}
    alternatives = _alternatives(target.form, fields, allowed)
    choices = max(1, fields.get("n", 1), fields.get("best_of", 1))
    prompts = _prompts(fields[INPUTS[target.form]])
    generated = 0 if target.form == "embeddings" else prompts * choices * _limit(fields, allowed)
    encoded = loose_json.encode({"model": target.served_as or target.model, **fields})
    return Query(
        Cost(rows=prompts * choices, tokens=input_tokens(encoded) + generated),
        encoded,
        loose_json.JSON_HEADERS,
        texts(target.form, fields),
        alternatives=alternatives,
    )


def tokens(text_bytes: int) -> int:
    """Return the estimate for so much text."""
    return -(-text_bytes // BYTES_PER_TOKEN)


def input_tokens(body: bytes) -> int:
    """Return the estimate for a forwarded body: its text, and its images by the piece."""
    text, images = _IMAGE.subn(b"", body)
    return tokens(len(text)) + images * IMAGE_TOKENS


def _field(form: str, name: str, value: object, allowed: Parameters) -> Any:
    """Return a field as it may be forwarded."""
    field = FORMS[form].get(name)
    if field is None:
        raise Malformed(Reason.FORBIDDEN_PARAMETER, "a field that nobody knows")
    if name == "response_format" and _is(value, PlainFormat):
        return value
    try:
        typed = msgspec.convert(value, field.kind)
    except msgspec.ValidationError as exc:
        raise Malformed(detail=f"{name} is of another kind") from exc
    if field.word is None:
        return typed
    if isinstance(typed, int) and not isinstance(typed, bool):
        return permitted(field.word, typed, allowed)
    permitted(field.word, "", allowed)  # not a count: yes or no
    return typed


def _is(value: object, kind: type) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _alternatives(form: str, fields: Mapping[str, Any], allowed: Parameters) -> int | None:
    """Return how many scores a place in the answer may have; None: none at all."""
    if "logprobs" not in fields:
        return None
    permitted("logprobs", "", allowed)
    if fields.get("logit_bias"):
        # Together they read out a model's last layer (Carlini et al. 2024): no rule opens that.
        raise Malformed(Reason.FORBIDDEN_PARAMETER, "logit_bias together with logprobs")
    return int(fields.get("top_logprobs", 0) if form == "chat" else fields["logprobs"])


def _limit(fields: dict[str, Any], allowed: Parameters) -> int:
    """Return how many tokens a choice may have, and see to it that the server knows."""
    given = [name for name in ("max_tokens", "max_completion_tokens") if name in fields]
    if len(given) == 2:
        raise Malformed(detail="max_tokens in both spellings")
    if given:
        return int(fields[given[0]])
    rule = allowed.get("max_tokens", _UNSAID)
    if rule.most is None:
        return MAX_TOKENS  # an estimate: what flows is what is paid in the end
    fields["max_tokens"] = rule.most
    return rule.most


def _prompts(value: Any) -> int:
    """Return how many inputs there are: several texts, or several lists of token ids. Messages are one chat."""
    kinds = set(map(type, value)) if isinstance(value, list) else {str}
    if len(kinds) != 1:
        raise Malformed(detail="no input, or inputs of several kinds")
    return len(value) if isinstance(value, list) and kinds <= {str, list} else 1
