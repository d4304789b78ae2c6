"""Journal, spans, metrics and an upstream's own count: of a real proxy, and of a journal that lost something."""

import json
import re
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from proxy.adapters.scrape import ScrapeError, read_scrape
from proxy.audit.pointers import Pointer, PointerError, pointers
from proxy.audit.reconcile import Reconciliation, Scrape, Verdict
from proxy.cli.audit import audit_app
from proxy.demo.identity import DemoIdentityProvider
from tests.hip import hip_serve

POLICY = """\
version: v1
issuers:
  corp: {{issuer: "http://127.0.0.1:1", audience: inference-proxy, jwks_file: ../jwks.json,
         algorithms: [ES256], roles_claim: realm_access.roles}}
upstreams:
  models: {{url: "{url}", dialect: oip-v2}}
models:
  digits: {{upstream: models}}
budgets:
  some: [100 requests/minute]
outputs:
  coarse: {{decimals: 2}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer, health], models: [digits]}}
    budget: some
    output: coarse
"""
ALLOWED, REFUSED = 6, 2


class Model(BaseHTTPRequestHandler):
    """Counts what it was asked."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a real proxy that has served, with `metrics.txt` as it was at the end."""
    directory = tmp_path_factory.mktemp("served")
    model = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=model.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    asked = Model.asked
    identity = DemoIdentityProvider(port=1)
    (directory / "jwks.json").write_bytes(identity.jwks())
    try:
        policy = POLICY.format(url=f"http://127.0.0.1:{model.server_address[1]}")
        with hip_serve(directory, policy) as hip, httpx.Client(verify=hip.trust(), trust_env=False) as http:
            headers = {"authorization": f"Bearer {identity.token('alice', ['analyst'])}"}
            path = f"{hip.url}/v2/models/digits/ready"
            assert [http.get(path, headers=headers).status_code for _ in range(ALLOWED)] == [200] * ALLOWED
            assert [http.get(path).status_code for _ in range(REFUSED)] == [401] * REFUSED
            with (
                socket.create_connection(("127.0.0.1", hip.port)) as raw,
                hip.trust().wrap_socket(raw, server_hostname="localhost") as line,
            ):
                line.sendall(b"NOT HTTP\r\n\r\n")
                assert line.recv(100).startswith(b"HTTP/1.1 400")
            assert [http.get(path, headers=headers).status_code] == [200]  # after it, so that the page reaches it
            (directory / "metrics.txt").write_text(http.get(f"{hip.admin_url}/metrics").text)
    finally:
        model.shutdown()
        thread.join()
        model.server_close()
    assert Model.asked == asked + ALLOWED + 1
    return directory


def run(directory: Path, verb: str, *arguments: str) -> Result:
    key = ["--public-key", str(directory / "audit" / "keys" / "audit.pub")]
    return CliRunner().invoke(audit_app, [verb, str(directory / "audit"), *arguments, *key])


def report(directory: Path, *arguments: str) -> str:
    """Return the report's section, without its markup."""
    output = directory / "report.html"
    assert run(directory, "report", "-o", str(output), *arguments).exit_code == 0
    (section,) = re.findall(r'<section id="reconciliation".*?</section>', output.read_text(), re.DOTALL)
    return re.sub(r"<[^>]+>", " ", section)


def copied(served: Path, tmp_path: Path) -> Path:
    return shutil.copytree(served, tmp_path / "copy")


def all_of_it(directory: Path, asked: int = ALLOWED + 1) -> tuple[str, ...]:
    files = ("--spans", str(directory / "spans.jsonl"), "--metrics", str(directory / "metrics.txt"))
    return (*files, "--upstream", f"models={asked}")


def test_what_a_real_proxy_left_agrees_in_every_place(served: Path) -> None:
    said = report(served, *all_of_it(served))
    assert "5 comparisons: 0 differ without an explanation, 0 could not be made" in said
    assert said.count(" agrees ") == 5


def test_without_anything_to_compare_with_it_says_so(served: Path) -> None:
    said = report(served)
    assert "Not reconciled: nothing was given to compare with" in said


def test_what_is_not_given_cannot_be_told(served: Path) -> None:
    said = report(served, "--metrics", str(served / "metrics.txt"))
    assert said.count(" cannot tell ") == 2
    assert "Not reconciled: nothing was given to compare with (--spans)" in said


def test_an_upstream_that_was_asked_behind_our_back(served: Path) -> None:
    said = report(served, *all_of_it(served, ALLOWED + 3))
    assert "The upstream counts 2 more: somebody reached it without the proxy" in said


def test_metrics_of_another_process_are_not_compared(served: Path, tmp_path: Path) -> None:
    directory = copied(served, tmp_path)
    page = directory / "metrics.txt"
    page.write_text(re.sub(r'stream="[^"]+"', 'stream="20200101T000000000Z-000000000000"', page.read_text()))
    said = report(directory, "--metrics", str(page))
    assert "the journal given has no request in stream 20200101T000000000Z-000000000000" in said


def spans_of(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "spans.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rewrite(directory: Path, change: Any) -> None:
    """Change the attributes of the first server span."""
    requests = spans_of(directory)
    first = next(
        span
        for request in requests
        for span in request["resourceSpans"][0]["scopeSpans"][0]["spans"]
        if span["kind"] == 2
    )
    change({pair["key"]: pair["value"] for pair in first["attributes"]})
    (directory / "spans.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))


def test_a_record_that_reads_otherwise_than_its_span_says(served: Path, tmp_path: Path) -> None:
    directory = copied(served, tmp_path)
    rewrite(directory, lambda told: told["hip.journal.decision.hash"].update(stringValue="0" * 64))
    assert "1 records read otherwise than their spans say" in report(directory, *all_of_it(directory))


@pytest.mark.parametrize(
    ("second", "verdict"), [("aa", Verdict.AGREES), ("bb", Verdict.DIFFERS)], ids=["same", "other"]
)
def test_two_spans_of_one_record_say_the_same_of_it(second: str, verdict: Verdict) -> None:
    found = Reconciliation()
    found.spans_given()
    for said in ("aa", second):
        found.span(Pointer("t", "i", 1, 9, "deny", "no_rule", "s", 0, said))
    found.withheld("s", 0, bytes.fromhex("aa"))
    assert found.rows()[0].verdict is verdict


def test_a_request_that_only_the_trace_store_knows(served: Path, tmp_path: Path) -> None:
    """Journal and anchor log rolled back together verify well: the spans are the witness."""
    directory = copied(served, tmp_path)
    rewrite(directory, lambda told: told["hip.journal.decision.seq"].update(intValue="99999"))
    said = report(directory, *all_of_it(directory))
    assert "1 records that spans point to are not here" in said
    assert "1 records have no span" in said


def test_lost_spans_are_explained_only_by_the_number_of_lost_ones(served: Path, tmp_path: Path) -> None:
    directory = copied(served, tmp_path)
    requests = spans_of(directory)
    spans = [span for one in requests for span in one["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    order = sorted((span for span in spans if span["kind"] == 2), key=lambda span: int(span["startTimeUnixNano"]))
    kept = [order[0], *order[2:]]  # neither first nor last: those set the time that is compared
    requests[0]["resourceSpans"][0]["scopeSpans"][0]["spans"] = kept
    (directory / "spans.jsonl").write_text(json.dumps(requests[0]) + "\n")
    alone = report(directory, "--spans", str(directory / "spans.jsonl"))
    assert "2 records have no span; spans may be lost, and without --metrics nobody can say" in alone
    assert "and the metrics count only 0 spans as lost" in report(directory, *all_of_it(directory))
    page = directory / "metrics.txt"
    page.write_text(page.read_text().replace("hip_spans_lost 0.0", "hip_spans_lost 2.0"))
    assert "the metrics count 2 spans as lost, which explains it" in report(directory, *all_of_it(directory))


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    result = run(directory, "query", sql, "--spans", str(directory / "spans.jsonl"), "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_view_sets_every_request_beside_its_span(served: Path, tmp_path: Path) -> None:
    by_finding = "SELECT found, count(*) AS n FROM reconciliation GROUP BY 1 ORDER BY 1"
    assert query(served, by_finding) == [{"found": "agrees", "n": ALLOWED + REFUSED + 1}]
    directory = copied(served, tmp_path)
    rewrite(directory, lambda told: told["hip.journal.decision.seq"].update(intValue="99999"))
    assert {row["found"] for row in query(directory, by_finding)} == {
        "agrees",
        "record without span",
        "span without record",
    }
    assert query(directory, "SELECT count(*) AS n FROM spans") == [{"n": ALLOWED + REFUSED + 1}]


@pytest.mark.parametrize(
    "arguments",
    [("--upstream", "models"), ("--upstream", "a=1", "--upstream", "a=2"), ("--upstream", "a=-1")],
    ids=["no-count", "twice", "negative"],
)
def test_a_wrong_count_ends_it(served: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(served, "report", "-o", str(tmp_path / "r.html"), *arguments)
    assert result.exit_code == 3
    assert "--upstream" in result.stderr


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b'{"resourceSpans": 7}', b"\xff" * 100, b'{"x":' + b"[" * 9_000 + b"]" * 9_000 + b"}"],
    ids=range(6),
)
def test_a_line_that_is_no_span_ends_it(served: Path, tmp_path: Path, line: bytes) -> None:
    with pytest.raises(PointerError):
        list(pointers(line))
    path = tmp_path / "spans.jsonl"
    path.write_bytes(line + b"\n")
    result = run(served, "report", "-o", str(tmp_path / "r.html"), "--spans", str(path))
    assert result.exit_code == 3
    assert "spans.jsonl:1" in result.stderr


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"up 1\n",
        b"\xff\xfe",
        b"hip_journal_records_total not-a-number\n",
        b"hip_journal_records_total NaN\n",
        b"hip_journal_records_total 1\nhip_spans_lost +Inf\n",
        b'hip_journal_records_total 1\nhip_journal_sequence{stream="a"} NaN\n',
    ],
    ids=range(7),
)
def test_a_page_that_is_not_ours_is_refused(page: bytes) -> None:
    with pytest.raises(ScrapeError):
        read_scrape("x", page)


def test_an_old_page_names_no_stream_and_cannot_be_compared() -> None:
    scrape = read_scrape("old", b"# TYPE hip_journal_records_total counter\nhip_journal_records_total 4.0\n")
    rows = Reconciliation((scrape,)).rows()
    assert [row.verdict for row in rows if row.source == "metrics old"] == [Verdict.CANNOT_TELL]


def test_workers_are_one_page() -> None:
    page = (
        'hip_journal_records_total{worker="0"} 4.0\nhip_journal_records_total{worker="1"} 5.0\n'
        'hip_journal_sequence{stream="a",worker="0"} 9.0\nhip_journal_sequence{stream="b",worker="1"} 7.0\n'
    )
    assert read_scrape("x", page.encode()) == Scrape("x", {"a": 9, "b": 7}, 9, 0, 0, 0, 0, 0)
