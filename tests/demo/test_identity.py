"""The demo's identity provider: what it signs verifies, what it publishes is clean, and it listens on loopback only."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio

from proxy.demo.identity import AUDIENCE, DEMO_USERS, LIFETIME, DemoIdentityProvider

NOW = 1_800_000_000.0
pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server for all that only reads


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def provider() -> AsyncIterator[DemoIdentityProvider]:
    async with DemoIdentityProvider() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(provider: DemoIdentityProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider.url, trust_env=False) as http:
        yield http


def verified(provider: DemoIdentityProvider, token: str) -> dict[str, Any]:
    """Verify with an independent reader of the published key set."""
    key = jwt.PyJWKSet.from_json(provider.jwks().decode())[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["ES256", "EdDSA"], audience=AUDIENCE, issuer=provider.issuer)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_a_token_has_what_rfc_9068_asks(provider: DemoIdentityProvider, algorithm: Any) -> None:
    token = provider.token("alice", ["analyst"], acr="urn:example:aal2", auth_age=60, algorithm=algorithm)
    header, claims = jwt.get_unverified_header(token), verified(provider, token)
    assert (header["typ"], header["alg"]) == ("at+jwt", algorithm)
    assert claims["sub"] == "alice"
    assert claims["client_id"] == "hip-demo"
    assert claims["exp"] - claims["iat"] == LIFETIME
    assert claims["iat"] - claims["auth_time"] == 60
    assert claims["amr"] == ["pwd", "otp"]
    assert claims["acr"] == "urn:example:aal2"
    assert claims["realm_access"] == {"roles": ["analyst"]}
    assert claims["jti"] != verified(provider, provider.token("alice"))["jti"]


async def test_overrides_replace_claims_and_take_them_out(provider: DemoIdentityProvider) -> None:
    claims = jwt.decode(
        provider.token("alice", sub="bob", jti=None, extra=1), options={"verify_signature": False, "verify_aud": False}
    )
    assert (claims["sub"], claims["extra"]) == ("bob", 1)
    assert "jti" not in claims
    assert "acr" not in claims


async def test_its_time_is_an_argument() -> None:
    async with DemoIdentityProvider(now=lambda: NOW) as provider:
        assert jwt.decode(provider.token("a"), options={"verify_signature": False, "verify_aud": False})["iat"] == NOW


async def test_the_key_set_is_clean(client: httpx.AsyncClient) -> None:
    """RFC 7517: public halves only, each with its use, its one algorithm and its own id."""
    answer = await client.get("/jwks")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    keys = answer.json()["keys"]
    assert {key["alg"]: key["crv"] for key in keys} == {"ES256": "P-256", "EdDSA": "Ed25519"}
    assert all(key["use"] == "sig" and "d" not in key for key in keys)
    assert len({key["kid"] for key in keys}) == len(keys)


async def test_discovery_names_its_own_issuer(provider: DemoIdentityProvider, client: httpx.AsyncClient) -> None:
    document = (await client.get("/.well-known/openid-configuration")).json()
    assert document["issuer"] == provider.issuer
    assert (await client.get(document["jwks_uri"])).content == provider.jwks()


async def test_rotation_keeps_old_tokens_until_the_keys_retire() -> None:
    async with DemoIdentityProvider() as provider:
        old = provider.token("alice")
        provider.rotate()
        assert verified(provider, old)["sub"] == "alice"
        assert verified(provider, provider.token("alice"))["sub"] == "alice"
        provider.retire()
        assert len(json.loads(provider.jwks())["keys"]) == 2
        with pytest.raises(KeyError):
            verified(provider, old)


@pytest.mark.parametrize(("otp", "amr"), [("yes", ["pwd", "otp"]), ("no", ["pwd"])])
async def test_the_token_endpoint_serves_curl(
    provider: DemoIdentityProvider, client: httpx.AsyncClient, otp: str, amr: list[str]
) -> None:
    for user, roles in DEMO_USERS.items():
        answer = await client.post("/token", data={"user": user, "otp": otp})
        assert answer.headers["cache-control"] == "no-store"
        claims = verified(provider, answer.json()["access_token"])
        assert (claims["sub"], claims["amr"], claims["realm_access"]["roles"]) == (user, amr, list(roles))


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"user=nobody",
        b"user=alice&otp=maybe",
        b"user=alice&user=tom",
        b"user=alice&scope=all",
        b"user=alice&otp=",
        b"\xff\xfe",
        b"user=alice&pad=" + b"a" * 5000,
        b"&".join(b"f%d=1" % number for number in range(20)),
    ],
    ids=["empty", "unknown", "otp", "duplicate", "other", "blank", "binary", "long", "many"],
)
async def test_a_wrong_form_is_refused_with_a_hint(client: httpx.AsyncClient, form: bytes) -> None:
    answer = await client.post("/token", content=form, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 400
    assert "send user=NAME" in answer.json()["error_description"]


async def test_a_rebound_name_is_refused(client: httpx.AsyncClient) -> None:
    """A web page that points its own name at 127.0.0.1 gets no token."""
    answer = await client.post("/token", data={"user": "alice"}, headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert "access_token" not in answer.text


async def test_listens_on_loopback_only(provider: DemoIdentityProvider) -> None:
    assert provider.url.startswith("http://127.0.0.1:")
