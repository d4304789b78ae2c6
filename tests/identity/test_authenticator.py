"""A call to a principal: the order of the checks, and what the verdict cache may and may not remember."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import ALGORITHMS, CORP, ISS, Hands, Ring, b64, bearer, call, signer

from proxy.errors import BearerMisuse, DependencyFault, RequestError, TokenMissing, Unauthenticated
from proxy.exchange import Certificate, Issuer
from proxy.identity.authenticator import Authenticator
from proxy.ports import VerificationKey
from proxy.reasons import Reason

ISSUERS = {ISS: CORP}
POLICY = "digest-1"


class House:
    """An authenticator with its simulated ring and clock."""

    def __init__(self, capacity: int = 8) -> None:
        self.clock, self.ring = Hands(), Ring(*ALGORITHMS)
        self.authenticator = Authenticator(self.ring, self.clock, capacity)

    async def subject(self, token: str, policy: str = POLICY, certificate: Certificate | None = None) -> str:
        who = await self.authenticator.authenticate(bearer(token, certificate=certificate), ISSUERS, policy)
        return who.subject

    async def reason(self, token: str, certificate: Certificate | None = None) -> Reason:
        with pytest.raises(Unauthenticated) as refused:
            await self.subject(token, certificate=certificate)
        return refused.value.reason


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_authenticates(algorithm: str) -> None:
    assert await House().subject(signer(algorithm).token()) == "alice"


async def test_no_token() -> None:
    with pytest.raises(TokenMissing):
        await House().authenticator.authenticate(call(), ISSUERS, POLICY)


async def test_token_in_query_even_with_a_cached_token() -> None:
    house, token = House(), signer().token()
    await house.subject(token)
    with pytest.raises(BearerMisuse):
        await house.authenticator.authenticate(bearer(token, query="access_token=x"), ISSUERS, POLICY)


async def test_cheap_checks_come_before_the_keys() -> None:
    """A token that no key could save never asks the ring."""
    house = House()
    assert await house.reason(signer().token(claims={"iss": "https://other.example.com"})) is Reason.TOKEN_ISSUER
    assert await house.reason(signer().token(header={"alg": "none"})) is Reason.TOKEN_ALGORITHM
    assert await house.reason(signer().token(header={"typ": "JWT"})) is Reason.TOKEN_TYPE
    assert await house.reason("x.y.z") is Reason.TOKEN_MALFORMED
    assert house.ring.asked == []


async def test_issuer_filed_under_a_foreign_name() -> None:
    """A wrong mapping does not widen what an issuer may say."""
    house = House()
    token = signer().token(claims={"iss": "https://other.example.com"})
    with pytest.raises(Unauthenticated) as refused:
        await house.authenticator.authenticate(bearer(token), {"https://other.example.com": CORP}, POLICY)
    assert refused.value.reason is Reason.TOKEN_ISSUER


async def test_unknown_key() -> None:
    assert await House().reason(signer("ES256", "stranger").token()) is Reason.TOKEN_KEY_UNKNOWN


async def test_second_call_is_remembered() -> None:
    house, token = House(), signer().token()
    first = await house.authenticator.authenticate(bearer(token), ISSUERS, POLICY)
    assert await house.authenticator.authenticate(bearer(token), ISSUERS, POLICY) is first
    assert house.ring.asked == ["ES256-1"]


async def test_remembered_token_still_expires() -> None:
    """Never past exp and its leeway, to the second."""
    house, token = House(), signer().token()
    await house.subject(token)
    house.clock.passed = 240 + CORP.leeway - 1
    assert await house.subject(token) == "alice"
    house.clock.passed = 240 + CORP.leeway
    assert await house.reason(token) is Reason.TOKEN_EXPIRED


async def test_verdict_dies_with_the_keys() -> None:
    house, token = House(), signer().token()
    await house.subject(token)
    del house.ring.keys["ES256-1"]
    house.ring.number += 1
    assert await house.reason(token) is Reason.TOKEN_KEY_UNKNOWN


async def test_verdict_dies_with_the_policy() -> None:
    """A new policy may read other roles from the same token."""
    house, token = House(), signer().token(claims={"groups": ["admin"]})
    before = await house.authenticator.authenticate(bearer(token), ISSUERS, POLICY)
    changed = {ISS: replace(CORP, roles_claim=("groups",))}
    after = await house.authenticator.authenticate(bearer(token), changed, "digest-2")
    assert (before.roles, after.roles) == ({"analyst"}, {"admin"})


async def test_issuer_removed_by_a_new_policy() -> None:
    house, token = House(), signer().token()
    await house.subject(token)
    with pytest.raises(Unauthenticated) as refused:
        await house.authenticator.authenticate(bearer(token), {}, "digest-2")
    assert refused.value.reason is Reason.TOKEN_ISSUER


async def test_binding_is_checked_on_every_request() -> None:
    """A remembered token stolen from its connection is worth nothing."""
    house, fingerprint = House(), b64(bytes(range(32)))
    token = signer().token(claims={"cnf": {"x5t#S256": fingerprint}})
    assert await house.subject(token, certificate=Certificate(fingerprint, "01")) == "alice"
    assert await house.reason(token) is Reason.CERTIFICATE_MISSING
    assert await house.reason(token, Certificate(b64(bytes(32)), "02")) is Reason.TOKEN_BINDING
    assert await house.subject(token, certificate=Certificate(fingerprint, "01")) == "alice"


async def test_whole_token_is_the_key() -> None:
    """CVE-2026-35030: tokens that share all but their end are different tokens."""
    house, token = House(), signer().token()
    await house.subject(token)
    middle = token.rpartition(".")[0]
    assert await house.reason(f"{middle}.{b64(bytes(64))}") is Reason.TOKEN_SIGNATURE
    assert await house.reason(token + "==") is Reason.TOKEN_MALFORMED


async def test_refusals_are_not_remembered() -> None:
    """A key that was unknown a moment ago may be there now."""
    house, late = House(), signer("ES256", "late")
    assert await house.reason(late.token()) is Reason.TOKEN_KEY_UNKNOWN
    house.ring.keys["late"] = replace_kid(house.ring.keys["ES256-1"], "late")
    assert await house.reason(late.token()) is Reason.TOKEN_SIGNATURE


def replace_kid(key: VerificationKey, kid: str) -> VerificationKey:
    return replace(key, kid=kid)  # type: ignore[type-var]


async def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    house = House(capacity=3)
    tokens = [signer().token(claims={"jti": f"t{number}"}) for number in range(4)]
    for token in tokens:
        await house.subject(token)
    assert len(house.authenticator._verdicts) == 3
    await house.subject(tokens[3])
    assert len(house.ring.asked) == 4, "the youngest is remembered"
    await house.subject(tokens[0])
    assert len(house.ring.asked) == 5, "the oldest is not"


async def test_two_tokens_are_two_people() -> None:
    house = House()
    alice, bob = signer().token(), signer().token(claims={"sub": "bob"})
    assert [await house.subject(token) for token in (alice, bob, alice, bob)] == ["alice", "bob", "alice", "bob"]


async def test_keys_unavailable_is_not_the_callers_fault() -> None:
    class Away(Ring):
        async def key(self, issuer: Issuer, kid: str) -> VerificationKey:
            raise DependencyFault(Reason.KEYS_UNAVAILABLE)

    with pytest.raises(DependencyFault):
        await Authenticator(Away(), Hands()).authenticate(bearer(signer().token()), ISSUERS, POLICY)


@given(st.binary(max_size=200))
async def test_any_authorization(value: bytes) -> None:
    """Any bytes in the field yield a RequestError and nothing else."""
    with pytest.raises(RequestError):
        await House().authenticator.authenticate(call((b"authorization", b"Bearer " + value)), ISSUERS, POLICY)
