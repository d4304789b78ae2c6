"""Our whole identity part against a certified OpenID provider: discovery, tokens, step-up, key rotation."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from house import House
from openid import AAL1, AAL2, Client, Provider

from proxy.errors import Challenge, StepUpRequired, Unauthenticated
from proxy.exchange import Denial, Grant
from proxy.identity.authenticator import Authenticator
from proxy.identity.challenge import www_authenticate
from proxy.reasons import Reason


@pytest.fixture
async def house(provider: Provider) -> AsyncIterator[House]:
    built = House(provider)
    yield built
    await built.ring.close()


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[Client]:
    async with Client(provider) as opened:
        yield opened


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_accepts_the_providers_tokens(house: House, client: Client, algorithm: str) -> None:
    """An at+jwt of RFC 9068, read completely: who, which factors, which context, when."""
    begun = int(time.time())
    principal = await house.who(await client.token(algorithm=algorithm, acr_values=AAL2))
    assert (principal.issuer, principal.subject, principal.client) == ("corp", "alice", "notebook")
    assert (principal.roles, principal.factors, principal.acr) == ({"analyst"}, {"pwd", "otp"}, AAL2)
    assert principal.auth_time is not None
    assert principal.auth_time >= begun
    assert principal.key_id.startswith(algorithm)


async def test_decision_uses_what_the_token_says(house: House, client: Client) -> None:
    decision = await house.decide(await client.token(acr_values=AAL2))
    assert isinstance(decision, Grant)
    assert (decision.rule, decision.mfa) == ("analysts-infer", True)


async def test_another_role_is_another_answer(house: House, client: Client) -> None:
    decision = await house.decide(await client.token("tom", acr_values=AAL2))
    assert isinstance(decision, Denial)
    assert decision.reason is Reason.NO_RULE


async def test_id_token_is_no_access_token(house: House, client: Client) -> None:
    """The same provider, the same key, another kind of JWT (RFC 8725 section 3.11)."""
    with pytest.raises(Unauthenticated) as refused:
        await house.who(await client.id_token())
    assert refused.value.reason is Reason.TOKEN_TYPE


def challenged(decision: Grant | Denial, reason: Reason) -> str:
    """The field that the proxy answers with, once it is sure that it must."""
    assert isinstance(decision, Denial)
    assert decision.reason is reason
    field = www_authenticate(StepUpRequired(reason, challenge=decision.challenge))
    assert field is not None
    return field.decode()


async def test_step_up_by_context(house: House, client: Client) -> None:
    """A password is not enough: challenge, back to the provider with its words, and the new token passes."""
    weak = await client.token()
    assert (await house.who(weak)).acr == AAL1
    challenge = challenged(await house.decide(weak), Reason.MFA_MISSING)
    assert f'acr_values="{AAL2}"' in challenge
    assert isinstance(await house.decide(await client.step_up(challenge)), Grant)


async def test_step_up_by_age(house: House, client: Client) -> None:
    """A second factor of half an hour ago: the provider logs in anew because of `max_age`, and only because of it."""
    old = await client.token(acr_values=AAL2, login_age=1800)
    unchanged = await client.token(acr_values=AAL2)
    assert (await house.who(unchanged)).auth_time == (await house.who(old)).auth_time, "the same session"
    decision = await house.decide(old)
    challenge = challenged(decision, Reason.MFA_TOO_OLD)
    assert decision.challenge == Challenge((AAL2,), 600)  # type: ignore[union-attr]
    assert isinstance(await house.decide(await client.step_up(challenge)), Grant)


async def until_refused(house: House, token: str) -> None:
    async with asyncio.timeout(10):
        while True:
            await house.who(token)
            await asyncio.sleep(0)


async def test_rotation_while_requests_flow(house: House, client: Client, provider: Provider) -> None:
    """No token of the old or the new keys is refused between two rotations; a withdrawn key's is, once known."""
    old = await client.token(acr_values=AAL2)
    stop, passed = asyncio.Event(), 0

    async def flow() -> None:
        nonlocal passed
        while not stop.is_set():
            fresh = Authenticator(house.ring, house.clock)  # so that no verdict is remembered
            house.authenticator = fresh
            await house.who(old)
            passed += 1
            await asyncio.sleep(0)

    flowing = asyncio.create_task(flow())
    for _ in range(2):
        await provider.rotate()
        house.clock.ahead += 30  # past the pause between two fetches that an unknown kid asks for
        new = await client.token(acr_values=AAL2)
        assert (await house.who(new)).key_id != (await house.who(old)).key_id
    stop.set()
    await flowing
    assert passed > 0

    await provider.withdraw()
    house.clock.ahead += 3_000  # the next look at the keys is due; until it is done, the keys in hand serve
    with pytest.raises(Unauthenticated) as refused:
        await until_refused(house, old)
    assert refused.value.reason is Reason.TOKEN_KEY_UNKNOWN
