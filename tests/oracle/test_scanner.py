"""The oracle can see: each way in which a score may leave, found; and nothing found where nothing is."""

import gzip
import json
import struct

import pytest

from tests.oracle.scanner import Profile, findings
from tests.servers.asking import recorded

COARSE = Profile(decimals=2)
JSON = {"content-type": "application/json"}


def tensor(data, shape=None, **more):
    return json.dumps({"outputs": [{"name": "p", "shape": shape or [1, len(data)], "data": data, **more}]}).encode()


def binary(datatype, raw, shape):
    described = {"name": "p", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"outputs": [described]}).encode()
    return {"inference-header-content-length": str(len(head))}, head + raw


SEEN = [
    (JSON, b'{"p": [0.98155]}', COARSE),
    (JSON, b'{"p": [9.8155e-1]}', COARSE),
    (JSON, b'{"p": [1e-05]}', COARSE),
    (JSON, b'{"p": "0.98155:3:three"}', COARSE),
    (JSON, b'{"p": [{"a": {"b": "is .98155"}}]}', COARSE),
    (JSON, b'{"p0.98155": 1}', COARSE),
    ({"x-score": "0.98155"}, b"", COARSE),
    ({}, b"Traceback: expected 0.98155", COARSE),
    (JSON | {"content-encoding": "gzip"}, gzip.compress(b"[0.98155]", mtime=0), COARSE),
    ({"content-type": "text/event-stream"}, b'data: {"p": [0.5, 0.4, 0.1]}\n\n', Profile(top_k=1)),
    (JSON, tensor([0.9, 0.1]), Profile(label_only=True)),
    (JSON, tensor([0.7, 0.2, 0.1]), Profile(top_k=2)),
    (JSON, tensor([-1.0, -2.0, -3.0]), Profile(top_k=1)),
    (JSON, tensor([-1.0, -2.0, -3.0]), Profile(top_k=2)),
    (JSON, tensor(["0.7:3", "0.3:1"]), Profile(top_k=1)),
    (JSON, b'{"predictions": [[0.7, 0.2, 0.1]]}', Profile(top_k=2)),
    (*binary("FP32", struct.pack("<f", 0.98155), [1, 1]), COARSE),
    (*binary("FP64", struct.pack("<d", 0.98000001), [1, 1]), COARSE),
    (*binary("FP16", struct.pack("<e", 0.4567), [1, 1]), COARSE),
    (*binary("BF16", struct.pack("<f", 0.4567)[2:], [1, 1]), Profile(decimals=1)),
    (*binary("FP32", struct.pack("<3f", 0.5, 0.25, 0.25), [1, 3]), Profile(top_k=1)),
    (*binary("BYTES", struct.pack("<I", 9) + b"0.98155:0", [1, 1]), COARSE),
    ({"inference-header-content-length": "2"}, b"{}\0\0\0\0", COARSE),
]


@pytest.mark.parametrize(("headers", "body", "profile"), SEEN)
def test_it_sees(headers, body, profile):
    assert findings(headers, body, profile)


UNSEEN = [
    (JSON, tensor([0.98, 0.02, 0.0]), COARSE),
    (JSON, tensor([0.9, 0.0, 0.0]), Profile(top_k=1)),
    (JSON, tensor([-1.0, -3.0, -3.0]), Profile(top_k=1)),
    (JSON, tensor([0.11, 0.22, 0.33], [3]), Profile(decimals=2, top_k=1, rows=3)),
    (JSON, b'{"id": "9e-4c11-99e4", "shape": [1, 10, 20]}', Profile(decimals=2, top_k=1)),
    (JSON, tensor(["0.98:3:three"]), Profile(decimals=2, top_k=1)),
    (*binary("FP32", struct.pack("<3f", 0.98, 0.02, 0), [1, 3]), COARSE),
    (*binary("FP16", struct.pack("<e", 0.98), [1, 1]), COARSE),
    (*binary("BF16", struct.pack("<f", 0.5)[2:], [1, 1]), COARSE),
    (*binary("INT64", struct.pack("<q", 2**60 + 1), [1, 1]), COARSE),
    ({"ratelimit": '"few";r=3;t=0.98155'}, b"", COARSE),
]


@pytest.mark.parametrize(("headers", "body", "profile"), UNSEEN)
def test_it_sees_nothing_where_nothing_is(headers, body, profile):
    assert findings(headers, body, profile) == []


@pytest.mark.parametrize(
    ("server", "title"),
    [
        ("triton", "infer"),
        ("triton", "logits"),
        ("triton", "classification"),
        ("triton", "binary_output"),
        ("triton", "binary_classification"),
        ("triton", "binary_output_of_all"),
        ("triton", "infer_gzip"),
        ("triton", "generate"),
        ("mlserver", "predict_proba"),
        ("mlserver", "predict_proba_gzip"),
    ],
)
def test_it_sees_what_real_servers_said(server, title):
    answer = recorded(server)[title].answer
    headers = {name.lower(): value for name, value in answer.headers}
    assert findings(headers, answer.body, Profile(decimals=2))
    assert findings(headers, answer.body, Profile(top_k=1))
