"""The admin application, behind a real listener."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.admin import Check, Health, Readiness, admin_app
from proxy.listener import Limits

READY = Readiness("digest", draining=False, checks={"keys": Check(Health.OK), "ledger": Check(Health.OK, "memory")})


@asynccontextmanager
async def admin(open_house: Any, readiness: Readiness = READY) -> AsyncIterator[Any]:
    app = admin_app(lambda: readiness, lambda: b"# HELP hip_x x\n")
    async with open_house(app, Limits()) as house:
        yield await house.connect()


async def get(client: Any, path: str, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    await client.feed(f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
    answer: tuple[int, dict[bytes, bytes], bytes] = await client.answer()
    return answer


async def test_alive_and_metrics(open_house: Any) -> None:
    async with admin(open_house) as client:
        assert (await get(client, "/healthz"))[0] == 200
        status, headers, body = await get(client, "/metrics")
        assert (status, body) == (200, b"# HELP hip_x x\n")
        assert headers[b"content-type"].startswith(b"text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("readiness", "status", "word"),
    [
        (READY, 200, "ready"),
        (Readiness("d", draining=False, checks={"certificate": Check(Health.WARNING, "9 days left")}), 200, "ready"),
        (Readiness("d", draining=False, checks={"ledger": Check(Health.FAILED, "unreachable")}), 503, "failing"),
        (Readiness("d", draining=True), 503, "draining"),
    ],
)
async def test_ready(readiness: Readiness, status: int, word: str, open_house: Any) -> None:
    async with admin(open_house, readiness) as client:
        got, _, body = await get(client, "/readyz")
        said = json.loads(body)
        assert (got, said["status"], said["policy"]) == (status, word, readiness.policy)
        assert set(said["checks"]) == set(readiness.checks)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/healthz/", 404), ("POST", "/metrics", 405)]
)
async def test_nothing_else(method: str, path: str, status: int, open_house: Any) -> None:
    """No redirect either: it would be built from the Host header."""
    async with admin(open_house) as client:
        got, headers, body = await get(client, path, method)
        assert (got, headers[b"content-type"]) == (status, b"application/problem+json")
        assert b"location" not in headers
        assert b"evil" not in body


async def test_limit(open_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One source cannot eat the worker, and the environment cannot switch the limit off."""
    monkeypatch.setenv("RATELIMIT_ENABLED", "false")
    monkeypatch.setenv("RATELIMIT_SWALLOW_ERRORS", "true")
    async with admin(open_house) as client:
        for _ in range(620):
            status, headers, _ = await get(client, "/healthz")
            if status == 429:
                break
        assert (status, headers[b"content-type"]) == (429, b"application/problem+json")
        assert headers[b"retry-after"] == b"60"
        assert (await get(client, "/metrics"))[0] == 429


async def test_stages_have_a_page_only_where_they_are_traced(open_house: Any) -> None:
    async with admin(open_house) as client:
        assert (await get(client, "/stages"))[0] == 404
    traced = admin_app(lambda: READY, lambda: b"", lambda: {"all": {"p50": 1.5}})
    async with open_house(traced, Limits()) as house:
        assert json.loads((await get(await house.connect(), "/stages"))[2]) == {"all": {"p50": 1.5}}
