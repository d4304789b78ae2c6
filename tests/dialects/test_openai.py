"""OpenAI's API: what a request may ask for and what it costs, and every form in which a log-probability leaves."""

import base64
import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai import OpenAi
from proxy.dialects.openai.logprobs import UNLIKELY, harden_place
from proxy.errors import Malformed, UnsupportedMediaType, UpstreamFault
from proxy.exchange import Action, Cost, Output, Parameter, Reply, Target
from proxy.reasons import Reason

OPENAI = OpenAi()
JSON = ((b"content-type", b"application/json"),)
SSE = ((b"content-type", b"text/event-stream; charset=utf-8"),)
DEFAULTS = {word: known.default for word, known in OPENAI.parameters.items() if known.default is not None}
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}
COARSE = Output("coarse", decimals=2)
BEST = Output("best", decimals=2, top_k=1)
LABEL = Output("label", label_only=True)
HELLO = [{"role": "user", "content": "hello"}]
INPUT = {"chat": {"messages": HELLO}, "completions": {"prompt": "hello"}, "embeddings": {"input": "hello"}}


def asked(form, model="llama", served_as=None, **fields):
    """Return the target and the query of a request, as the gateway makes them."""
    allowed = fields.pop("allowed", DEFAULTS)
    body = json.dumps({"model": model, **INPUT[form], **fields}).encode()
    target = OPENAI.classify("POST", PATHS[form], "")
    target = target.complete(target, body)
    if served_as:
        target = Target(target.action, target.model, form=target.form, served_as=served_as)
    return target, OPENAI.read(target, JSON, body, allowed)


def sent(form, **fields):
    return json.loads(asked(form, **fields)[1].body)


# ── classify ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_body_names_the_model_and_the_action():
    target = OPENAI.classify("POST", PATHS["chat"], "")
    assert (target.model, target.action, target.form) == (None, Action.INFER, "chat")
    named = target.complete(target, b'{"messages":[],"model":"llama","stream":true}')
    assert named == Target(Action.STREAM, "llama", form="chat")
    for body in (b"", b"{}", b'{"model":3}', b'{"model":null}', b'{"model":"x","stream":"yes"}', b"[" * 100_000):
        with pytest.raises(Malformed):
            target.complete(target, body)


@pytest.mark.parametrize(
    "path",
    ["/tokenize", "/detokenize", "/invocations", "/pooling", "/score", "/load_model", "/extras/x", "/docs", "/metrics",
     "/openapi.json", "/v1/models/llama", "/v1/files", "/v1/responses", "/v1/audio/speech", "/rerank", "/info"],
)  # fmt: skip
def test_what_is_not_named_is_closed(path):
    assert OPENAI.classify("GET", path, "") is OPENAI.classify("POST", path, "") is None


# ── read ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_server_is_asked_for_its_own_name():
    assert json.loads(asked("chat", served_as="/srv/models/llama.gguf")[1].body)["model"] == "/srv/models/llama.gguf"


def test_what_is_safe_passes_and_null_and_false_are_nothing():
    fields = {"temperature": 0.5, "top_p": 1, "stop": ["\n"], "seed": 3, "user": "u", "top_k": 40}
    assert sent("chat", **fields, logprobs=False, tools=None, max_tokens=9) == {
        "model": "llama", "messages": HELLO, "max_tokens": 9, **fields
    }  # fmt: skip


PARTS = [
    [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}],
    [{"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}],
]  # fmt: skip


@pytest.mark.parametrize("messages", PARTS, ids=["text", "image", "tool call"])
def test_messages_may_have_parts(messages):
    assert len(sent("chat", messages=messages)["messages"]) == 1


REFUSED = [
    # name, form, fields, reason
    ("an unknown field", "chat", {"evil": 1}, Reason.FORBIDDEN_PARAMETER),
    ("echo", "completions", {"echo": True}, Reason.FORBIDDEN_PARAMETER),
    ("prompt logprobs", "completions", {"prompt_logprobs": 5}, Reason.FORBIDDEN_PARAMETER),
    ("a grammar", "chat", {"grammar": "root ::="}, Reason.FORBIDDEN_PARAMETER),
    ("guided decoding", "chat", {"guided_regex": ".*"}, Reason.FORBIDDEN_PARAMETER),
    ("a schema", "chat", {"response_format": {"type": "json_schema", "json_schema": {}}}, Reason.FORBIDDEN_PARAMETER),
    ("tools", "chat", {"tools": [{}]}, Reason.FORBIDDEN_PARAMETER),
    ("logit_bias", "chat", {"logit_bias": {"50256": 5}}, Reason.FORBIDDEN_PARAMETER),
    ("many choices", "chat", {"n": 2}, Reason.FORBIDDEN_PARAMETER),
    ("best_of is n", "completions", {"best_of": 20}, Reason.FORBIDDEN_PARAMETER),
    ("a negative count", "chat", {"max_tokens": -1}, Reason.MALFORMED_BODY),
    ("both spellings", "chat", {"max_tokens": 1, "max_completion_tokens": 1}, Reason.MALFORMED_BODY),
    ("an image to fetch", "chat", {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}]}, Reason.MALFORMED_BODY),
    ("no messages", "chat", {"messages": []}, Reason.MALFORMED_BODY),
    ("null messages", "chat", {"messages": None}, Reason.MALFORMED_BODY),
    ("an unknown role", "chat", {"messages": [{"role": "root", "content": "x"}]}, Reason.MALFORMED_BODY),
    ("inputs of two kinds", "embeddings", {"input": ["a", 3]}, Reason.MALFORMED_BODY),
    ("no input", "embeddings", {"input": []}, Reason.MALFORMED_BODY),
    ("a stream of embeddings", "embeddings", {"stream": True}, Reason.FORBIDDEN_PARAMETER),
]  # fmt: skip


@pytest.mark.parametrize(("name", "form", "fields", "reason"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_no_rule_opens_is_refused(name, form, fields, reason):
    with pytest.raises(Malformed) as caught:
        asked(form, **fields)
    assert caught.value.reason is reason


def test_a_key_twice_and_another_content_type_are_refused():
    target = Target(Action.INFER, "a", form="chat")
    twice = b'{"model":"a","messages":[{"role":"user","content":"x","content":"y"}]}'
    with pytest.raises(Malformed):
        OPENAI.read(target, JSON, twice, DEFAULTS)
    with pytest.raises(UnsupportedMediaType):
        OPENAI.read(target, ((b"content-type", b"text/plain"),), twice, DEFAULTS)
    with pytest.raises(Malformed):  # the model that was authorised is the model that is asked
        OPENAI.read(target, JSON, b'{"model":"b","messages":[{"role":"user","content":"x"}]}', DEFAULTS)


def test_counts_are_capped_or_refused_as_the_rule_says():
    capped = sent("chat", max_tokens=100_000, logprobs=True, top_logprobs=20)
    assert (capped["max_tokens"], capped["top_logprobs"]) == (4096, 5)
    assert sent("completions", logprobs=500)["logprobs"] == 5
    assert sent("chat")["max_tokens"] == 4096, "a server that is told nothing goes on for ever"
    assert sent("chat", max_completion_tokens=7) | {"messages": 0} == {
        "model": "llama", "messages": 0, "max_completion_tokens": 7
    }  # fmt: skip
    with pytest.raises(Malformed):
        asked("chat", max_tokens=9, allowed={"max_tokens": Parameter(8, cap=False)})
    assert "max_tokens" not in sent("chat", allowed={"max_tokens": Parameter()})
    assert sent("chat", allowed={})["max_tokens"] == 4096, "who may not say it gets no more than who may"


@pytest.mark.parametrize(
    ("word", "form", "fields"),
    [
        ("echo", "completions", {"echo": True}),
        ("logit_bias", "chat", {"logit_bias": {"5": 1}}),
        ("guided_decoding", "chat", {"grammar": "x"}),
        ("guided_decoding", "chat", {"response_format": {"type": "json_schema"}}),
        ("tools", "chat", {"tools": [{}], "tool_choice": "auto"}),
        ("n", "chat", {"n": 3}),
    ],
)
def test_a_rule_may_open_each(word, form, fields):
    given = sent(form, allowed=DEFAULTS | {word: Parameter()}, **fields)
    assert fields.items() <= given.items()


def test_logit_bias_never_goes_with_logprobs():
    everything = dict.fromkeys(OPENAI.parameters, Parameter())
    for form, logprobs in (("chat", True), ("completions", 0)):
        with pytest.raises(Malformed) as caught:
            asked(form, logit_bias={"5": 1}, logprobs=logprobs, allowed=everything)
        assert caught.value.reason is Reason.FORBIDDEN_PARAMETER
    assert asked("chat", logit_bias={"5": 1}, allowed=everything)


def test_a_plain_json_format_is_safe():
    assert sent("chat", response_format={"type": "json_object"})["response_format"] == {"type": "json_object"}


def test_costs_are_reserved_before():
    def cost(form, **fields):
        return asked(form, **fields)[1].cost

    assert cost("chat", max_tokens=10).rows == 1
    assert cost("chat", max_tokens=10).tokens == cost("chat", max_tokens=99).tokens - 89
    three = cost("chat", max_tokens=10, n=3, allowed=DEFAULTS | {"n": Parameter()})
    assert three.rows == 3
    assert 20 <= three.tokens - cost("chat", max_tokens=10).tokens <= 22  # `,"n":3` itself is text, too
    assert cost("completions", prompt=["a", "b"], max_tokens=10).rows == 2
    assert cost("completions", prompt=[1, 2, 3], max_tokens=10).rows == 1
    assert cost("embeddings", input=["a"] * 1000).rows == 1000
    assert cost("embeddings").tokens < 50
    image = "data:image/png;base64," + "A" * 100_000
    parts = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}]
    assert 1500 < cost("chat", messages=parts, max_tokens=10).tokens < 2000


# ── harden ──────────────────────────────────────────────────────────────────────────────────────────────────────

TOP = [("four", -0.018614919), ("five", -4.123456789), ("six", -17.34567)]
PLACE = {
    "token": "four",
    "logprob": TOP[0][1],
    "bytes": [102],
    "top_logprobs": [{"token": token, "logprob": score, "bytes": None} for token, score in TOP],
}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 3}}


def chat_reply(**changes):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "four", "reasoning_content": "hm", "tool_calls": None},
        "finish_reason": "stop",
        "logprobs": {"content": [PLACE]},
        "stop_reason": None,
    }
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "/srv/models/llama.gguf",
        "system_fingerprint": "b4-0.9815", "choices": [choice], "usage": USAGE, "prompt_logprobs": [{"1": -0.123456}],
    } | changes  # fmt: skip


def shown(form, reply, output=COARSE, **fields):
    target, query = asked(form, **fields)
    return json.loads(OPENAI.harden(target, query, Reply(200, JSON, json.dumps(reply).encode()), output).body)


def test_an_answer_is_rebuilt_from_what_is_known():
    assert shown("chat", chat_reply()) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "llama",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop", "logprobs": None}
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }


def places(output, **fields):
    return shown("chat", chat_reply(), output, logprobs=True, **fields)["choices"][0]["logprobs"]


def test_logprobs_are_rounded_as_probabilities():
    (place,) = places(COARSE, top_logprobs=3)["content"]
    assert place["logprob"] == -0.02
    assert [(one["token"], one["logprob"]) for one in place["top_logprobs"]] == [
        ("four", -0.02), ("five", round(math.log(0.02), 2)), ("six", UNLIKELY)
    ]  # fmt: skip
    assert "bytes" not in place or place["bytes"] is None


def test_no_more_alternatives_than_asked_for_or_shown():
    assert places(COARSE)["content"][0]["top_logprobs"] == []
    assert len(places(COARSE, top_logprobs=2)["content"][0]["top_logprobs"]) == 2
    assert len(places(BEST, top_logprobs=3)["content"][0]["top_logprobs"]) == 1
    assert places(LABEL, top_logprobs=3) is None


def test_the_old_form_of_logprobs_is_hardened_too():
    reply = {
        "id": "cmpl 0.98", "choices": [{"index": 0, "text": "hello four", "logprobs": {
            "tokens": ["hello", "four"], "token_logprobs": [None, TOP[1][1]], "text_offset": [0, 5],
            "top_logprobs": [None, dict(TOP)]}}],
    }  # fmt: skip
    body = shown("completions", reply, BEST, logprobs=3)
    assert body["id"] == ""
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["hello", "four"],
        "token_logprobs": [None, -0.02],  # the token "four" is the best
        "top_logprobs": [None, {"four": -0.02}],
        "text_offset": [0, 5],
    }
    assert shown("completions", reply)["choices"][0]["logprobs"] is None


def test_a_chosen_token_beside_the_best_has_no_score_of_its_own():
    assert harden_place(("six", TOP[2][1]), TOP[:2], 5, BEST) == (UNLIKELY, [("four", -0.02)])
    assert harden_place(("five", TOP[1][1]), [], 0, BEST) == (round(math.log(0.02), 2), [])
    for wrong in (0.5, float("nan")):
        with pytest.raises(ValueError, match="log-probability"):
            harden_place(("x", wrong), [], 0, COARSE)


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(-50, 0)), min_size=1, max_size=20), st.integers(0, 20))
def test_no_place_says_more_than_the_profile(scored, count):
    """Digits, classes, and the winner: the best stays the best."""
    scored = list(dict(scored).items())
    for output in (COARSE, BEST, Output("three", decimals=1, top_k=3)):
        score, others = harden_place(scored[0], scored, count, output)
        numbers = [score, *(number for _, number in others)]
        assert all(number == round(number, output.decimals) for number in numbers)
        assert len(others) <= min(count, output.top_k or count)
        alive = {(token, number) for token, number in [*others, (scored[0][0], score)] if number != UNLIKELY}
        assert len(alive) <= (output.top_k or len(alive))
        if others:
            assert others[0][0] == min(scored, key=lambda one: (-one[1], one[0]))[0]


def test_embeddings_are_quantised_in_both_forms():
    raw = [0.123456, -0.987654]
    packed = base64.b64encode(struct.pack("<2f", *raw)).decode()
    reply = {"data": [{"index": 0, "embedding": raw}, {"index": 1, "embedding": packed}], "usage": USAGE, "model": "/x"}
    body = shown("embeddings", reply, input=["a", "b"])
    assert body["model"] == "llama"
    assert body["data"][0]["embedding"] == [0.12, -0.99]
    assert base64.b64decode(body["data"][1]["embedding"]) == struct.pack("<2f", 0.12, -0.99)


BROKEN = [
    ("an error", "chat", {"error": {"message": "/srv/x.py line 3"}}),
    ("no choices", "chat", {}),
    ("more choices", "chat", chat_reply(choices=chat_reply()["choices"] * 2)),
    ("a choice without a message", "chat", chat_reply(choices=[{"index": 0}])),
    ("another role", "chat", chat_reply(choices=[{"index": 0, "message": {"role": "system"}}])),
    ("a finish reason with a number", "chat", chat_reply(choices=[{"index": 0, "message": {}, "finish_reason": "1"}])),
    ("embeddings: too many", "embeddings", {"data": [{"index": 0, "embedding": [1]}] * 2}),
    ("embeddings: not base64", "embeddings", {"data": [{"index": 0, "embedding": "0.98"}]}),
    ("embeddings: no floats", "embeddings", {"data": [{"index": 0, "embedding": "QUJD"}]}),
    ("a list", "completions", []),
]


@pytest.mark.parametrize(("name", "form", "reply"), BROKEN, ids=[case[0] for case in BROKEN])
def test_what_cannot_be_read_does_not_leave(name, form, reply):
    with pytest.raises(UpstreamFault) as caught:
        shown(form, reply)
    assert caught.value.reason is Reason.UPSTREAM_UNREADABLE


def test_usage_settles_and_zero_is_not_believed():
    target, query = asked("chat", max_tokens=1000)

    def cost(**changes):
        return OPENAI.harden(target, query, Reply(200, JSON, json.dumps(chat_reply(**changes)).encode()), COARSE).cost

    assert cost() == Cost(rows=1, tokens=12)
    for silent in (None, dict.fromkeys(USAGE, 0), USAGE | {"total_tokens": -4}, USAGE | {"total_tokens": 10**18}):
        assert 1 < cost(usage=silent).tokens < 100


def test_the_list_of_models_is_the_policys():
    target = Target(Action.METADATA, None, models=("llama", "phi"))
    query = OPENAI.read(target, (), b"", {})
    body = OPENAI.harden(target, query, Reply(200, JSON, b'{"data":[{"id":"/srv/x.gguf"}]}'), COARSE).body
    assert [model["id"] for model in json.loads(body)["data"]] == ["llama", "phi"]


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────────


def chunk(text, **changes):
    delta = {"index": 0, "delta": {"role": "assistant", "content": text}, "logprobs": {"content": [PLACE]}}
    data = {"id": "c-1", "created": 1, "model": "/srv/x.gguf", "choices": [delta], "x": 0.123456} | changes
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def streaming(output=COARSE, headers=SSE, **fields):
    target, query = asked("chat", stream=True, **fields)
    return OPENAI.stream(target, query, Reply(200, headers, b""), output)


def events(data):
    return [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]


@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b""])
def test_a_stream_is_hardened_event_by_event(done):
    hardener = streaming(logprobs=True, top_logprobs=2)
    raw = chunk("fo") + chunk("ur") + done
    found = events(b"".join(hardener.feed(raw[at : at + 7]) for at in range(0, len(raw), 7)) + hardener.end())
    assert found[2:] == (["[DONE]"] if done else [])
    first = json.loads(found[0])
    assert (first["model"], first["object"]) == ("llama", "chat.completion.chunk")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "fo"}
    assert [one["logprob"] for one in first["choices"][0]["logprobs"]["content"][0]["top_logprobs"]] == [-0.02, -3.91]
    assert "0.0186" not in "".join(found)


def test_a_stream_is_paid_as_it_flowed():
    hardener = streaming(max_tokens=1000)
    before = hardener.cost.tokens
    for _ in range(20):
        hardener.feed(chunk("x"))
    assert hardener.cost.tokens == before + 20
    hardener.feed(chunk("", choices=[], usage=USAGE))
    assert hardener.cost == Cost(rows=1, tokens=12)


def test_text_is_counted_in_bytes_wherever_it_stands():
    """What a tool is called with, and what is refused, is text too; a letter may be several bytes."""
    called = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "é" * 40}}]}
    said = ({"content": "é" * 40}, {"refusal": "x" * 80}, called, {"content": "x" * 40, "refusal": "é" * 20})
    for delta in said:
        hardener = streaming(max_tokens=1000)
        before = hardener.cost.tokens
        (found,) = events(hardener.feed(chunk("", choices=[{"index": 0, "delta": delta}])))
        assert json.loads(found)["choices"][0]["delta"] == delta
        assert hardener.cost.tokens == before + 20


@pytest.mark.parametrize(
    "raw",
    [
        b"hello 0.9815\n\n",
        b'data: {"error":{"message":"0.98"}}\n\n',
        b"data: 0.98\n\n",
        b"data: [DONE]\n\ndata: [DONE]\n\n",
        b"data: " + b"x" * (1 << 21),
    ],
    ids=["unframed", "an error", "a number", "after the end", "no end"],
)
def test_a_stream_that_cannot_be_read_is_cut(raw):
    hardener = streaming()
    with pytest.raises(UpstreamFault):
        hardener.feed(raw) + hardener.end()


def test_a_stream_begins_as_one():
    for headers in (JSON, (), (*SSE, (b"content-encoding", b"gzip"))):
        with pytest.raises(UpstreamFault):
            streaming(headers=headers)


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["choices", "usage", "id", "created", "model", "x"]), JUNK))
def test_any_chunk_is_rebuilt_or_refused(data):
    hardener = streaming()
    try:
        left = hardener.feed(b"data: " + json.dumps(data).encode() + b"\n\n")
    except UpstreamFault:
        return
    assert {"x"}.isdisjoint(json.loads(events(left)[0]))
