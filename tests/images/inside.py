"""Runs in the container's network, beside it: a model server, a caller, and what they saw as one line of JSON.

    inside.py ask JOURNEY     the model server answers; the caller asks with a token, without one, and for a repository
    inside.py drain JOURNEY   the model server answers only once the proxy says that it drains

JOURNEY is a file with the caller's token and the CA that signed the proxy's certificate.
"""

import asyncio
import json
import ssl
import sys
from pathlib import Path

import httpx
from starlette.types import Receive, Scope, Send

from proxy.demo.loopback import LoopbackServer
from proxy.demo.model_server import ModelServer

MODEL_PORT = 8080
URL = "https://localhost:8443/v2"
ADMIN = "http://127.0.0.1:9090"
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.0] * 64}]}
SCORES = {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.75, 0.25]}
PATIENCE = 50  # seconds in all: a container that does not start must not hold the test
POLL = 0.05  # seconds between two looks at a container that starts or drains


async def until(status: int) -> None:
    """Return when the admin port answers so."""
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                if (await client.get(f"{ADMIN}/readyz")).status_code == status:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(POLL)


async def ask(client: httpx.AsyncClient, token: str) -> object:
    """Go the usual ways."""
    async with ModelServer(MODEL_PORT):
        await until(200)
        bearer = {"authorization": f"Bearer {token}"}
        good = await client.post(f"{URL}/models/digits/infer", json=ROW, headers=bearer)
        unknown = await client.post(f"{URL}/models/digits/infer", json=ROW)
        closed = await client.post(f"{URL}/repository/index", headers=bearer)
        metrics = await client.get(f"{ADMIN}/metrics")
    return {
        "statuses": [good.status_code, unknown.status_code, closed.status_code],
        "outputs": good.json().get("outputs"),
        "metrics": metrics.text,
    }


async def drain(client: httpx.AsyncClient, token: str) -> object:
    """Have a request in flight while the container is told to stop."""

    async def slow(_scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        print("in flight", flush=True)
        await until(503)
        body = json.dumps({"model_name": "digits", "outputs": [SCORES]}).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with LoopbackServer(slow, MODEL_PORT):
        await until(200)
        answer = await client.post(f"{URL}/models/digits/infer", json=ROW, headers={"authorization": f"Bearer {token}"})
    return {"statuses": [answer.status_code]}


async def main(what: str, journey: Path) -> None:
    """Do what was asked, and say what was seen."""
    known = json.loads(journey.read_text())
    trust = ssl.create_default_context(cafile=known["ca"])
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(verify=trust, timeout=30, trust_env=False) as client:
        print(json.dumps(await {"ask": ask, "drain": drain}[what](client, known["token"])), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
