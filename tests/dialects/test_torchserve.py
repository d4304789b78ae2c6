"""TorchServe: predictions in JSON and in bytes, and answers without a content type."""

import json

import pytest

from proxy.dialects.torchserve import TorchServe
from proxy.errors import Malformed, UnsupportedMediaType, UpstreamFault
from proxy.exchange import Action, Output, Reply, Target

TORCH = TorchServe()
JSON = ((b"content-type", b"application/json"),)
INFER = Target(Action.INFER, "cats")
BEST = Output("best", decimals=2, top_k=1)


def kind(value):
    return ((b"content-type", value),)


def test_the_table_names_three_actions_and_closes_the_rest():
    assert TORCH.classify("POST", "/predictions/cats", "") == INFER
    assert TORCH.classify("PUT", "/predictions/cats/2.0", "") == Target(Action.INFER, "cats", "2.0")
    assert TORCH.classify("GET", "/ping", "").action is Action.HEALTH
    closed = ("/models", "/models/cats", "/api-description", "/", "/metrics", "/explanations/cats", "/v2/models")
    assert [TORCH.classify("OPTIONS", path, "") for path in closed] == [None] * len(closed)


def test_json_is_counted_and_bytes_are_one_row():
    batch = TORCH.read(INFER, JSON, b'{"instances":[[1,2],[3,4]]}', {})
    assert (batch.cost.rows, batch.features.tolist()) == (2, [[1, 2], [3, 4]])
    assert TORCH.read(INFER, JSON, b"[[1,2],[3,4],[5,6]]", {}).cost.rows == 3
    assert TORCH.read(INFER, JSON, b'{"text":"hello"}', {}).cost.rows == 1
    image = TORCH.read(INFER, kind(b"image/png"), b"\x89PNG", {})
    assert (image.cost.rows, image.headers) == (1, kind(b"image/png"))
    assert image.features.read() == [image.body]


def test_json_under_another_name_is_refused():
    """It would pay for one row, whatever is in it."""
    for name, body in ((b"text/plain", b" [1,2]"), (b"application/octet-stream", b'{"a":1}')):
        with pytest.raises(UnsupportedMediaType):
            TORCH.read(INFER, kind(name), body, {})
    for coding in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32"):  # as `json.loads` reads bytes
        with pytest.raises(UnsupportedMediaType):
            TORCH.read(INFER, kind(b"text/plain"), "[[1,2],[3,4]]".encode(coding), {})
    for headers in ((), kind(b"multipart/form-data"), kind(b"text/html")):
        with pytest.raises(UnsupportedMediaType):
            TORCH.read(INFER, headers, b"x", {})
    for body in (b"[]", b"{", b'{"a":1,"a":2}'):
        with pytest.raises(Malformed):
            TORCH.read(INFER, JSON, body, {})


@pytest.mark.parametrize("headers", [(), JSON])
def test_answers_are_hardened_with_and_without_a_content_type(headers):
    query = TORCH.read(INFER, kind(b"image/png"), b"\x89PNG", {})
    raw = {"tabby": 0.466149, "tiger_cat": 0.46449, "lynx": 0.001}
    reply = Reply(200, headers, json.dumps(raw, indent=2).encode())
    assert json.loads(TORCH.harden(INFER, query, reply, BEST).body) == {"tabby": 0.47}
    with pytest.raises(UpstreamFault):
        TORCH.harden(INFER, query, Reply(200, headers, b"tabby 0.466149"), BEST)
    with pytest.raises(UpstreamFault):
        TORCH.harden(INFER, query, Reply(200, kind(b"text/plain"), b"1"), BEST)


def test_a_batch_is_hardened_row_by_row():
    query = TORCH.read(INFER, JSON, b"[[1],[2]]", {})
    reply = Reply(200, (), b"[[0.123456,0.876544],[0.9,0.1]]")
    assert json.loads(TORCH.harden(INFER, query, reply, BEST).body) == [[0.0, 0.88], [0.9, 0.0]]
    health = TORCH.harden(Target(Action.HEALTH, None), query, Reply(200, (), b'{"status":"Partial"}'), BEST)
    assert health.body == b'{"status":"Healthy"}'
