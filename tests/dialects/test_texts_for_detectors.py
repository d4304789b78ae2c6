"""What the dialects hand to a detector of texts: all that a caller wrote, and nothing that is not text."""

import json

import pytest

from proxy.dialects.oip_v2 import OipV2
from proxy.dialects.openai import OpenAi
from proxy.errors import Malformed
from proxy.exchange import Action, Parameter, Target, Texts
from proxy.reasons import Reason

JSON = ((b"content-type", b"application/json"),)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": "x"}'}}


def openai(form: str, **body: object) -> list[bytes]:
    target = Target(Action.INFER, "m", form=form)
    allowed = {name: Parameter() for name in ("max_tokens", "n", "tools")}
    query = OpenAi().read(target, JSON, json.dumps({"model": "m", **body}).encode(), allowed)
    assert isinstance(query.features, Texts)
    return list(query.features.read())


def tensors(*inputs: tuple[list[int], list[object]]) -> list[bytes]:
    every = [
        {"name": f"x{number}", "shape": shape, "datatype": "BYTES", "data": data}
        for number, (shape, data) in enumerate(inputs)
    ]
    query = OipV2().read(Target(Action.INFER, "m"), JSON, json.dumps({"inputs": every}).encode(), {})
    assert isinstance(query.features, Texts)
    return list(query.features.read())


def test_every_message_is_a_text() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "refusal": "no", "tool_calls": [CALL]},
        {"role": "tool", "content": "ä", "tool_call_id": "1"},
    ]
    assert openai("chat", messages=messages) == [b"be brief", b"a\nb", b'no\nsearch\n{"q": "x"}', "ä".encode()]


@pytest.mark.parametrize(("form", "key"), [("completions", "prompt"), ("embeddings", "input")])
def test_every_prompt_is_a_text(form, key) -> None:
    assert openai(form, **{key: "one"}) == [b"one"]
    assert openai(form, **{key: ["one", "two"]}) == [b"one", b"two"]


def test_a_suffix_is_a_text() -> None:
    assert openai("completions", prompt=["one"], suffix="end") == [b"one", b"end"]


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]}),
        ("completions", {"prompt": [1, 2]}),
        ("completions", {"prompt": [[1, 2], [3]]}),
    ],
    ids=["image", "ids", "lists of ids"],
)
def test_what_is_no_text_is_malformed_when_a_detector_asks(form, body) -> None:
    with pytest.raises(Malformed) as caught:
        openai(form, **body)
    assert caught.value.reason is Reason.SCHEMA_MISMATCH


def test_every_row_of_tensors_of_texts_is_a_text() -> None:
    assert tensors(([2], ["a", "ä"])) == [b"a", "ä".encode()]
    assert tensors(([2, 1], [["a"], ["b"]])) == [b"a", b"b"]
    assert tensors(([2, 2], ["a", "b", "c", "d"])) == [b"a\nb", b"c\nd"]
    assert tensors(([2], ["a", "b"]), ([2, 2], ["c", "d", "e", "f"])) == [b"a\nc\nd", b"b\ne\nf"]


def test_tensors_of_different_rows_are_malformed_when_a_detector_asks() -> None:
    with pytest.raises(Malformed):
        tensors(([1], ["a"]), ([2], ["b", "c"]))


def test_texts_beside_numbers_are_nothing_for_a_detector() -> None:
    every = [
        {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]},
        {"name": "y", "shape": [1, 1], "datatype": "FP32", "data": [1.0]},
    ]
    body = json.dumps({"inputs": every}).encode()
    assert OipV2().read(Target(Action.INFER, "m"), JSON, body, {}).features is None


def test_a_text_input_is_a_text() -> None:
    allowed = {"max_tokens": Parameter(), "tensors": Parameter()}
    for body, texts in (
        ({"text_input": "hello", "max_tokens": 5}, [b"hello"]),
        ({"text_input": "hello", "x": [1.0, 2.0]}, None),
    ):
        target = OipV2().classify("POST", "/v2/models/m/generate", "")
        query = OipV2().read(target, JSON, json.dumps(body).encode(), allowed)
        assert (list(query.features.read()) if isinstance(query.features, Texts) else None) == texts
