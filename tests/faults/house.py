"""A house to break: a recording model server, a policy, tokens, and clients that count what they lose."""

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.adapters.mint import Minted, Pair, mint
from proxy.app import Running, running
from proxy.demo.identity import DemoIdentityProvider
from tests.upstream.raw_upstream import listening

POLICY = """\
version: v1
issuers:
  corp: {{issuer: "http://127.0.0.1:1", audience: inference-proxy, {keys},
         algorithms: [ES256], roles_claim: realm_access.roles}}
upstreams:
  model-server: {{url: "{url}", dialect: oip-v2, timeout: {timeout}, connect_timeout: 1s}}
models:
  digits: {{upstream: model-server}}
budgets:
  some: [{budget} requests/minute]
outputs:
  coarse: {{decimals: 2}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer, health], models: [digits]}}
    budget: some
    output: coarse
"""

CONFIG = """\
version: v1
listen:
  host: 127.0.0.1
  port: 0
  drain: 10s
  tls: {{certificate: certs/server.crt, key: certs/server.key, client_ca: certs/ca.crt, client_certificates: optional}}
admin: {{host: 127.0.0.1, port: 0}}
policies: policy
audit: {{directory: audit}}
{more}
"""

REPLY = json.dumps(
    {
        "model_name": "digits",
        "outputs": [{"name": "p", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.2, 0.7]}],
    }
).encode()
PATH = "/v2/models/digits/infer"
PATIENCE = 20.0  # seconds until a test that hangs fails


def question(number: int) -> bytes:
    """A request body that is like no other."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [float(number), 0.5]}
    return json.dumps({"id": str(number), "inputs": [tensor]}).encode()


def policy(url: str, *, budget: int = 100_000, keys: str = "jwks_file: ../jwks.json", timeout: str = "5s") -> str:
    return POLICY.format(url=url, budget=budget, keys=keys, timeout=timeout)


def config(more: str = "") -> str:
    return CONFIG.format(more=more)


def identity(directory: Path) -> DemoIdentityProvider:
    """Return who signs tokens, with its keys in the directory."""
    provider = DemoIdentityProvider(port=1)
    (directory / "jwks.json").write_bytes(provider.jwks())
    return provider


@dataclass
class Model:
    """A model server that remembers the bodies of what reached it, and answers alike."""

    bodies: list[bytes] = field(default_factory=list)
    status: bytes = b"200 OK"
    hold: asyncio.Event | None = None  # answers wait for it
    held: asyncio.Event = field(default_factory=asyncio.Event)  # somebody waits
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            self.bodies.append(await reader.readexactly(lengths[0] if lengths else 0))
            if self.hold is not None:
                self.held.set()
                await self.hold.wait()
            fields = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY)
            writer.write(b"HTTP/1.1 " + self.status + b"\r\n" + fields + REPLY)
            await writer.drain()


@asynccontextmanager
async def model() -> AsyncIterator[Model]:
    running = Model()
    async with listening(running.handle) as running.port:
        yield running


@dataclass
class Load:
    """Clients that ask one question after the other, each on its own connection as long as that lasts.

    They do what RFC 9112 asks of a client: they open another connection after `Connection: close`, and repeat nothing.
    """

    port: int
    trust: ssl.SSLContext
    token: str
    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)  # questions without a whole answer
    asked: int = 0
    answered: list[int] = field(default_factory=list)  # the questions that had 200
    stopping: bool = False

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        while not self.stopping:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=self.trust, server_hostname="localhost"
                )
            except OSError as error:
                self.lost.append(f"connecting: {error!r}")
                await asyncio.sleep(0.05)
                continue
            try:
                while not self.stopping and await self._ask(reader, writer):
                    pass
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.asked += 1
        number = self.asked
        try:
            status, last = await exchange(reader, writer, number, self.token)
        except (OSError, EOFError, TimeoutError) as error:
            self.lost.append(f"question {number}: {error!r}")
            return False
        self.statuses[status] += 1
        if status == 200:
            self.answered.append(number)
        return not last


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, token: str
) -> tuple[int, bool]:
    """Ask one question; return the status, and whether the connection ends with it."""
    body = question(number)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    async with asyncio.timeout(PATIENCE):
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        (length,) = (int(line[15:]) for line in answer.split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
    return int(answer.split()[1]), b"connection: close" in answer


def trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


@dataclass
class Standing:
    """A proxy in this process."""

    directory: Path
    proxy: Running
    token: str
    certificates: Minted
    issuer: DemoIdentityProvider

    @property
    def trust(self) -> ssl.SSLContext:
        return trusting(self.certificates.ca.certificate)

    async def connect(self, client: Pair | None = None, source: str = "127.0.0.1") -> "Client":
        context = self.trust
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.proxy.port, ssl=context, server_hostname="localhost", local_addr=(source, 0)
        )
        return Client(reader, writer, self.token)

    async def ask(self, client: Pair | None = None, source: str = "127.0.0.1") -> "Answer":
        """Ask on a connection of its own."""
        connection = await self.connect(client, source)
        try:
            return await connection.ask()
        finally:
            await connection.close()

    async def status(self, expected: int) -> None:
        """Ask until the answer has this status."""
        async with asyncio.timeout(PATIENCE):
            while (await self.ask()).status != expected:
                await asyncio.sleep(0.05)

    def check(self, name: str) -> str | None:
        """How a part is, as /readyz says it: its health, or None."""
        found = self.proxy.house.readiness().checks.get(name)
        return found.health.value if found is not None else None

    async def until(self, name: str, health: str | None) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.check(name) != health:
                await asyncio.sleep(0.02)

    async def recorded(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Return the records of a kind, once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(found := self.records(kind)) < count:
                await asyncio.sleep(0.02)
        return found

    def records(self, kind: str) -> list[dict[str, Any]]:
        files = sorted((self.directory / "audit").glob("*.jsonl"))
        lines = "".join(path.read_text() for path in files if path.name != "anchors.jsonl").splitlines()
        return [record for record in map(json.loads, lines) if record["type"] == kind]


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    token: str

    async def ask(self, number: int = 1) -> Answer:
        body = question(number)
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        async with asyncio.timeout(PATIENCE):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).strip().split(b"\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in lines)
            return Answer(
                int(status.split()[1]), headers, await self.reader.readexactly(int(headers[b"content-length"]))
            )

    async def end(self) -> None:
        """Return when the other side has ended the connection."""
        async with asyncio.timeout(PATIENCE):
            with suppress(OSError):
                assert await self.reader.read() == b""
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def house(
    directory: Path, rules: str, settings: str | None = None, prepare: Callable[[Minted], object] = id
) -> AsyncIterator[Standing]:
    """Write the files and serve inside the block. `prepare` may write more, once the certificates are there."""
    issuer = identity(directory)
    token = issuer.token("alice", ["analyst"])
    certificates = mint(directory / "certs", ["localhost", "127.0.0.1"], ["analyst", "guest"])
    (directory / "policy").mkdir()
    (directory / "policy" / "policy.yaml").write_text(rules)
    (directory / "hip.yaml").write_text(settings if settings is not None else config())
    prepare(certificates)
    async with running(directory / "hip.yaml") as proxy:
        yield Standing(directory, proxy, token, certificates, issuer)
