"""Forms that a request or an answer may have and that go through, at the socket: and what the server then hears."""

import gzip
import json
import subprocess
import zlib
from email import message_from_bytes
from email.policy import HTTP

import pytest

from tests.oracle.scanner import findings
from tests.roads.place import PROFILE, Place, Said, flat, tensors

INFER = "/v2/models/digits/infer"
TENSORS = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}]}'
PNG = b"\x89PNG\r\n\x1a\n\r\n--\0"


@pytest.mark.parametrize(
    ("coding", "packed"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_coding_that_nobody_asked_for_is_undone_and_hardened(roads: Place, coding: str, packed) -> None:
    roads.upstreams["oip-v2"].instead = Said(
        packed(json.dumps(tensors()).encode()), headers={"content-encoding": coding}
    )
    answer = roads.ask("oip-v2", "POST", INFER, TENSORS)
    assert answer.status == 200
    assert findings({name.lower(): value for name, value in answer.headers}, answer.body, PROFILE) == []
    assert answer.json()["outputs"][0]["data"] == [0.91, 0.07, 0.0]


def test_classes_in_outputs_of_their_own_are_one_row(roads: Place) -> None:
    for path, said, body in (
        (INFER, tensors(), TENSORS),
        ("/v2/models/digits/generate", flat(), b'{"x": [0.5, 1.5]}'),
    ):
        roads.upstreams["oip-v2"].instead = Said(json.dumps(said).encode())
        shown = roads.ask("oip-v2", "POST", path, body).json()
        named = {one["name"]: one["data"][0] for one in shown["outputs"]} if "outputs" in shown else shown
        assert [named[name] for name in "abc"] == [0.91, 0.07, 0.0]


def test_the_text_of_a_language_model_is_text_only_where_a_rule_says_so(roads: Place) -> None:
    said = "Pi is 3.14159, and e is 2.71828."
    roads.upstreams["oip-v2"].instead = Said(json.dumps({"model_name": "m", "text_output": said}).encode())
    path, body = "/v2/models/digits/generate", b'{"text_input": "What is pi?"}'
    assert roads.ask("oip-v2", "POST", path, body).status == 502
    answer = roads.ask("oip-v2", "POST", path, body, role="reader")
    assert answer.json() == {"model_name": "digits", "text_output": said}
    roads.upstreams["oip-v2"].instead = Said(b'{"model_name": "m", "text_output": ["0.9815572:0:a", "0.0071:1:b"]}')
    answer = roads.ask("oip-v2", "POST", path, body, role="reader")
    assert answer.json()["text_output"] == ["0.98:0:a", "0.01:1:b"]


def test_what_curl_sends_to_torchserve_is_written_again(roads: Place, tmp_path) -> None:
    """The first line of TorchServe's own documentation, through the proxy."""
    (tmp_path / "kitten.png").write_bytes(PNG)
    there = roads.upstreams["torchserve"]
    command = ["curl", "-sS", "-m", "20", "--cacert", roads.hip.certificates.ca.certificate]
    command += ["-H", f"host: {there.host}", "-H", f"authorization: Bearer {roads.token()}"]
    command += ["-F", f"data=@{tmp_path / 'kitten.png'}", f"{roads.hip.url}/predictions/cats"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout) == {"tabby": 0.91, "tiger_cat": 0.07}
    assert there.asked == [("POST", "/predictions/cats")]
    (body,), (kind,) = there.bodies, there.kinds
    assert b"kitten" not in body
    (part,) = message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + body, policy=HTTP).iter_parts()
    assert (part.get_content_type(), part.get_payload(decode=True)) == ("image/png", PNG)


def test_csv_has_one_reading(roads: Place) -> None:
    body = b'"a","b"\r\n"0.5","1,5"\r\n'
    answer = roads.ask("mlflow", "POST", "/invocations", body, {"content-type": "text/csv"})
    assert (answer.status, answer.json()) == (200, {"predictions": [[0.91, 0.07, 0.0]]})
    there = roads.upstreams["mlflow"]
    assert (there.bodies, there.kinds) == ([b'a,b\n0.5,"1,5"\n'], ["text/csv"])


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b""], ids=repr)
def test_an_event_stream_may_end_its_lines_as_it_likes(roads: Place, end: bytes) -> None:
    said = b"data: " + json.dumps(flat()).encode() + end
    roads.upstreams["oip-v2"].instead = Said(said, "text/event-stream")
    answer = roads.ask("oip-v2", "POST", "/v2/models/digits/generate_stream", b'{"x": [0.5, 1.5]}')
    assert answer.status == 200
    assert findings({"content-type": "text/event-stream"}, answer.body, PROFILE) == []
    assert json.loads(answer.body.removeprefix(b"data: "))["p"] == [0.91, 0.07, 0.0]
