"""Which server a call is for: by host, by prefix, by dialect. The gateway and `hip explain` say the same."""

import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from proxy.cli import app
from proxy.cli.explain import Caller, Request, explained
from proxy.exchange import Headers
from proxy.gateway import Gateway, Snapshot
from proxy.listener.message import clean_target
from proxy.listener.rejection import Rejected
from proxy.policy.compile import compile_policy
from proxy.policy.difference import difference
from proxy.policy.model import Policy
from proxy.policy.places import OWN
from proxy.policy.route import routes
from tests.docs.test_dialects import LINES
from tests.gateway.simulators import NOW, House, call

POLICY = """
version: v1
issuers:
  corp: {issuer: "https://idp.example", audience: proxy, jwks_file: keys.json, algorithms: [ES256], roles_claim: roles}
upstreams:
  lab: {url: "http://127.0.0.1:9001", dialect: oip-v2, HOST}
  attic: {url: "http://127.0.0.1:9002", dialect: oip-v2, prefix: /attic}
  llm: {url: "http://127.0.0.1:9003", dialect: openai, HOST}
  iris-server: {url: "http://127.0.0.1:9004", dialect: mlflow, prefix: /iris}
  wine-server: {url: "http://127.0.0.1:9005/base", dialect: mlflow, prefix: /teams/wine}
  odd: {url: "http://127.0.0.1:9006", dialect: generic, prefix: /odd,
        generic: {infer: /classify, rows: /inputs, scores: [/scores], health: /live}}
  other: {url: "http://127.0.0.1:9007", dialect: generic, host: other.example.com, prefix: /other,
          generic: {infer: /judge, rows: /rows, scores: [/scores]}}
  north: {url: "http://127.0.0.1:9008", dialect: mlflow, host: north.example.com, prefix: /same}
  south: {url: "http://127.0.0.1:9009", dialect: mlflow, host: south.example.com, prefix: /same}
models:
  digits: {upstream: lab}
  old-digits: {upstream: attic}
  llama: {upstream: llm}
  iris: {upstream: iris-server}
  wine: {upstream: wine-server}
  fish: {upstream: odd}
  bird: {upstream: other}
  snow: {upstream: north}
  sand: {upstream: south}
budgets: {few: [100 requests/minute]}
outputs: {coarse: {decimals: 2}}
rules:
  - {id: r, allow: {roles: [analyst], actions: [infer, health, metadata], models: any}, budget: few, output: coarse}
"""
NO_HOST = POLICY.replace(", HOST", "")
WITH_HOST = POLICY.replace("HOST", "host: models.example.com")

CASES = [
    ("POST", "/v2/models/digits/infer", None, "lab digits"),
    ("POST", "/attic/v2/models/old-digits/infer", None, "attic old-digits"),
    ("POST", "/v2/models/old-digits/infer", None, "unknown_model"),  # it is in the attic
    ("POST", "/attic/v2/models/digits/infer", None, "unknown_model"),
    ("GET", "/v2/health/ready", None, "lab None"),  # a whole server: each place has its own
    ("GET", "/attic/v2/health/ready", None, "attic None"),
    ("POST", "/iris/invocations", None, "iris-server iris"),
    ("POST", "/teams/wine/invocations", None, "wine-server wine"),
    ("GET", "/teams/wine/ping", "anything.example", "wine-server None"),
    ("POST", "/invocations", None, "unknown_route"),
    ("POST", "/iris/iris/invocations", None, "unknown_route"),
    ("POST", "/irisinvocations", None, "unknown_route"),
    ("POST", "/iris", None, "unknown_route"),
    ("POST", "/iris/", None, "unknown_route"),
    ("POST", "/IRIS/invocations", None, "unknown_route"),
    ("POST", "/iris/v2/models/digits/infer", None, "unknown_route"),  # what is not there is not looked for elsewhere
    ("GET", "/iris/invocations", None, "method_not_allowed"),
    ("POST", "/iris/invocations?a=1", None, "malformed_message"),
    ("POST", "/odd/classify", None, "odd fish"),
    ("GET", "/odd/live", None, "odd None"),
    ("POST", "/odd/judge", None, "unknown_route"),
    ("POST", "/other/judge", "other.example.com", "other bird"),
    ("POST", "/other/judge", "OTHER.example.com:8443", "other bird"),
    ("POST", "/other/judge", "models.example.com", "unknown_route"),
    ("POST", "/other/judge", None, "unknown_route"),
    ("POST", "/other/judge", "other.example.com.", "unknown_route"),
    ("POST", "/same/invocations", "north.example.com", "north snow"),
    ("POST", "/same/invocations", "south.example.com", "south sand"),
    ("POST", "/same/invocations", "east.example.com", "unknown_route"),
    ("POST", "/same/invocations", "127.0.0.1:8443", "unknown_route"),
    ("POST", "/same/invocations", "[::1]:8443", "unknown_route"),
    ("POST", "/iris/invocations", "north.example.com", "iris-server iris"),  # it names no host: every host is its own
    ("POST", "/v1/chat/completions", None, "llm llama"),
    ("POST", "/iris/../odd/classify", None, "malformed_message"),
    ("POST", "/iris/%2e%2e/odd/classify", None, "malformed_message"),
    ("POST", "/iris%2finvocations", None, "malformed_message"),
    ("POST", "//iris/invocations", None, "malformed_message"),
    ("POST", "/iris//invocations", None, "malformed_message"),
    ("POST", "http://models.example.com/iris/invocations", None, "malformed_message"),
]
CHAT = json.dumps({"model": "llama", "messages": [{"role": "user", "content": "hello"}]}).encode()
BODY = json.dumps({"inputs": [[1.0, 2.0]]}).encode()


def fields(host: str | None) -> Headers:
    return ((b"content-type", b"application/json"), *([] if host is None else [(b"host", host.encode())]))


@cache
def compiled(text: str) -> Policy:
    return compile_policy({"policy.yaml": text.encode()})


@cache
def gateway(text: str) -> tuple[House, Gateway]:
    house = House()
    snapshot = Snapshot(compiled(text), routes(compiled(text)), {})
    house.ledger.left = 1_000_000
    return house, Gateway(replace(house.gateway._world, snapshot=lambda: snapshot))


async def by_gateway(text: str, method: str, path: str, host: str | None) -> str:
    """What the one way says, after the listener's own rule for targets."""
    try:
        clean, query = clean_target(path.encode())
    except Rejected as rejected:
        return rejected.rejection.reason
    body = CHAT if "chat" in path else BODY if method == "POST" else b""
    house, way = gateway(text)
    await way.handle(call(method, clean, query=query, headers=fields(host), body=body))
    exchange, *_ = house.observer.seen[-1]
    if exchange.grant is None:
        return exchange.reason
    return f"{exchange.grant.upstream.name} {exchange.grant.target.model}"


def by_explain(text: str, method: str, path: str, host: str | None, body: str) -> str:
    request = Request(method, path, body, host, None, None, None)
    caller = Caller(None, None, None, {"amr": ["pwd", "otp"]}, ("analyst",), None)
    story = explained(compiled(text), request, caller, "127.0.0.1", NOW)
    if not story.allowed:
        return story.reason
    what, _, upstream = story.steps[0].lines[0].rpartition(", served by upstream ")
    model = what.rpartition(" on ")[2]
    return f"{upstream} {None if model == 'the whole server' else model}"


@pytest.mark.parametrize(("method", "path", "host", "expected"), CASES)
async def test_every_call_goes_where_it_should(method: str, path: str, host: str | None, expected: str) -> None:
    assert await by_gateway(NO_HOST, method, path, host) == expected


@pytest.mark.parametrize("hosts", [False, True], ids=["without hosts", "with a host"])
async def test_explain_and_the_gateway_say_the_same(hosts: bool, tmp_path) -> None:
    """Every path with every host and method, good and bad."""
    text = WITH_HOST if hosts else NO_HOST
    (tmp_path / "body").write_bytes(CHAT)
    names = {host for _, _, host, _ in CASES} | {"models.example.com"}
    answers = set()
    for method, path, host in product(("GET", "POST"), sorted({case[1] for case in CASES}), sorted(names, key=str)):
        said = await by_gateway(text, method, path, host)
        if said == "malformed_body":  # explain does not read more of a body than its model
            continue
        assert by_explain(text, method, path, host, str(tmp_path / "body")) == said, (method, path, host)
        answers.add(said)
    assert len(answers) >= 12


@pytest.mark.parametrize("host", [None, "elsewhere.example.com", "127.0.0.1:8443", "models.example.com.evil.example"])
async def test_an_unknown_host_finds_nothing_where_hosts_are_named(host: str | None) -> None:
    for path in ("/v2/models/digits/infer", "/v1/chat/completions", "/v2/health/ready"):
        method = "GET" if "health" in path else "POST"
        assert await by_gateway(WITH_HOST, method, path, host) == "unknown_route"
        found = await by_gateway(WITH_HOST, method, path, "models.example.com:443")
        assert found.split()[0] in {"lab", "llm"}


async def test_the_server_does_not_see_the_prefix() -> None:
    house, way = gateway(NO_HOST)
    house.upstream.sent.clear()
    for path in ("/iris/ping", "/attic/v2/health/ready", "/v2/health/ready"):
        await way.handle(call("GET", path))
    assert [sent.target for sent in house.upstream.sent] == ["/ping", "/v2/health/ready", "/v2/health/ready"]


def test_two_hosts_in_one_request_are_none() -> None:
    hosts = ((b"host", b"north.example.com"), (b"host", b"south.example.com"))
    place = routes(compiled(NO_HOST)).find(hosts, "/same/invocations")
    assert place is not None  # the place of whoever names neither prefix nor host …
    assert place.name("POST", "/same/invocations", "") is None  # … where nobody has that path


def test_no_prefix_can_take_a_path_of_a_dialect() -> None:
    """Every path that docs/dialects.md calls open begins with a word that no prefix may begin with."""
    paths = [cell.strip("`").split(" ")[-1] for line in LINES for cell in line[3].split("` `")]
    described = {"classify", "healthz"}  # of the generic server on that page: `check_places` looks at those
    assert {path.strip("`").split("/")[1] for path in paths} - described <= OWN


def test_a_described_path_of_each_server_is_its_own() -> None:
    """Two generic servers, each with its own description."""
    found = routes(compiled(NO_HOST))
    odd = found.find((), "/odd/classify")
    other = found.find(((b"host", b"other.example.com"),), "/other/judge")
    assert odd is not None
    assert other is not None
    assert odd.name("POST", "/odd/classify", "") is not None
    assert other.name("POST", "/other/classify", "") is None


def test_explain_asks_for_the_body_that_names_the_model() -> None:
    with pytest.raises(typer.Exit):
        by_explain(NO_HOST, "POST", "/v1/chat/completions", None, None)  # type: ignore[arg-type]


# ── the command line ────────────────────────────────────────────────────────────────────────────────────────────────


def hip(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_explain_takes_a_host_and_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(NO_HOST)
    asked = ("explain", "POST", "/same/invocations", "--policy", str(tmp_path), "--role", "analyst", "--amr", "otp")
    code, told = hip(*asked, "--amr", "pwd", "--host", "south.example.com:8443")
    assert (code, "mlflow: infer on sand, served by upstream south" in told) == (0, True)
    code, told = hip(*asked)
    assert code == 1
    assert "under no host; --host may be north.example.com, other.example.com, south.example.com" in told
    code, told = hip(*asked, "--host", "east.example.com")
    assert (code, "under this host" in told) == (1, True)


REST = "at most 1 s, down after 2, up after 2"


def test_explain_says_where_replicas_are_and_diff_what_becomes_of_them() -> None:
    one = NO_HOST.replace(
        'wine-server: {url: "http://127.0.0.1:9005/base"', 'wine-server: {urls: ["http://127.0.0.1:9005/base"]'
    )
    two = one.replace('9005/base"]', '9005/base", "http://127.0.0.1:9105"], health: {every: 5s}')
    request = Request("POST", "/teams/wine/invocations", None, None, None, None, None)
    caller = Caller(None, None, None, {"amr": ["pwd", "otp"]}, ("analyst",), None)
    story = explained(compiled(two), request, caller, "127.0.0.1", NOW)
    assert "http://127.0.0.1:9005/base, http://127.0.0.1:9105" in story.text()
    assert difference(compiled(one), compiled(two)).parties == tuple(
        f"upstream wine-server: {change}"
        for change in (
            "replicas: http://127.0.0.1:9005/base → http://127.0.0.1:9005/base, http://127.0.0.1:9105",
            f"health: GET /ping every 2 s, {REST} → GET /ping every 5 s, {REST}",
        )
    )
