"""DPoP with a real provider: it binds the token to the client's key, and the token is worth nothing without it."""

import pytest
from house import Clock, House, no_body
from openid import AAL2, Client, Provider

from proxy.adapters.replay import MemoryReplays
from proxy.errors import Unauthenticated
from proxy.exchange import Call, Peer
from proxy.identity.authenticator import Authenticator
from proxy.identity.dpop import Possession
from proxy.reasons import Reason
from tests.identity.proving import Prover

PUBLIC = "https://models.example.com"
PATH = "/v2/models/iris/infer"


def request(scheme: str, token: str, proof: str | None) -> Call:
    fields = [(b"host", b"10.0.0.7:8443"), (b"authorization", f"{scheme} {token}".encode())]
    if proof is not None:
        fields.append((b"dpop", proof.encode()))
    return Call("POST", PATH, "", tuple(fields), Peer("127.0.0.1"), no_body)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_a_token_that_the_provider_bound(provider: Provider, algorithm: str) -> None:
    """The thumbprint in `cnf.jkt` is the provider's own work, so that both sides agree on RFC 7638."""
    house, prover = House(provider), Prover(algorithm)
    possession = Possession(PUBLIC, MemoryReplays(Clock()))
    authenticator = Authenticator(house.ring, house.clock, possession=possession)
    async with Client(provider) as client:
        token = await client.token(acr_values=AAL2, prover=prover)
    proof = prover.proof("POST", PUBLIC + PATH, token)

    async def who(scheme: str, shown: str | None) -> str:
        asked = request(scheme, token, shown)
        return (await authenticator.authenticate(asked, house.policy.issuers, house.policy.digest)).subject

    assert await who("DPoP", proof) == "alice"
    for scheme, shown, reason in (
        ("DPoP", proof, Reason.TOKEN_REPLAYED),
        ("DPoP", None, Reason.TOKEN_PROOF),
        ("DPoP", Prover(algorithm).proof("POST", PUBLIC + PATH, token), Reason.TOKEN_BINDING),
        ("Bearer", None, Reason.TOKEN_BINDING),
    ):
        with pytest.raises(Unauthenticated) as refused:
            await who(scheme, shown)
        assert refused.value.reason is reason
    await house.ring.close()
