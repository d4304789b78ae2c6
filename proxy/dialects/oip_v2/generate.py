"""Triton's generate extension: a flat object of names and values, answered at once or as events.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md

A list is an input tensor, and so is `text_input`. Triton takes every other scalar for a request parameter if the model
has no input of its name: so a rule must allow it. A flat list may hold many rows (Triton makes a batch of as many as
fit), which nobody here can count: so a rule must allow lists too (`tensors`), best with the length of one row. Tokens
are estimated from text, `BYTES_PER_TOKEN` each.
"""

from typing import Any

import msgspec
import numpy as np

from proxy.dialects import strict_json
from proxy.dialects.oip_v2 import columns, replies, requests, tensors
from proxy.dialects.oip_v2.datatypes import Unreadable
from proxy.dialects.parameters import permitted
from proxy.errors import Malformed, UpstreamFault
from proxy.exchange import Cost, Features, Headers, Output, Parameters, Query, Target, Texts
from proxy.hardening.text import harden_prose, harden_text
from proxy.reasons import Reason

BYTES_PER_TOKEN = 4  # of English text; an estimate errs on the caller's side for most others
TEXT = "text_input"  # the input that the extension itself names

_decoder = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def tokens(text_bytes: int) -> int:
    """Return the estimate for so much text."""
    return -(-text_bytes // BYTES_PER_TOKEN)


def read(headers: Headers, body: bytes, allowed: Parameters) -> Query:
    """Read a flat request; MLServer takes the body of `/infer` here, and so do we."""
    requests.require_media_type(headers)
    given = strict_json.decode(_decoder, body)
    strict_json.refuse_duplicates(body, _encode(given))
    inputs = given.get("inputs")
    if isinstance(inputs, list) and any(isinstance(one, dict) for one in inputs):
        return requests.read(headers, body, allowed)
    if not 0 < len(given) <= tensors.MAX_TENSORS or any(len(name) > tensors.MAX_NAME for name in given):
        raise Malformed(detail="number or length of names")
    identity = given.get("id")
    if identity is not None and not (isinstance(identity, str) and len(identity) <= tensors.MAX_NAME):
        raise Malformed(detail="id")
    tables: list[Features | None] = []
    for name, value in given.items():
        if isinstance(value, list):
            tables.append(_table(value, allowed))
        elif name == "parameters" and isinstance(value, dict):
            given[name] = {key: _scalar(key, one, allowed) for key, one in value.items()}
        elif name not in {"id", TEXT}:
            given[name] = _scalar(name, value, allowed)
        elif not isinstance(value, str):
            raise Malformed(detail=f"{name} is not a string")
    numbers = tables[0] if len(tables) == 1 else None
    text = given.get(TEXT)
    features = Texts(lambda: [text.encode()]) if isinstance(text, str) and not tables else numbers
    return Query(
        cost=Cost(
            rows=1 if numbers is None else len(numbers), tokens=0 if text is None else tokens(len(text.encode()))
        ),
        body=_encode(given),
        headers=tensors.JSON,
        features=features,
        id=identity,
        prose=requests.TEXT in allowed,
    )


def rebuilt(target: Target, query: Query, json: bytes, output: Output) -> bytes:
    """Return what may leave of one flat reply."""
    answer = _decoder.decode(json)
    if "error" in answer:
        raise UpstreamFault(Reason.UPSTREAM_ERROR, "an error inside an answer")
    if isinstance(answer.get("outputs"), list) and any(isinstance(one, dict) for one in answer["outputs"]):
        return replies.rebuilt(target, query, json, memoryview(b""), output).body
    if len(answer) > tensors.MAX_TENSORS:
        raise Unreadable("number of outputs")
    ours = replies.head(target, query)
    told = {key: value for key, value in answer.items() if key not in replies.NAMED}
    shown = {
        replies.name(key): replies.flat_value(value, output, harden_prose if query.prose else harden_text)
        for key, value in columns.harden_values(told, output).items()
    }
    return _encode({**ours, **shown})


def _scalar(name: str, value: object, allowed: Parameters) -> bool | int | float | str:
    if not isinstance(value, bool | int | float | str) or name.startswith(requests.NEVER):
        raise Malformed(Reason.FORBIDDEN_PARAMETER, "a parameter that no rule allows")
    return permitted(name, value, allowed)


def _table(value: list[Any], allowed: Parameters) -> Features | None:
    """Return numbers as (rows, numbers), None for strings; a flat list counts as one row."""
    try:
        flat = tensors.leaves(value)
    except Unreadable as exc:
        raise Malformed(Reason.MALFORMED_BODY, str(exc)) from exc
    if permitted("tensors", len(flat), allowed) != len(flat):
        raise Malformed(Reason.FORBIDDEN_PARAMETER, "a list that is longer than the rule allows")
    kinds = set(map(type, flat))
    if not flat or not (kinds <= {int, float} or kinds in ({str}, {bool})):
        raise Malformed(detail="a list that is not of numbers, strings or booleans")
    if kinds == {str}:
        return None
    rows = len(value) if isinstance(value[0], list) else 1
    if len(flat) % rows:
        raise Malformed(detail="rows of different lengths")
    try:
        with np.errstate(over="ignore"):  # beyond FP32: infinite here, and refused by the detector's gate
            return np.array(flat, dtype=np.float64).astype(np.float32).reshape(rows, -1)
    except OverflowError as exc:
        raise Malformed(detail="a number beyond float64") from exc
