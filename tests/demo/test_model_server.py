"""The demo's model server: it answers as a real one does, and leaks as a real one does."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio

from proxy.demo.digits import load_digits, scaled
from proxy.demo.model_server import ModelServer

INFER = "/v2/models/digits/infer"
pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server for all that only reads


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(server: ModelServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        yield http


def question(rows: Any, datatype: str = "FP32", **more: object) -> dict[str, object]:
    rows = np.asarray(rows)
    return {
        "inputs": [{"name": "x", "shape": list(rows.shape), "datatype": datatype, "data": rows.ravel().tolist()}]
    } | more


@pytest.mark.parametrize("path", [INFER, "/v2/models/digits/versions/1/infer"])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
async def test_reads_digits(client: httpx.AsyncClient, path: str, datatype: str) -> None:
    """Its raw scores are right on 94 % of what it has never seen, and sum to one."""
    digits = load_digits()
    answer = await client.post(path, json=question(scaled(digits.heldout), datatype, id="a-1"))
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("digits", "1", "a-1")
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [898, 10])
    scores = np.array(output["data"]).reshape(output["shape"])
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert (scores.argmax(axis=1) == digits.heldout_labels).mean() > 0.94


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/digits",
        "/v2/models/digits/ready",
        "/v2/models/digits/versions/1",
        "/v2/models/digits/versions/1/ready",
    ],
)
async def test_metadata_and_health(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/other"),
        ("GET", "/v2/models/digits/versions/2"),
        ("GET", "/v2/models/other/ready"),
        ("POST", "/v2/models/other/infer"),
        ("GET", "/v2/models/other/config"),
        ("GET", "/nowhere"),
    ],
)
async def test_unknown(client: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await client.request(method, path)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}",
        json.dumps(question([[0.0] * 63])).encode(),
        json.dumps(question([[0.0] * 64], "BYTES")).encode(),
        json.dumps(question([[float("nan")] + [0.0] * 63])).encode(),
    ],
    ids=["truncated", "no inputs", "63 features", "datatype", "NaN"],
)
async def test_wrong_input_leaks_a_traceback(client: httpx.AsyncClient, body: bytes) -> None:
    """A debug mode as it is found: the proxy has a path, a library and a line to hide."""
    answer = await client.post(INFER, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 500
    assert "Traceback (most recent call last)" in answer.text
    assert "model_server.py" in answer.text


async def test_management_is_open(client: httpx.AsyncClient) -> None:
    """What no caller should see: the repository, the configuration with its path, the documentation."""
    assert (await client.post("/v2/repository/index")).json()[0]["state"] == "READY"
    assert "digits.onnx" in (await client.get("/v2/models/digits/config")).json()["path"]
    assert INFER.replace("digits", "{model}") in (await client.get("/docs")).text


async def test_headers_name_software(client: httpx.AsyncClient) -> None:
    headers = (await client.get("/v2")).headers
    assert headers["server"] == "uvicorn"
    assert headers["x-powered-by"].startswith("onnxruntime/")


async def test_counts_every_request(server: ModelServer, client: httpx.AsyncClient) -> None:
    before = server.hits
    for path in ("/v2", "/nowhere", "/v2/models/digits/config"):
        await client.get(path)
    await client.post(INFER, content=b"{")
    assert server.hits - before == 4


async def test_stops_and_starts_again_on_its_port() -> None:
    server = ModelServer()
    with pytest.raises(RuntimeError):
        _ = server.url
    await server.stop()
    await server.start()
    port = server.port
    await server.stop()
    await server.stop()
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{server.url}/v2")
        async with server:
            assert server.port == port
            assert (await http.get(f"{server.url}/v2")).status_code == 200


async def test_a_taken_port_is_an_error(server: ModelServer) -> None:
    with pytest.raises(OSError, match="in use"):
        await ModelServer(server.port).start()


async def test_runs_as_a_module_until_terminated() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy.demo.model_server", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(url)).json()["name"] == "digits"
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_runtime_sends_no_telemetry() -> None:
    """onnxruntime reads its switch when it is first imported, so it must stand before that."""
    program = (
        "import os, sys, proxy.demo.model_server as m; assert 'onnxruntime' not in sys.modules; "
        "m.ModelServer(); assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0
