"""The test provider as a process, and a client that logs in there: authorization code + PKCE, step-up, DPoP."""

import base64
import hashlib
import json
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

from tests.identity.proving import Prover

HERE = Path(__file__).parent
CLIENT_ID = "notebook"
REDIRECT_URI = "http://127.0.0.1/done"
AAL1, AAL2 = "urn:example:aal1", "urn:example:aal2"
RESOURCE_OF = {"ES256": "urn:hip:es256", "EdDSA": "urn:hip:eddsa"}
MAX_HOPS = 12  # redirects of one login


@dataclass(frozen=True)
class Provider:
    """A provider that runs. It signs with the first two of its keys, one for each algorithm."""

    issuer: str

    async def rotate(self) -> list[str]:
        """Sign with new keys from now on; the old ones stay published. Return every published `kid`."""
        return await self._control("rotate")

    async def withdraw(self) -> list[str]:
        """Publish nothing but the keys that it signs with. Return every published `kid`."""
        return await self._control("withdraw")

    async def _control(self, what: str) -> list[str]:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{self.issuer}/control/{what}")
        kids: list[str] = answer.raise_for_status().json()["kids"]
        return kids


@contextmanager
def running_provider(node: str) -> Iterator[Provider]:
    """A provider for the `with` block; it ends with its stdin, so that it cannot outlive the tests."""
    process = subprocess.Popen(
        [node, "provider.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdout:
            yield Provider(json.loads(process.stdout.readline())["issuer"])
    finally:
        process.stdin.close()
        process.wait()


@dataclass
class Client:
    """A program with a browser of its own: one login session, as many tokens as it asks for."""

    provider: Provider
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(trust_env=False))

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def token(self, account: str = "alice", **asked: Any) -> str:
        """Return an access token; `asked` is what `tokens` takes."""
        return (await self.tokens(account, **asked))["access_token"]

    async def id_token(self) -> str:
        """Return what is for the client only."""
        return (await self.tokens())["id_token"]

    async def tokens(
        self,
        account: str = "alice",
        *,
        algorithm: str = "ES256",
        acr_values: str = "",
        max_age: str = "",
        login_age: int = 0,
        prover: Prover | None = None,
        scope: str = "infer",
    ) -> dict[str, str]:
        """Log in as far as the provider asks for it, and return its answer. `login_age` in seconds."""
        verifier = secrets.token_urlsafe(32)
        asked = {
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": f"openid {scope}".strip(),
            "resource": RESOURCE_OF[algorithm],
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
            "login_hint": account,
            "login_age": str(login_age) if login_age else "",
            "acr_values": acr_values,
            "max_age": max_age,
        }
        code = await self._code({name: value for name, value in asked.items() if value})
        url = f"{self.provider.issuer}/token"
        form = {
            "grant_type": "authorization_code",
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "code": code,
            "code_verifier": verifier,
            "resource": RESOURCE_OF[algorithm],
        }
        answer = await self.http.post(url, data=form, headers={"dpop": prover.proof("POST", url)} if prover else {})
        assert answer.status_code == 200, answer.text
        tokens: dict[str, str] = answer.json()
        return tokens

    async def step_up(self, www_authenticate: str, **asked: Any) -> str:
        """Go back to the provider with what a proxy's challenge names (RFC 9470 section 4), and return a new token."""
        wanted = parameters(www_authenticate)
        assert wanted["error"] == "insufficient_user_authentication"
        return await self.token(acr_values=wanted.get("acr_values", ""), max_age=wanted.get("max_age", ""), **asked)

    async def _code(self, asked: Mapping[str, str]) -> str:
        """Follow the provider through its login pages until it hands a code over."""
        url, answer = f"{self.provider.issuer}/auth", await self.http.get(f"{self.provider.issuer}/auth", params=asked)
        for _ in range(MAX_HOPS):
            assert answer.is_redirect, answer.text
            url = urljoin(url, answer.headers["location"])
            if url.startswith(REDIRECT_URI):
                arrived = parse_qs(urlsplit(url).query)
                assert "code" in arrived, arrived
                return arrived["code"][0]
            answer = await self.http.get(url)
        raise AssertionError(f"no code after {MAX_HOPS} redirects")


def parameters(www_authenticate: str) -> dict[str, str]:
    """The parameters of a challenge whose values are quoted-strings (RFC 9110 section 11.6.1)."""
    return dict(re.findall(r'([a-z_]+)="([^"\\]*)"', www_authenticate))


def _challenge(verifier: str) -> str:
    """RFC 7636 section 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
