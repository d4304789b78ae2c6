"""One file in a form: as clients write it, as it is forwarded, and everything that is not it."""

import subprocess
import threading
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.torchserve import TorchServe
from proxy.errors import Malformed, UnsupportedMediaType
from proxy.exchange import Action, Cost, Target

TORCH = TorchServe()
INFER = Target(Action.INFER, "cats")
PNG = b"\x89PNG\r\n\x1a\n\r\n--\0"
TYPE = b"multipart/form-data; boundary=b"
PLAIN = b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nabc\r\n--b--\r\n'


def read(kind, body):
    return TORCH.read(INFER, ((b"content-type", kind),), body, {})


def parts(query):
    """What a reader that we did not write finds in what is forwarded."""
    ((_, kind),) = query.headers
    found = message_from_bytes(b"content-type: " + kind + b"\r\n\r\n" + query.body, policy=HTTP)
    assert not found.defects
    return [
        (one.get_param("name", header="content-disposition"), one.get_content_type(), one.get_payload(decode=True))
        for one in found.iter_parts()
    ]


@pytest.mark.parametrize("kind", ["image/png", "text/plain", "application/octet-stream"])
def test_what_a_stock_client_writes_is_read_and_written_again(kind):
    asked = httpx.Request("POST", "http://h/", files={"data": ("kitten \u00e9.png", PNG, kind)})
    query = read(asked.headers["content-type"].encode(), asked.read())
    assert parts(query) == [("data", kind, PNG)]
    assert (query.cost, query.features.read()) == (Cost(rows=1), [PNG])
    assert b"kitten" not in query.body


class Catcher(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.caught = self.headers["content-type"], self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


def test_what_curl_writes_is_read(tmp_path):
    """The first line of TorchServe's own documentation: `curl URL -F "data=@kitten.png"`."""
    (tmp_path / "kitten.png").write_bytes(PNG)
    with HTTPServer(("127.0.0.1", 0), Catcher) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        command = ["curl", "-sS", "-m", "20", "-F", f"data=@{tmp_path / 'kitten.png'}"]
        subprocess.run([*command, f"http://127.0.0.1:{server.server_port}/predictions/cats"], check=True)
        serving.join()
    kind, body = server.caught
    assert parts(read(kind.encode(), body)) == [("data", "image/png", PNG)]


def test_a_plain_form_is_read():
    assert parts(read(TYPE, PLAIN)) == [("data", "application/octet-stream", b"abc")]
    assert parts(read(b'Multipart/Form-Data;boundary="b"', PLAIN.removesuffix(b"\r\n"))) == [
        ("data", "application/octet-stream", b"abc")
    ]


REFUSED = [
    ("no boundary", b"multipart/form-data", PLAIN),
    ("another boundary", b"multipart/form-data; boundary=c", PLAIN),
    ("two boundaries", TYPE + b"; boundary=c", PLAIN),
    ("a boundary in halves", b"multipart/form-data; boundary*0=b", PLAIN),
    ("an empty body", TYPE, b""),
    ("nothing but an end", TYPE, b"--b--\r\n"),
    ("no end", TYPE, PLAIN[:-8]),
    ("a preamble", TYPE, b"x\r\n" + PLAIN),
    ("an epilogue", TYPE, PLAIN + b"x"),
    ("two parts", TYPE, PLAIN[:-8] + b"\r\n" + PLAIN),
    ("a boundary inside", TYPE, PLAIN.replace(b"abc", b"a--bc")),
    ("another name", TYPE, PLAIN.replace(b'"data"', b'"body"')),
    ("a name twice", TYPE, PLAIN.replace(b'"data"', b'"data"; name="body"')),
    ("a name in another coding", TYPE, PLAIN.replace(b'name="data"', b"name*=utf-8''data")),
    ("no name", TYPE, PLAIN.replace(b'; name="data"', b"")),
    ("no head", TYPE, b"--b\r\n\r\nabc\r\n--b--\r\n"),
    (
        "a head twice",
        TYPE,
        PLAIN.replace(b"\r\n\r\nabc", b'\r\nContent-Disposition: form-data; name="data"\r\n\r\nabc'),
    ),
    ("another head", TYPE, PLAIN.replace(b"\r\n\r\nabc", b"\r\nX-Model: b\r\n\r\nabc")),
    ("a folded head", TYPE, PLAIN.replace(b'; name="data"', b';\r\n name="data"')),
    ("base64", TYPE, PLAIN.replace(b"\r\n\r\nabc", b"\r\nContent-Transfer-Encoding: base64\r\n\r\nabc")),
    ("bare line feeds", TYPE, PLAIN.replace(b"\r\n", b"\n")),
    ("no content", TYPE, PLAIN.replace(b"abc", b"")),
    ("JSON inside", TYPE, PLAIN.replace(b"abc", b" [[1],[2]]")),
    ("JSON inside, called so", TYPE, PLAIN.replace(b"\r\n\r\nabc", b"\r\nContent-Type: application/json\r\n\r\n1")),
    ("a form inside", TYPE, PLAIN.replace(b"\r\n\r\nabc", b"\r\nContent-Type: multipart/mixed\r\n\r\nabc")),
]


@pytest.mark.parametrize(("name", "kind", "body"), REFUSED, ids=[case[0] for case in REFUSED])
def test_every_other_form_is_refused(name, kind, body):
    with pytest.raises((Malformed, UnsupportedMediaType)):
        read(kind, body)


PIECES = st.sampled_from(
    [
        b"--b",
        b"--b--",
        b"\r\n",
        b"\n",
        b"abc",
        b'Content-Disposition: form-data; name="data"',
        b": ",
        b"\0",
        b'"',
        PLAIN,
    ]
)


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_whatever_comes_one_reading_leaves(body):
    try:
        query = read(TYPE, body)
    except (Malformed, UnsupportedMediaType):
        return
    ((name, _, content),) = parts(query)
    assert name == "data"
    assert content in body
