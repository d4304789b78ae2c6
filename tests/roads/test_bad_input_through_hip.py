"""Bad input at the socket, from both sides: a refusal, no words of a server, its records, and no memory.

A caller's bad input reaches no server and leaves one record. A server's is 502 and leaves the pair: the decision that
was made before, and the completion that says how it ended.
"""

import gzip
import json
import math
import struct

import pytest

from tests.roads.place import CHAT, JSON, SCORES, TENSOR, Place, Said, tensors
from tests.servers.through import leaks

INFER = "/v2/models/digits/infer"
PREDICT = "/v1/models/iris:predict"
OCTETS = "application/octet-stream"
PART = b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nA\r\n--b--\r\n'
MEMORY = 64 << 20  # bytes that bad input may cost the proxy at its highest
DEEP = b"[" * 100_000 + b"]" * 100_000


def infer(**changes: object) -> bytes:
    return json.dumps({"inputs": [TENSOR | changes]}).encode()


def binary(*sizes: object, raw: bytes = struct.pack("<2f", 0.5, 1.5), end: int | None = None, **changes: object):
    """Tensors that stand behind the JSON, with the sizes that they say."""
    told = [
        {"name": f"x{at}", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}} | changes
        for at, size in enumerate(sizes)
    ]
    head = json.dumps({"inputs": told}).encode()
    length = str(len(head) if end is None else end)
    return head + raw, {"content-type": OCTETS, "inference-header-content-length": length}


CALLERS = {  # name -> dialect, path, (body, headers), statuses
    "a binary size beyond the body": ("oip-v2", INFER, binary(800), {400}),
    "a binary size that is too small": ("oip-v2", INFER, binary(4), {400}),
    "a binary size that is negative": ("oip-v2", INFER, binary(-8), {400}),
    "a binary size with a fraction": ("oip-v2", INFER, binary(8.0), {400}),
    "a binary size that is a word": ("oip-v2", INFER, binary("8"), {400}),
    "binary sizes that overlap": ("oip-v2", INFER, binary(8, 8), {400}),
    "binary sizes that take from each other": ("oip-v2", INFER, binary(16, -8), {400}),
    "a size beyond 64 bits": ("oip-v2", INFER, binary(1 << 70), {400}),
    "JSON that ends beyond the body": ("oip-v2", INFER, binary(8, end=1 << 40), {400}),
    "JSON that ends before it begins": ("oip-v2", INFER, binary(8, end=-1), {400}),
    "JSON that ends in the middle": ("oip-v2", INFER, binary(8, end=20), {400}),
    "binary NaN": ("oip-v2", INFER, binary(8, raw=struct.pack("<2f", math.nan, 0)), {400}),
    "binary infinity": ("oip-v2", INFER, binary(8, raw=struct.pack("<2f", math.inf, 0)), {400}),
    "a shape whose product overflows": ("oip-v2", INFER, (infer(shape=[1 << 62, 4]), {}), {400}),
    "a binary shape whose product overflows to its size": (
        "oip-v2", INFER, binary(8, shape=[1 << 32, 1 << 32, 2]), {400},
    ),
    "a shape that is negative twice": ("oip-v2", INFER, (infer(shape=[-1, -2]), {}), {400}),
    "a shape with nothing in it": ("oip-v2", INFER, (infer(shape=[0, 2], data=[]), {}), {400}),
    "an unknown datatype": ("oip-v2", INFER, (infer(datatype="FP128"), {}), {400}),
    "NaN": ("oip-v2", INFER, (infer(data=[math.nan, 1.0]), {}), {400}),
    "infinity": ("oip-v2", INFER, (infer(data=[math.inf, 1.0]), {}), {400}),
    "1e400": ("oip-v2", INFER, (infer().replace(b"0.5", b"1e400"), {}), {400}),
    "a key twice": ("oip-v2", INFER, (infer().replace(b'"shape"', b'"shape": [9, 9], "shape"'), {}), {400}),
    "a depth of 100,000": ("oip-v2", INFER, (b'{"inputs": ' + DEEP + b"}", {}), {400}),
    "CSV": ("oip-v2", INFER, (b"a,b\n0.5,1.5\n", {"content-type": "text/csv"}), {415}),
    "CSV called JSON": ("oip-v2", INFER, (b"a,b\n0.5,1.5\n", {}), {400}),
    "a content coding": ("oip-v2", INFER, (gzip.compress(infer()), {"content-encoding": "gzip"}), {415}),
    "more than a body may be": ("oip-v2", INFER, (b" " * (64 << 20), {}), {413}),
    "a model with a slash": ("oip-v2", "/v2/models/a/b/infer", (infer(), {}), {404}),
    "a model with an encoded slash": ("oip-v2", "/v2/models/a%2Fb/infer", (infer(), {}), {400, 404}),
    "a model that goes up": ("oip-v2", "/v2/models/../infer", (infer(), {}), {400, 404}),
    "a model that goes up, encoded": ("oip-v2", "/v2/models/%2e%2e/infer", (infer(), {}), {400, 404}),
    "a model with NUL": ("oip-v2", "/v2/models/a%00/infer", (infer(), {}), {400, 404}),
    "a model of 10 kB": ("oip-v2", f"/v2/models/{'a' * 10_240}/infer", (infer(), {}), {400, 404, 414, 431}),
    "v1: NaN": ("kserve-v1", PREDICT, (b'{"instances": [[NaN]]}', {}), {400}),
    "v1: 1e400": ("kserve-v1", PREDICT, (b'{"instances": [[1e400]]}', {}), {400}),
    "v1: a key twice": ("kserve-v1", PREDICT, (b'{"instances": [[1]], "instances": [[2], [3]]}', {}), {400}),
    "v1: a depth of 100,000": ("kserve-v1", PREDICT, (b'{"instances": ' + DEEP + b"}", {}), {400}),
    "v1: CSV": ("kserve-v1", PREDICT, (b"a,b\n1,2\n", {"content-type": "text/csv"}), {415}),
    "TorchServe: a key twice": ("torchserve", "/predictions/cats", (b'{"a": 1, "a": 2}', {}), {400}),
    "TorchServe: a depth of 100,000": ("torchserve", "/predictions/cats", (DEEP, {}), {400}),
    "TorchServe: JSON called bytes": (
        "torchserve", "/predictions/cats", (b"[[1],[2]]", {"content-type": OCTETS}), {415}
    ),
    "TorchServe: a form of two parts": (
        "torchserve", "/predictions/cats",
        (
            PART.replace(b"--b--", PART.strip()),
            {"content-type": "multipart/form-data; boundary=b"},
        ),
        {400},
    ),
    "MLflow: a key twice": ("mlflow", "/invocations", (b'{"inputs": [[1]], "inputs": [[2]]}', {}), {400}),
    "MLflow: CSV called JSON": ("mlflow", "/invocations", (b"a,b\n1,2\n", {}), {400}),
    "MLflow: CSV with NUL": ("mlflow", "/invocations", (b"a,b\n1,\x002\n", {"content-type": "text/csv"}), {400}),
    "MLflow: Parquet": (
        "mlflow", "/invocations", (b"PAR1", {"content-type": "application/vnd.apache.parquet"}), {415}
    ),
    "generic: a field beside the rows": ("generic", "/classify", (b'{"inputs": [[1]], "debug": true}', {}), {400}),
    "generic: a depth of 100,000": ("generic", "/classify", (b'{"inputs": ' + DEEP + b"}", {}), {400}),
} | {
    f"openai: {name}": ("openai", "/v1/chat/completions", (json.dumps(CHAT | changes).encode(), {}), statuses)
    for name, changes, statuses in (
        ("a model with a slash", {"model": "a/b"}, {404}),
        ("a model that goes up", {"model": "../llama"}, {404}),
        ("a model with NUL", {"model": "llama\0"}, {404}),
        ("a model of 10 kB", {"model": "l" * 10_240}, {404}),
        ("no model", {"model": None}, {400}),
        ("an address to fetch", {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}]}, {400}),
        ("logit_bias with logprobs", {"logprobs": True, "logit_bias": {"5": 1}}, {400}),
    )
} | {
    "openai: a key twice": (
        "openai", "/v1/chat/completions",
        (json.dumps(CHAT).encode().replace(b'"model"', b'"model": "llama", "model"'), {}), {400},
    ),
    "openai: a depth of 100,000": (
        "openai", "/v1/chat/completions", (b'{"model": "llama", "messages": ' + DEEP + b"}", {}), {400},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLERS)
def test_a_callers_bad_input_reaches_no_server_and_leaves_one_record(roads: Place, name: str) -> None:
    dialect, path, (body, headers), statuses = CALLERS[name]
    before = roads.peak
    answer = roads.ask(dialect, "POST", path, body, headers)
    assert answer.status in statuses
    assert answer.media_type == "application/problem+json"
    assert [(one["type"], one["effect"]) for one in roads.records(answer)] == [("decision", "deny")]
    assert roads.hits == 0
    assert roads.peak - before < MEMORY


def reply(**changes: object) -> Said:
    tensor = {"name": "p", "datatype": "FP32", "shape": [1, 3], "data": SCORES} | changes
    return Said(json.dumps({"model_name": "m", "outputs": [tensor]}).encode())


def behind(size: object, raw: bytes = struct.pack("<3f", *SCORES), end: int | None = None, **changes: object) -> Said:
    tensor = {"name": "p", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": size}} | changes
    head = json.dumps({"model_name": "m", "outputs": [tensor]}).encode()
    return Said(head + raw, OCTETS, {"Inference-Header-Content-Length": str(len(head) if end is None else end)})


def coded(body: bytes, coding: str) -> Said:
    return Said(body, JSON, {"content-encoding": coding})


BOMB = gzip.compress(b'{"model_name": "' + b"a" * (512 << 20), compresslevel=1)
NOBODY = {"a gzip bomb": coded(BOMB, "gzip"), "a body that never ends": Said(b" " * (1 << 16), JSON, endless=True)}
DEEP_ALONE = b"[" * 600 + b"0.9815572" + b"]" * 600  # a depth that JSON readers still read

SERVERS = {  # name -> dialect, path, what the server says
    f"{dialect}: {name}": (dialect, path, said)
    for dialect, path, answers in (
        (
            "oip-v2",
            INFER,
            NOBODY
            | {
                "a size beyond the body": behind(1200),
                "a size that is too small": behind(8),
                "a size that is negative": behind(-12),
                "JSON that ends beyond the body": behind(12, end=1 << 40),
                "binary NaN": behind(12, struct.pack("<3f", math.nan, 0, 0)),
                "a shape whose product overflows": reply(shape=[1 << 62, 4]),
                "a binary shape whose product overflows": behind(12, shape=[1 << 32, 1 << 32, 3]),
                "an unknown datatype": reply(datatype="FP8"),
                "a traceback": Said(b"Traceback: /srv/models/secret.py line 7", "text/plain"),
                "HTML": Said(b"<html>0.9815572</html>", "text/html"),
                "scores outside of tensors": Said(b'{"model_name": "m", "scores": [0.9815572]}'),
                "a number in a name": reply(name="p0.98155"),
                "a fraction in a string": reply(datatype="BYTES", data=["p=0.98155", "b", "c"]),
                "a depth of 100,000": Said(DEEP),
                "NaN": reply(data=[math.nan, 0, 1]),
                "1e400": Said(reply().body.replace(b"0.9123456", b"1e400")),
                "br": coded(b"\x0b\x02\x80{}\x03", "br"),
                "gzip that is none": coded(b'{"model_name": "m", "outputs": []}', "gzip"),
                "gzip of which half is missing": coded(gzip.compress(b"{}" * 999)[:-9], "gzip"),
                "two codings": coded(gzip.compress(gzip.compress(b"{}")), "gzip, gzip"),
            },
        ),
        (
            "kserve-v1",
            PREDICT,
            NOBODY
            | {
                "a depth of 600": Said(b'{"predictions": [' + DEEP_ALONE + b"]}"),
                "a depth of 900": Said(b'{"predictions": [' + b"[" * 900 + b"0.9815572" + b"]" * 900 + b"]}"),
                "more results than rows": Said(b'{"predictions": [[0.9, 0.1], [0.2, 0.8]]}'),
                "NaN": Said(b'{"predictions": [[NaN, 0.5]]}'),
            },
        ),
        (
            "torchserve",
            "/predictions/cats",
            {"text": Said(b"tabby 0.9815572", None), "a depth of 600": Said(DEEP_ALONE)},
        ),
        ("mlflow", "/invocations", {"words": Said(b'{"error_code": "X", "stack_trace": "/srv/models/secret.py"}')}),
        ("generic", "/classify", {"nothing that is named": Said(b'{"debug": 0.9815572}')}),
        ("openai", "/v1/chat/completions", {"an event stream": Said(b"data: {}\n\n", "text/event-stream")}),
    )
    for name, said in answers.items()
}
BODY = {
    "oip-v2": infer(),
    "kserve-v1": b'{"instances": [[0.5, 1.5]]}',
    "torchserve": b"[[0.5, 1.5]]",
    "mlflow": b'{"inputs": [[0.5, 1.5]]}',
    "generic": b'{"inputs": [[0.5, 1.5]]}',
    "openai": json.dumps(CHAT).encode(),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_servers_bad_answer_stays_behind_and_is_502(roads: Place, name: str) -> None:
    dialect, path, said = SERVERS[name]
    roads.upstreams[dialect].instead = said
    before = roads.peak
    answer = roads.ask(dialect, "POST", path, BODY[dialect])
    assert answer.status == 502
    assert answer.media_type == "application/problem+json"
    assert leaks(answer) == []
    decision, completion = roads.records(answer)
    assert (decision["effect"], completion["type"]) == ("allow", "completion")
    assert completion["reason"] in {"upstream_unreadable", "upstream_too_large"}
    assert roads.hits == 1
    assert roads.peak - before < MEMORY


EVENT = b"data: " + json.dumps(tensors()).encode()
STREAMS = {
    "no line ends": Said(b"data: 0.9815572 " * 4096, "text/event-stream", endless=True),
    "no event ends": Said(b"data: 0.9815572\n" * 4096, "text/event-stream", endless=True),
    "words between events": Said(EVENT + b"\n\nTraceback 0.9815572\n\n", "text/event-stream"),
    "no JSON": Said(b"data: 0.9815572 of 1\n\n", "text/event-stream"),
    "an event in two": Said(b'data: {"model_name": "m",\n\ndata: "outputs": []}\n\n', "text/event-stream"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_bad_stream_is_cut_before_what_is_bad(roads: Place, name: str) -> None:
    """A head has left already, so that the connection's torn end says it, and the completion says why."""
    roads.upstreams["oip-v2"].instead = STREAMS[name]
    before = roads.peak
    left = roads.ask_torn("oip-v2", "/v2/models/digits/infer_stream", BODY["oip-v2"])
    assert b"0.9815572" not in left
    assert left.startswith(b"HTTP/1.1 200") is (b"\r\n\r\n" in left)
    assert not left.endswith(b"0\r\n\r\n")
    records = [one for one in map(json.loads, roads.hip.journal().splitlines()) if one["type"] == "completion"]
    assert (records[-1]["reason"], roads.hits) == ("upstream_unreadable", 1)
    assert roads.peak - before < MEMORY
