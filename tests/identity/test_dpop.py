"""Proof of possession (RFC 9449): section 4.3 as vectors, then the authenticator's side of it."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import CORP, ISS, NOW, Hands, Ring, b64, call, signer
from proving import Prover

from proxy.adapters.replay import MemoryReplays
from proxy.errors import InvalidProof, TokenMissing, Unauthenticated
from proxy.exchange import Call, Certificate, Headers, Scheme
from proxy.identity.authenticator import Authenticator
from proxy.identity.dpop import (
    LEEWAY_SECONDS,
    MAX_PROOF_CHARS,
    PROOF_SECONDS,
    Possession,
    _key,
    normal_url,
    proof_field,
    verify_proof,
)
from proxy.identity.notation import Compact
from proxy.reasons import Reason

PUBLIC = "https://models.example.com"
PATH = "/v2/models/iris/infer"  # of `issuing.call`
URL = PUBLIC + PATH
TOKEN = "the.token.itself"
PROVER, EDWARDS = Prover(), Prover("EdDSA")


def good(**changes: Any) -> str:
    return PROVER.proof("POST", URL, TOKEN, now=NOW, **changes)


def verify(proof: str, **facts: Any) -> str:
    """The thumbprint of a proof that holds."""
    defaults = {"method": "POST", "url": URL, "now": NOW}
    return verify_proof(proof, TOKEN, **{**defaults, **facts}).thumbprint


@pytest.mark.parametrize("prover", [PROVER, EDWARDS], ids=["ES256", "EdDSA"])
def test_holds(prover: Prover) -> None:
    assert verify(prover.proof("POST", URL, TOKEN, now=NOW)) == prover.thumbprint


def test_thumbprint_of_the_standard() -> None:
    """RFC 8037 appendix A.3 and RFC 7638 section 3.1, by the code of the proofs: the key's id is its thumbprint."""
    public = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    key = _key(Compact({"alg": "EdDSA", "jwk": public}, {}, b"", b""))
    assert key.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


HEADER_FAULTS: list[tuple[str, dict[str, object]]] = [
    ("typ missing", {"typ": None}),
    ("typ JWT", {"typ": "JWT"}),
    ("typ in another case", {"typ": "DPoP+JWT"}),
    ("alg none", {"alg": "none"}),
    ("alg a shared secret", {"alg": "HS256"}),
    ("alg of another key type", {"alg": "EdDSA"}),
    ("alg missing", {"alg": None}),
    ("alg a list", {"alg": ["ES256"]}),
    ("jwk missing", {"jwk": None}),
    ("jwk a text", {"jwk": "key"}),
    ("jwk with the private key", {"jwk": {**PROVER.jwk, "d": "AA"}}),
    ("jwk a shared secret", {"jwk": {"kty": "oct", "k": "AA"}}),
    ("jwk empty", {"jwk": {}}),
    ("jwk for encryption", {"jwk": {**PROVER.jwk, "use": "enc"}}),
    ("jwk that may not verify", {"jwk": {**PROVER.jwk, "key_ops": ["sign"]}}),
    ("jwk with another alg", {"jwk": {**PROVER.jwk, "alg": "ES384"}}),
    ("jwk not on its curve", {"jwk": {**PROVER.jwk, "x": b64(bytes(32))}}),
    ("jwk of another", {"jwk": Prover().jwk}),
    ("kty a list", {"jwk": {**PROVER.jwk, "kty": ["EC"]}}),
    ("crit", {"crit": ["exp"]}),
    ("b64", {"b64": False}),
]


@pytest.mark.parametrize("fault", [v[1] for v in HEADER_FAULTS], ids=[v[0] for v in HEADER_FAULTS])
def test_header_refused(fault: dict[str, object]) -> None:
    with pytest.raises(InvalidProof) as refused:
        verify(good(header=fault))
    assert refused.value.reason is Reason.TOKEN_PROOF


CLAIM_FAULTS: list[tuple[str, dict[str, object]]] = [
    ("htm missing", {"htm": None}),
    ("another method", {"htm": "GET"}),
    ("method in lower case", {"htm": "post"}),
    ("htu missing", {"htu": None}),
    ("another host", {"htu": f"https://other.example.com{PATH}"}),
    ("another path", {"htu": f"{PUBLIC}/v2/models/other/infer"}),
    ("another scheme", {"htu": f"http://models.example.com{PATH}"}),
    ("another port", {"htu": f"https://models.example.com:8443{PATH}"}),
    ("a user name before the host", {"htu": f"https://models.example.com@evil.example{PATH}"}),
    ("a path that means the same", {"htu": f"{PUBLIC}/v2/./models/iris/infer"}),
    ("htu a path", {"htu": PATH}),
    ("iat missing", {"iat": None}),
    ("iat a text", {"iat": str(NOW)}),
    ("iat a fraction", {"iat": NOW + 0.5}),
    ("too old", {"iat": NOW - PROOF_SECONDS - 1}),
    ("from the future", {"iat": NOW + LEEWAY_SECONDS + 1}),
    ("ath missing", {"ath": None}),
    ("ath of another token", {"ath": b64(bytes(32))}),
    ("jti missing", {"jti": None}),
    ("jti empty", {"jti": ""}),
    ("jti a number", {"jti": 7}),
    ("jti too long", {"jti": "x" * 300}),
]


@pytest.mark.parametrize("fault", [v[1] for v in CLAIM_FAULTS], ids=[v[0] for v in CLAIM_FAULTS])
def test_claims_refused(fault: dict[str, object]) -> None:
    with pytest.raises(InvalidProof) as refused:
        verify(good(claims=fault))
    assert refused.value.reason is Reason.TOKEN_PROOF


@pytest.mark.parametrize("seconds", [-PROOF_SECONDS, 0, LEEWAY_SECONDS])
def test_edges_of_the_minute(seconds: int) -> None:
    verify(good(claims={"iat": NOW + seconds}))


@pytest.mark.parametrize(
    "url",
    [f"{URL}?a=1", f"{URL}#f", f"HTTPS://MODELS.example.com{PATH}", f"https://models.example.com:443{PATH}"],
    ids=["query", "fragment", "case", "default port"],
)
def test_the_same_url(url: str) -> None:
    """Section 4.3, check 9: without query and fragment, after RFC 3986 section 6.2.2 and 6.2.3."""
    verify(good(claims={"htu": url}))


def test_no_path_is_the_root() -> None:
    assert normal_url("https://a.example") == normal_url("https://a.example/")


def test_signature_over_other_bytes() -> None:
    proof = good()
    other = good(claims={"jti": "other"})
    with pytest.raises(InvalidProof):
        verify(f"{proof.rpartition('.')[0]}.{other.rpartition('.')[2]}")


def test_a_claim_twice() -> None:
    """Two readings of one proof are none."""
    header = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": PROVER.jwk}).encode()
    ath = good().split(".")[1]
    with pytest.raises(InvalidProof):
        verify(PROVER.sign(header, b'{"htm": "GET", "htm": "POST", "iat": %d, "ath": "%b"}' % (NOW, ath.encode())))


@pytest.mark.parametrize("fields", [(), (b"a", b"a"), (b"",), (b"x" * (MAX_PROOF_CHARS + 1),), ("é".encode(),)])
def test_field_refused(fields: tuple[bytes, ...]) -> None:
    """Check 1: exactly one, of a sane size."""
    with pytest.raises(InvalidProof):
        proof_field(call(*((b"dpop", value) for value in fields)))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
KEY_MEMBERS = ("kty", "crv", "x", "y", "use", "key_ops", "alg", "kid")


@given(st.sampled_from(["typ", "alg", "jwk", "crit", *KEY_MEMBERS]), ANY_JSON)
def test_any_value_in_the_header(name: str, value: object) -> None:
    """A header member, or one of the key's, that is anything: the proof holds or is refused, nothing else."""
    changed = {"jwk": {**PROVER.jwk, name: value}} if name in KEY_MEMBERS else {name: value}
    with suppress(InvalidProof):
        verify(good(header=changed))


@given(st.sampled_from(["htm", "htu", "iat", "ath", "jti"]), ANY_JSON)
def test_any_value_in_the_claims(name: str, value: object) -> None:
    with suppress(InvalidProof):
        verify(good(claims={name: value}))


@given(st.text(max_size=80), st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4))
def test_any_proof(text: str, members: dict[str, object]) -> None:
    """Any text, and any members in a well-made form, yield InvalidProof and nothing else."""
    for proof in (text, PROVER.sign(json.dumps(members).encode(), json.dumps(members).encode())):
        with pytest.raises(InvalidProof):
            verify(proof)


# ── on the way ──────────────────────────────────────────────────────────────────────────────────────────────────


class House:
    """An authenticator that knows its public URL."""

    def __init__(self, possession: bool = True) -> None:
        self.clock = Hands()
        self.replays = MemoryReplays(self.clock, capacity=4)
        checks = Possession(PUBLIC + "/", self.replays) if possession else None
        self.authenticator = Authenticator(Ring(), self.clock, possession=checks)

    async def subject(self, token: str, proof: str | None, scheme: str = "DPoP", **facts: Any) -> str:
        fields: Headers = ((b"authorization", f"{scheme} {token}".encode()),)
        proofs: Headers = () if proof is None else ((b"dpop", proof.encode()),)
        return (await self.authenticator.authenticate(call(*fields, *proofs, **facts), {ISS: CORP}, "p")).subject

    async def reason(self, *words: Any, **facts: Any) -> Reason:
        with pytest.raises(Unauthenticated) as refused:
            await self.subject(*words, **facts)
        return refused.value.reason


def bound(prover: Prover = PROVER, **confirmation: object) -> str:
    return signer().token(claims={"cnf": {"jkt": prover.thumbprint, **confirmation}})


def prove(token: str, prover: Prover = PROVER, **changes: Any) -> str:
    return prover.proof("POST", URL, token, **{"now": NOW, **changes})


async def test_bound_token_with_its_proof() -> None:
    token = bound()
    assert await House().subject(token, prove(token)) == "alice"


async def test_a_proof_for_each_request_though_the_token_is_remembered() -> None:
    house, token = House(), bound()
    proof = prove(token)
    await house.subject(token, proof)
    assert await house.reason(token, proof) is Reason.TOKEN_REPLAYED
    assert await house.reason(token, None) is Reason.TOKEN_PROOF
    assert await house.subject(token, prove(token)) == "alice"


async def test_two_clients_may_choose_the_same_jti() -> None:
    """Or one could use up another's proofs."""
    house = House()
    for prover in (PROVER, EDWARDS):
        token = bound(prover)
        await house.subject(token, prove(token, prover, claims={"jti": "1"}))


async def test_a_refused_proof_is_not_used_up() -> None:
    house, token = House(), bound()
    proof = prove(token, claims={"jti": "1", "htm": "GET"})
    assert await house.reason(token, proof) is Reason.TOKEN_PROOF
    assert await house.subject(token, prove(token, claims={"jti": "1"})) == "alice"


@pytest.mark.parametrize(
    ("make", "scheme", "reason"),
    [
        (lambda: (bound(), None), "Bearer", Reason.TOKEN_BINDING),
        (lambda: ((token := bound()), prove(token)), "Bearer", Reason.TOKEN_BINDING),
        (lambda: ((token := signer().token()), prove(token)), "DPoP", Reason.TOKEN_BINDING),
        (lambda: ((token := bound()), prove(token, EDWARDS)), "DPoP", Reason.TOKEN_BINDING),
        (lambda: (bound(), prove(signer().token())), "DPoP", Reason.TOKEN_PROOF),
        (lambda: (bound(), None), "DPoP", Reason.TOKEN_PROOF),
    ],
    ids=[
        "bound, as Bearer",
        "bound, as Bearer with a proof",
        "not bound, as DPoP",
        "another's key",
        "another's token",
        "no proof",
    ],
)
async def test_scheme_token_and_key_belong_together(
    make: Callable[[], tuple[str, str | None]], scheme: str, reason: Reason
) -> None:
    """Section 7: a stolen token is worth nothing in any combination."""
    assert await House().reason(*make(), scheme) is reason


async def test_bound_to_both() -> None:
    """A key and a certificate: both are asked for."""
    house, fingerprint = House(), b64(bytes(range(32)))
    token = bound(**{"x5t#S256": fingerprint})
    assert await house.reason(token, prove(token)) is Reason.CERTIFICATE_MISSING
    certificate = Certificate(fingerprint, "01")
    assert await house.subject(token, prove(token), certificate=certificate) == "alice"
    assert await house.reason(token, None, certificate=certificate) is Reason.TOKEN_PROOF


async def test_without_a_public_url() -> None:
    """The scheme is unknown, and a bound token is refused however it comes."""
    house, token = House(possession=False), bound()
    assert await house.reason(token, prove(token), "Bearer") is Reason.TOKEN_BINDING
    with pytest.raises(TokenMissing):
        await house.subject(token, prove(token))


async def test_plain_tokens_go_on() -> None:
    """A stray DPoP field beside a bearer token says nothing."""
    token = signer().token()
    assert await House().subject(token, None, "Bearer") == "alice"
    assert await House().subject(token, "x", "Bearer") == "alice"


def request(authorization: bytes) -> Call:
    return call((b"authorization", authorization))


def test_what_a_caller_is_challenged_with() -> None:
    authenticator = House().authenticator
    assert authenticator.schemes(request(b"DPoP x")) == (Scheme.DPOP,)
    assert authenticator.schemes(request(b"Bearer x")) == (Scheme.BEARER, Scheme.DPOP)
    assert House(possession=False).authenticator.schemes(request(b"DPoP x")) == (Scheme.BEARER,)
