"""Other dialects than OIP v2: the attacker's client, through a real proxy and to a server of theirs."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from test_attacks import OWN, scores
from typer.testing import CliRunner

from proxy.app import running
from proxy.cli import app
from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from proxy.demo.loopback import LoopbackServer
from proxy.simulate.lists import KSERVE_V1, MLFLOW, UnreadableError, described
from proxy.simulate.route import RouteTarget, UnusableRouteError, speech_of
from proxy.simulate.session import Stop

CONFIG = """\
version: v1
listen: {host: 127.0.0.1, port: 0, plaintext: allowed}
admin: {host: 127.0.0.1, port: 0}
policies: policy
audit: {directory: audit}
"""
POLICY = """\
version: v1
issuers:
  corp: {issuer: "ISSUER", audience: AUDIENCE, jwks_file: ../jwks.json, algorithms: [ES256],
         roles_claim: realm_access.roles}
upstreams:
  kserve: {url: "URL", dialect: kserve-v1}
  mlflow: {url: "URL", dialect: mlflow}
  own: {url: "URL", dialect: generic, generic: {infer: /ask, rows: /data/rows, scores: [/results/*/scores]}}
models:
  iris: {upstream: kserve}
  wine: {upstream: mlflow}
  rose: {upstream: own}
budgets:
  few: [100 rows/minute]
outputs:
  coarse: {decimals: 2}
rules:
  - id: analysts
    allow: {roles: [analyst], actions: [infer], models: [iris, wine, rose]}
    budget: few
    output: coarse
"""
PATHS = {"kserve-v1": "/v1/models/iris", "mlflow": "/invocations", "generic": "/ask"}
POINTERS = ("/data/rows", "/results/*/scores")


class Server(LoopbackServer):
    """Speaks all three."""

    def __init__(self) -> None:
        routes = [
            Route("/v1/models/iris:predict", self._predict, methods=["POST"]),
            Route("/invocations", self._invoke, methods=["POST"]),
            Route("/ask", self._ask, methods=["POST"]),
        ]
        super().__init__(Starlette(routes=routes))

    async def _predict(self, request: Request) -> Response:
        rows = np.asarray((await request.json())["instances"], float)
        return JSONResponse({"predictions": scores(rows).tolist()})

    async def _invoke(self, request: Request) -> Response:
        rows = np.asarray((await request.json())["inputs"], float)
        return JSONResponse({"predictions": scores(rows).tolist()})

    async def _ask(self, request: Request) -> Response:
        rows = np.asarray((await request.json())["data"]["rows"], float)
        return JSONResponse({"results": [{"scores": row} for row in scores(rows).tolist()]})


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[tuple[str, str, DemoIdentityProvider]]:
    """Return where the proxy is, where the server is, and who signs tokens."""
    identity = DemoIdentityProvider(port=1)
    (directory / "jwks.json").write_bytes(identity.jwks())
    (directory / "policy").mkdir()
    (directory / "hip.yaml").write_text(CONFIG)
    async with Server() as server:
        text = POLICY.replace("AUDIENCE", AUDIENCE).replace("ISSUER", identity.issuer).replace("URL", server.url)
        (directory / "policy" / "policy.yaml").write_text(text)
        async with running(directory / "hip.yaml") as proxy:
            yield f"http://127.0.0.1:{proxy.port}", server.url, identity


@pytest.mark.parametrize("dialect", PATHS)
async def test_the_attacker_speaks_the_routes_dialect(dialect, tmp_path) -> None:
    """Rounded scores with the defences, all digits without, and a stop when the budget is spent."""
    async with place(tmp_path) as (proxy, server, identity), httpx.AsyncClient(trust_env=False) as http:
        pointers = POINTERS if dialect == "generic" else None
        speech, features = await speech_of(http, proxy + PATHS[dialect], None, pointers)
        assert features is None
        token = identity.token("mallory", ["analyst"])
        defended = RouteTarget(http, proxy + PATHS[dialect], lambda _: token, speech, 1)
        direct = RouteTarget(http, server + PATHS[dialect], lambda _: None, speech, 64)
        rows = OWN[:5]
        told, full = await defended.ask(0, rows), await direct.ask(0, rows)
        assert not isinstance(told, Stop)
        assert not isinstance(full, Stop)
        np.testing.assert_allclose(full, scores(rows.astype(np.float32)), atol=1e-6)
        np.testing.assert_allclose(told, full, atol=0.011)
        np.testing.assert_array_equal(told, np.round(told, 2))
        assert await defended.ask(0, OWN[:99]) is Stop.BUDGET
        nobody = RouteTarget(http, proxy + PATHS[dialect], lambda _: None, speech, 1)
        assert await nobody.ask(0, rows) is Stop.REFUSED


async def test_a_route_of_another_dialect_cannot_be_used(tmp_path) -> None:
    async with place(tmp_path) as (_, server, _identity), httpx.AsyncClient(trust_env=False) as http:
        wrong = RouteTarget(http, f"{server}/ask", lambda _: None, described("/data/rows", "/predictions"), 1)
        with pytest.raises(UnusableRouteError, match="no scores where they should be"):
            await wrong.ask(0, OWN[:2])
        lost = RouteTarget(http, f"{server}/v1/models/other", lambda _: None, KSERVE_V1, 1)
        with pytest.raises(UnusableRouteError, match="404"):
            await lost.ask(0, OWN[:2])


@pytest.mark.slow
async def test_a_campaign_against_a_described_route(tmp_path) -> None:
    """The whole command in its own process: this one serves."""
    np.save(tmp_path / "rows.npy", OWN)
    async with Server() as server:
        command = [sys.executable, "-m", "proxy", "simulate", f"{server.url}/ask", "--data", str(tmp_path / "rows.npy")]
        command += ["--rows-at", POINTERS[0], "--scores-at", POINTERS[1], "--quick", "--json"]
        running = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await running.communicate()
    assert running.returncode == 0, errors.decode()
    rows = {row["attack"]: row for row in json.loads(output)["attacks"]}
    assert rows["equation solving"]["defended"]["result"] == 1.0, "nothing defends this route"


# ── the pure part ───────────────────────────────────────────────────────────────────────────────────────────────


def test_questions_and_answers() -> None:
    rows = np.array([[0.5, 1.0], [2.0, 3.0]])
    assert KSERVE_V1.question(rows) == {"instances": [[0.5, 1.0], [2.0, 3.0]]}
    assert MLFLOW.question(rows) == {"inputs": [[0.5, 1.0], [2.0, 3.0]]}
    nested = described("/a~1b/c", "/d/*/e")
    assert nested.question(rows) == {"a/b": {"c": [[0.5, 1.0], [2.0, 3.0]]}}
    answer = {"d": [{"e": [0.1, 0.9]}, {"e": [0.8, 0.2]}]}
    np.testing.assert_array_equal(nested.scores(answer, 2), [[0.1, 0.9], [0.8, 0.2]])


BAD = [None, [], {}, {"predictions": None}, {"predictions": [1, 2]}, {"predictions": [[1], [2]]}, {"predictions": "ab"}]
BAD += [{"predictions": [[0.1, 0.9]]}, {"predictions": [[0.1, 0.9], [0.1]]}, {"predictions": [["a", "b"], ["c", "d"]]}]


@pytest.mark.parametrize("answer", BAD, ids=range(len(BAD)))
def test_an_answer_without_scores_for_each_row_cannot_be_used(answer) -> None:
    with pytest.raises(UnreadableError):
        KSERVE_V1.scores(answer, 2)


@pytest.mark.parametrize(("rows", "answer"), [("inputs", "/a"), ("/*", "/a"), ("/a", "b"), ("/a", "/*/*")])
def test_pointers_that_describe_nothing(rows, answer) -> None:
    with pytest.raises(UnreadableError):
        described(rows, answer)


def test_one_pointer_alone_is_wrong_use() -> None:
    done = CliRunner().invoke(app, ["simulate", "http://127.0.0.1:1/ask", "--rows-at", "/rows"])
    assert done.exit_code == 2
    assert "or neither" in done.output
