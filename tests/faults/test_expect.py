"""`Expect: 100-continue` through the whole house: who may not ask is told so before a byte of the body is asked for."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.house import PATH, house, model, policy, question


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [("", PATH, 401), ("a.b.c", PATH, 401), (None, PATH.replace("digits", "other"), 404), (None, PATH, 200)],
    ids=["no token", "a bad token", "an unknown model", "allowed"],
)
async def test_a_body_is_asked_for_when_the_caller_may_ask(
    token: str | None, path: str, status: int, tmp_path: Path
) -> None:
    """RFC 9110 section 10.1.1. `None` is alice's token."""
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        client, body = await standing.connect(), question(1)
        token = standing.token if token is None else token
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "")
        client.writer.write(head.encode() + b"\r\n")
        async with asyncio.timeout(20):
            first = int((await client.reader.readuntil(b"\r\n\r\n")).split()[1])
            if status == 200:
                assert first == 100
                client.writer.write(body)
                first = int((await client.reader.readuntil(b"\r\n\r\n")).split()[1])
        assert first == status
        await client.close()
    assert len(server.bodies) == (status == 200)
