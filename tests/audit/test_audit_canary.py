"""Secrets put into every channel that a caller or a model server has, of a real proxy: found nowhere it writes.

Every channel has a canary of its own, so that a failure names the channel. A canary is looked for as it is, and in the
spellings under which a careless writer would keep it. The roles of a token are no secret, and on record: one of them
shows that what is kept would be found.
"""

import base64
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from test_audit_reconcile import POLICY, run

from proxy.demo.identity import DemoIdentityProvider
from tests.hip import Hip, hip_serve

ROLE = "analyst"


class Canaries(dict[str, str]):
    """A secret for each channel that is asked for: lower case, so that a host or header name may carry it."""

    def __missing__(self, channel: str) -> str:
        self[channel] = f"canary{len(self):02d}{channel}"
        return self[channel]


CANARY = Canaries()


class Quoting(BaseHTTPRequestHandler):
    """A model server that fails, and quotes all that it was asked in a traceback: the worst that it can do."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        words = f"{self.requestline}\n{self.headers}\n{body.decode('utf-8', 'replace')}"
        answer = (
            "Traceback (most recent call last):\n"
            f'  File "/models/{CANARY["path"]}/handlers.py", line 7, in {CANARY["function"]}\n'
            f"ValueError: {CANARY['exception']} {words}"
        ).encode()
        self.send_response(500, CANARY["phrase"])
        self.send_header("content-type", f"text/plain; charset={CANARY['charset']}")
        self.send_header("x-model", CANARY["answerheader"])
        self.send_header("set-cookie", f"session={CANARY['answercookie']}")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815 - the name that the base class looks for

    def log_message(self, *_: object) -> None:
        pass


def spoken(hip: Hip, identity: DemoIdentityProvider) -> list[int]:
    """Ask with a secret in every place that a request has; return the answers' status."""
    good = identity.token(CANARY["subject"], [ROLE], jti=CANARY["jti"], email=CANARY["claim"])
    headers = {
        "authorization": f"Bearer {good}",
        "cookie": f"session={CANARY['cookie']}",
        "user-agent": CANARY["agent"],
        "referer": f"https://{CANARY['referer']}.example/",
        "x-api-key": CANARY["key"],
        "x-forwarded-for": CANARY["forwarded"],
        "x-request-id": CANARY["requestid"],
        "baggage": f"user={CANARY['baggage']}",
        "tracestate": f"vendor={CANARY['tracestate']}",
        f"x-{CANARY['headername']}": "1",
    }
    infer = {
        "id": CANARY["id"],
        "parameters": {CANARY["parametername"]: CANARY["parameter"]},
        "inputs": [{"name": CANARY["input"], "datatype": "BYTES", "shape": [1], "data": [CANARY["data"]]}],
    }
    plain = {"inputs": [{"name": CANARY["input"], "datatype": "FP32", "shape": [1, 1], "data": [0.5]}]}
    path = f"{hip.url}/v2/models/digits/infer"
    unknown = identity.token(CANARY["refusedsubject"], [CANARY["role"]])
    stranger = DemoIdentityProvider(port=1).token(CANARY["forgedsubject"], [ROLE], jti=CANARY["forgedjti"])
    nonsense = [f"Bearer {CANARY['nonsense']}", f"Basic {CANARY['basic']}", CANARY["scheme"]]
    answers = []
    with httpx.Client(verify=hip.trust(), trust_env=False) as http:
        for body in (infer, plain):
            answers.append(http.post(path, json=body, headers=headers))
        answers.append(http.post(f"{path}?q={CANARY['query']}", json=plain, headers=headers))
        answers.append(http.post(path, content=f'{{"inputs": [{CANARY["malformed"]}', headers=headers))
        answers.append(http.post(path, content=gzip.compress(CANARY["packed"].encode()), headers=headers))
        answers.append(http.get(f"{hip.url}/{CANARY['url']}/{CANARY['url']}", headers=headers))
        answers.append(http.post(f"{hip.url}/v2/models/digits/versions/1/{CANARY['verb']}", headers=headers))
        answers.append(http.request(CANARY["method"].upper(), path, headers=headers))
        answers += [
            http.post(path, json=plain, headers={"authorization": word})
            for word in (f"Bearer {unknown}", f"Bearer {stranger}", *nonsense)
        ]
    for message in (
        f"GET /{CANARY['line']} HTTP/9.9\r\n\r\n",
        f"{CANARY['nohttp']}\r\n\r\n",
        f"GET / HTTP/1.1\r\nhost: a\r\n{CANARY['badheader']} : x\r\n\r\n",
        f"GET / HTTP/1.1\r\nhost: {CANARY['host']}\r\nhost: b\r\n\r\n",
        f"GET / HTTP/1.1\r\nhost: a\r\nx: {'1' * (1 << 20)}{CANARY['megabyte']}\r\n\r\n",
    ):
        raw_line(hip, message.encode())
    return [answer.status_code for answer in answers]


def raw_line(hip: Hip, message: bytes) -> None:
    """Send bytes that no client library would send, and wait until something comes back."""
    with (
        socket.create_connection(("127.0.0.1", hip.port)) as raw,
        hip.trust().wrap_socket(raw, server_hostname="localhost") as line,
    ):
        try:
            line.sendall(message)
            line.recv(65_536)
        except OSError:  # closed on us, while we were sending
            return


def spellings(canary: str) -> Iterator[bytes]:
    raw = canary.encode()
    yield raw
    yield raw.upper()
    yield raw.hex().encode()
    yield quote(canary, safe="").encode()
    for start in range(3):  # base64 of something that begins, or ends, with it
        middle = base64.b64encode(b"x" * start + raw)[4:-4]
        yield middle
        yield middle.replace(b"+", b"-").replace(b"/", b"_")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a real proxy that was told secrets, with a report and exports of its journal."""
    directory = tmp_path_factory.mktemp("canary")
    model = ThreadingHTTPServer(("127.0.0.1", 0), Quoting)
    thread = threading.Thread(target=model.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    identity = DemoIdentityProvider(port=1)
    (directory / "jwks.json").write_bytes(identity.jwks())
    try:
        policy = POLICY.format(url=f"http://127.0.0.1:{model.server_address[1]}")
        with hip_serve(directory, policy) as hip:
            answers = spoken(hip, identity)
            (directory / "metrics.txt").write_text(httpx.get(f"{hip.admin_url}/metrics", trust_env=False).text)
    finally:
        model.shutdown()
        thread.join()
        model.server_close()
    assert 502 in answers, answers  # the model server has spoken
    assert {400, 401, 403, 404} <= set(answers), answers
    assert run(directory, "report", "-o", str(directory / "report.html")).exit_code == 0
    for kind in ("csv", "otlp", "ocsf", "parquet"):
        assert run(directory, "export", "--format", kind, "-o", str(directory / f"export.{kind}")).exit_code == 0
    return directory


def files(directory: Path) -> dict[str, bytes]:
    """Everything that was written, apart from what the test itself wrote."""
    ours = {"policy", "certs", "jwks.json", "hip.yaml"}
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.relative_to(directory).parts[0] not in ours
    }


def test_no_secret_is_in_anything_that_was_written(written: Path) -> None:
    found = files(written)
    assert {"anchors.jsonl", "spans.jsonl", "hip.log", "report.html", "metrics.txt", "export.csv"} <= set(found)
    assert len(CANARY) > 35
    kept = {
        (name, channel)
        for name, data in found.items()
        for channel, canary in CANARY.items()
        if any(spelling in data for spelling in spellings(canary))
    }
    journal = next(name for name in found if name.startswith("2"))
    assert (journal, "role") in kept
    assert {(name, channel) for name, channel in kept if channel != "role"} == set()


def test_what_was_refused_and_what_failed_is_on_record_all_the_same(written: Path) -> None:
    """The journal is silent about secrets, not about requests: and it names the fault behind the quoting server."""
    lines = [
        json.loads(line) for path in (written / "audit").glob("2*.jsonl") for line in path.read_text().splitlines()
    ]
    decisions = [line for line in lines if line["type"] == "decision"]
    reasons = {line["reason"] for line in decisions}
    assert {"allowed", "no_rule", "malformed_message"} <= reasons, reasons
    failed = [line for line in lines if line["type"] == "completion" and line["reason"] == "upstream_error"]
    assert failed
    assert all(line["upstream_error"]["errors"] == ["ValueError"] for line in failed)
    assert run(written, "verify").exit_code == 0
