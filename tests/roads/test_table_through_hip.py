"""Every line of the table in docs/dialects.md at the socket: what is open is answered under the profile, the rest has
no hit at any server."""

import json
import re

import pytest

from tests.oracle.scanner import findings
from tests.roads.place import PAGE, PROFILE, Place, body_for, usual
from tests.servers.through import leaks

LINES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| [^|]+ \| `[a-z0-9-]+` \|(?:[^|]*\|){4}$", line)
]
OPEN = [
    (line[0], line[1].strip("`"), method, path)
    for line in LINES
    for method, path in re.findall(r"`(GET|POST|PUT) (/[^`]*)`", line[3])
]
CLOSED = [(line[0], line[1].strip("`"), path) for line in LINES for path in re.findall(r"`(/[^`]*)`", line[4])]
# With a token in every method, and without one.
TRIES = [(method, True) for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS")] + [("GET", False), ("POST", False)]

# Everything else that the servers of a family have beside their scores, from their own documentation and from looking.
MANAGEMENT = {
    "oip-v2": (
        "/v2/repository/index",
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
        "/v2/repository/models/evil/load",
        "/v2/repository/m/index",
        "/v2/repository",
        "/v2/systemsharedmemory/status",
        "/v2/systemsharedmemory/region/r/status",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/systemsharedmemory/region/r/unregister",
        "/v2/systemsharedmemory/register",
        "/v2/systemsharedmemory/unregister",
        "/v2/cudasharedmemory/status",
        "/v2/cudasharedmemory/region/r/status",
        "/v2/cudasharedmemory/region/r/register",
        "/v2/cudasharedmemory/region/r/unregister",
        "/v2/cudasharedmemory/unregister",
        "/v2/trace/setting",
        "/v2/models/m/trace/setting",
        "/v2/logging",
        "/v2/models/m/config",
        "/v2/models/m/versions/1/config",
        "/v2/models/m/stats",
        "/v2/models/m/versions/1/stats",
        "/v2/models/stats",
        "/v2/models",
        "/v2/docs",
        "/v2/docs/dataplane.json",
        "/v2/models/m/docs",
        "/v2/models/m/docs/dataplane.json",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/metrics",
        "/",
    ),
    "kserve-v1": (
        "/v2/repository/index",
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
        "/v2/models/m/infer",
        "/v1/models/m/metadata",
        "/v1/models/m:explain",
        "/v1/models/m/labels/stable:predict",
        "/monitoring/prometheus/metrics",
        "/metrics",
        "/docs",
        "/openapi.json",
    ),
    "torchserve": (
        "/models",
        "/models/m",
        "/models/m/2.0/set-default",
        "/models?url=http://h/evil.mar",
        "/api-description",
        "/metrics",
        "/explanations/m",
        "/workflows",
        "/wfpredict/m",
        "/v1/models/m:predict",
        "/v2/models/m/infer",
        "/",
    ),
    "mlflow": ("/version", "/docs", "/redoc", "/openapi.json", "/metrics", "/api/2.0/mlflow/experiments/search", "/"),
    "openai": (
        "/docs",
        "/redoc",
        "/openapi.json",
        "/load_model",
        "/extras/tokenize",
        "/extras/tokenize/count",
        "/extras/detokenize",
        "/tokenize",
        "/detokenize",
        "/invocations",
        "/pooling",
        "/score",
        "/v1/score",
        "/rerank",
        "/v1/rerank",
        "/v1/responses",
        "/v1/files",
        "/v1/models/m",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/audio/transcriptions",
        "/server_info",
        "/reset_prefix_cache",
        "/sleep",
        "/wake_up",
        "/slots",
        "/props",
        "/completion",
        "/infill",
        "/generate",
        "/generate_stream",
        "/info",
        "/predict",
        "/version",
        "/metrics",
        "/-/routes",
        "/api/serve/applications/",
    ),
    "generic": ("/docs", "/docs.json", "/openapi.json", "/metrics", "/readyz", "/-/routes", "/"),
}
ALL = sorted(
    {(dialect, path) for _, dialect, path in CLOSED} | {(d, p) for d, all_ in MANAGEMENT.items() for p in all_}
)


def named(roads: Place, dialect: str, path: str) -> str:
    """Return a path of the table with the model's own name."""
    return re.sub(r"/m(?=[/:]|$)", "/" + roads.upstreams[dialect].model, path)


@pytest.mark.parametrize(("server", "dialect", "method", "path"), OPEN, ids=[f"{o[0]} {o[2]} {o[3]}" for o in OPEN])
def test_what_is_open_is_answered_and_tells_no_more_than_the_profile(roads, server, dialect, method, path):
    at = named(roads, dialect, path)
    answer = roads.ask(dialect, method, at, body_for(dialect, method, path))
    assert answer.status == 200, answer.body
    headers = {name.lower(): value for name, value in answer.headers}
    assert findings(headers, answer.body, PROFILE) == []
    assert leaks(answer) == []
    assert roads.upstreams[dialect].asked == [(method, at)]
    assert roads.hits == 1
    assert roads.ask(dialect, method, at, body_for(dialect, method, path), known=False).status == 401
    assert roads.hits == 1


SCORED = [one for one in OPEN if one[2] != "GET" and not one[3].endswith(("/completions", "/regress"))]


@pytest.mark.parametrize(("server", "dialect", "method", "path"), SCORED, ids=[f"{o[0]} {o[3]}" for o in SCORED])
def test_the_oracle_sees_what_the_servers_tell(server, dialect, method, path):
    """It can fail: what leaves a server without the proxy is more than the profile."""
    said = usual(dialect, path)
    assert findings({"content-type": said.kind or "application/json"}, said.body, PROFILE)


@pytest.mark.parametrize(("dialect", "path"), ALL, ids=[f"{dialect} {path}" for dialect, path in ALL])
def test_what_is_closed_is_refused_with_no_hit_at_any_server(roads, dialect, path):
    """Whoever asks, and however: without a token, with one, with every method. One record each, and it is a refusal."""
    at = named(roads, dialect, path)
    for method, known in TRIES:
        answer = roads.ask(dialect, method, at, b"{}" if method in {"POST", "PUT"} else b"", known=known)
        assert answer.status in {400, 401, 403, 404, 405}, (method, answer.body)
        assert [(one["type"], one["effect"]) for one in roads.records(answer)] == [("decision", "deny")]
    assert roads.hits == 0


def test_the_lists_speak_of_every_dialect(roads):
    assert set(MANAGEMENT) == set(roads.upstreams) == {line[1].strip("`") for line in LINES}
    assert len(json.dumps(ALL)) > 1000
