"""The whole round trip at the socket: `hip serve`, a real provider, a model server, a client that steps up."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from house import POLICY
from openid import AAL1, AAL2, Client, Provider, parameters

from proxy.demo.digits import load_digits, scaled
from proxy.demo.model_server import ModelServer
from tests.hip import Hip, hip_serve
from tests.identity.proving import Prover

ROW = scaled(load_digits().heldout[:1])[0].tolist()
BODY = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": ROW}]}


@pytest.fixture
async def model_server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture
def hip(provider: Provider, model_server: ModelServer, tmp_path: Path):
    policy = POLICY.format(issuer=provider.issuer, aal2=AAL2, upstream=model_server.url)
    with hip_serve(tmp_path, policy) as running:
        yield running


async def infer(hip: Hip, token: str) -> httpx.Response:
    async with httpx.AsyncClient(verify=hip.trust(), trust_env=False) as http:
        headers = {"authorization": f"Bearer {token}"}
        return await http.post(f"{hip.url}/v2/models/digits/infer", json=BODY, headers=headers)


async def test_a_client_that_is_challenged_steps_up_and_passes(hip, provider, model_server):
    async with Client(provider) as client:
        refused = await infer(hip, await client.token(acr_values=AAL1))
        assert refused.status_code == 401
        assert model_server.hits == 0
        passed = await infer(hip, await client.step_up(refused.headers["www-authenticate"]))
    assert passed.status_code == 200
    assert passed.json()["outputs"][0]["data"][1] == 0.99


async def test_a_login_that_is_too_old_is_sent_back_for_a_new_one(hip, provider):
    async with Client(provider) as client:
        refused = await infer(hip, await client.token(acr_values=AAL2, login_age=3600))
        assert 'max_age="600"' in refused.headers["www-authenticate"]
        assert (await infer(hip, await client.step_up(refused.headers["www-authenticate"]))).status_code == 200


async def test_a_scope_that_is_missing_is_named_and_asked_for(provider, model_server, tmp_path):
    """RFC 6750 section 3.1, where the policy's roles are the provider's scopes."""
    policy = POLICY.format(issuer=provider.issuer, aal2=AAL2, upstream=model_server.url)
    policy = policy.replace("roles_claim: realm_access.roles", "roles_claim: scope").replace("[analyst]", "[infer]")
    with hip_serve(tmp_path, policy) as hip:
        async with Client(provider) as client:
            refused = await infer(hip, await client.token(acr_values=AAL2, scope=""))
            assert refused.status_code == 403
            wanted = parameters(refused.headers["www-authenticate"])
            assert (wanted["error"], wanted["scope"]) == ("insufficient_scope", "infer")
            assert model_server.hits == 0
            passed = await infer(hip, await client.token(acr_values=AAL2, scope=wanted["scope"]))
        assert passed.status_code == 200


async def test_a_bound_token_is_no_bearer_token(hip, provider):
    async with Client(provider) as client:
        bound = await client.token(acr_values=AAL2, prover=Prover())
    assert (await infer(hip, bound)).status_code == 401
