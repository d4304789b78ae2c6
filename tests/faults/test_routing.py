"""Several servers that name no model, side by side behind one TLS listener: by prefix, by host, and by no other way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.house import PATIENCE, Standing, house
from tests.faults.replica import Server, servers

POLICY = """\
version: v1
issuers:
  corp: {{issuer: "http://127.0.0.1:1", audience: inference-proxy, jwks_file: ../jwks.json,
         algorithms: [ES256], roles_claim: realm_access.roles}}
upstreams:
  iris-server: {{url: "{0}", dialect: mlflow, prefix: /iris}}
  titanic-server: {{url: "{1}", dialect: mlflow, prefix: /titanic}}
  north: {{url: "{2}/base", dialect: mlflow, host: north.example.com}}
  south: {{url: "{3}", dialect: mlflow, host: south.example.com}}
models:
  iris: {{upstream: iris-server}}
  titanic: {{upstream: titanic-server}}
  snow: {{upstream: north}}
  sand: {{upstream: south}}
budgets: {{some: [100000 requests/minute]}}
outputs: {{coarse: {{decimals: 2}}}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer, health], models: [iris, snow]}}
    budget: some
    output: coarse
"""
BODY = json.dumps({"inputs": [[1.0, 2.0]]}).encode()


@dataclass
class Town:
    """A proxy before four servers; a caller who may ask `iris` and `snow`, and not `titanic` and `sand`."""

    standing: Standing
    servers: list[Server]

    async def ask(self, path: str, *hosts: str, fields: str = "", method: str = "POST") -> int:
        """Send bytes as they are on a connection of their own; return the status."""
        body = BODY if method == "POST" else b""
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"Host: {host}\r\n" for host in hosts) + fields
        head += f"Authorization: Bearer {self.standing.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.standing.proxy.port, ssl=self.standing.trust, server_hostname="localhost"
        )
        async with asyncio.timeout(PATIENCE):
            writer.write(head.encode() + body)
            line = await reader.readline()
        writer.close()
        return int(line.split()[1])

    @property
    def asked(self) -> list[list[str]]:
        return [one.asked for one in self.servers]


@asynccontextmanager
async def town(directory: Path) -> AsyncIterator[Town]:
    async with servers(4) as four:
        for one in four:
            one.reply = json.dumps({"predictions": [[0.123456, 0.876544]]}).encode()
        async with house(directory, POLICY.format(*(one.url for one in four))) as standing:
            yield Town(standing, four)


async def test_each_prefix_and_each_host_has_its_server(tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        assert await there.ask("/iris/invocations", "localhost") == 200
        assert await there.ask("/iris/ping", "127.0.0.1:8443", method="GET") == 200
        assert await there.ask("/titanic/invocations", "localhost") == 403
        assert await there.ask("/invocations", "north.example.com") == 200
        assert await there.ask("/invocations", "NORTH.example.com:443") == 200
        assert await there.ask("/iris/invocations", "north.example.com") == 200
        assert await there.ask("/invocations", "south.example.com") == 403
        assert await there.ask("/invocations", "localhost") == 404
        assert await there.ask("/titanic", "localhost") == 404
        iris, titanic, north, south = there.asked
        assert iris == ["POST /invocations", "GET /ping", "POST /invocations"]
        assert north == ["POST /base/invocations", "POST /base/invocations"]
        assert titanic == south == []
        named = [
            (record["model"], record["reason"]) for record in there.standing.records("decision") if "model" in record
        ]
        assert ("titanic", "no_rule") in named
        assert ("sand", "no_rule") in named


@pytest.mark.parametrize(
    "path",
    [
        "/iris/../titanic/invocations",
        "/iris/..%2ftitanic/invocations",
        "/iris%2f..%2ftitanic/invocations",
        "/iris/%2e%2e/titanic/invocations",
        "/iris/./../titanic/invocations",
        "/iris/..;/titanic/invocations",
        "/iris//../titanic/invocations",
        "//titanic/invocations",
        "/titanic\\invocations",
        "/%74itanic/invocations",
        "/iris/invocations#/titanic/invocations",
        "https://localhost/titanic/invocations",
        "https://north.example.com/invocations",
        "titanic/invocations",
        "*",
    ],
)
async def test_a_path_that_two_servers_may_read_as_two_reaches_none(path: str, tmp_path: Path) -> None:
    """Refused before anybody is looked for: with the right host, and with another one."""
    async with town(tmp_path) as there:
        for host in ("localhost", "south.example.com"):
            assert await there.ask(path, host) == 400
        assert there.asked == [[], [], [], []]


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("north.example.com", "south.example.com"),
        ("north.example.com,south.example.com",),
        ("north.example.com@south.example.com",),
        ("north.example.com:south.example.com",),
        ("north.example.com/",),
        ("",),
        ("*.example.com",),
    ],
    ids=str,
)
async def test_a_host_that_two_servers_may_read_as_two_reaches_none(hosts: tuple[str, ...], tmp_path: Path) -> None:
    async with town(tmp_path) as there:
        assert await there.ask("/invocations", *hosts) == 400
        assert there.asked == [[], [], [], []]


async def test_no_other_field_leads_anywhere(tmp_path: Path) -> None:
    fields = (
        "X-Forwarded-Host: south.example.com\r\nForwarded: host=south.example.com\r\nX-Forwarded-Prefix: /titanic\r\n"
    )
    fields += "X-Original-URL: /titanic/invocations\r\nX-Rewrite-URL: /titanic/invocations\r\n"
    async with town(tmp_path) as there:
        assert await there.ask("/invocations", "north.example.com", fields=fields) == 200
        assert await there.ask("/iris/invocations", "localhost", fields=fields) == 200
        assert await there.ask("/invocations", "localhost", fields=fields) == 404
        assert await there.ask("/iris/titanic/invocations", "localhost", fields=fields) == 404
        assert there.asked == [["POST /invocations"], [], ["POST /base/invocations"], []]
