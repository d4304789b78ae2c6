"""An issuer for the tests: real keys, real signatures, and tokens with any fault one likes."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from proxy.errors import Unauthenticated
from proxy.exchange import Call, Certificate, Headers, Issuer, Mfa, Peer
from proxy.identity.keyset import parse_key_set
from proxy.ports import VerificationKey
from proxy.reasons import Reason

NOW = 1_800_000_000
ISS = "https://idp.example.com"
AUDIENCE = "inference-proxy"
ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256", "PS256")

CORP = Issuer(
    name="corp",
    issuer=ISS,
    audience=AUDIENCE,
    algorithms=frozenset(ALGORITHMS),
    mfa=Mfa(),
    roles_claim=("realm_access", "roles"),
    jwks_uri=f"{ISS}/jwks",
)
HEADER: Mapping[str, Any] = {"alg": "ES256", "kid": "ES256-1", "typ": "at+jwt"}
CLAIMS: Mapping[str, Any] = {
    "iss": ISS,
    "aud": AUDIENCE,
    "sub": "alice",
    "jti": "token-1",
    "iat": NOW - 60,
    "exp": NOW + 240,
    "auth_time": NOW - 600,
    "amr": ["pwd", "otp"],
    "acr": "urn:example:aal2",
    "client_id": "notebook",
    "realm_access": {"roles": ["analyst"]},
}


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class Signer:
    """A private key with its algorithm and `kid`."""

    algorithm: str
    kid: str
    private: Any

    def jwk(self, **changes: object) -> dict[str, object]:
        """The public key as it stands in a key set; a change to None removes the member."""
        engine = get_default_algorithms()[self.algorithm]
        public = engine.to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        members = {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm, **changes}
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, header: bytes, claims: bytes) -> str:
        """Sign these very bytes."""
        message = f"{b64(header)}.{b64(claims)}"
        return f"{message}.{b64(get_default_algorithms()[self.algorithm].sign(message.encode(), self.private))}"

    def token(self, header: Mapping[str, object] | None = None, claims: Mapping[str, object] | None = None) -> str:
        """A good token, with other members where asked; a change to None removes the member."""
        own = {"alg": self.algorithm, "kid": self.kid}
        return self.sign(_json({**HEADER, **own, **(header or {})}), _json({**CLAIMS, **(claims or {})}))


def _json(members: Mapping[str, object]) -> bytes:
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def signer(algorithm: str = "ES256", kid: str = "") -> Signer:
    """One key per algorithm and kid for the whole run."""
    return _signer(algorithm, kid or f"{algorithm}-1")


@cache
def _signer(algorithm: str, kid: str) -> Signer:
    private: Any
    match algorithm:
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            private = ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        case _:
            private = rsa.generate_private_key(65537, 2048)
    return Signer(algorithm, kid, private)


def key_set(*keys: Mapping[str, object]) -> bytes:
    """A key set document."""
    return json.dumps({"keys": list(keys)}).encode()


@cache
def verification_key(algorithm: str = "ES256") -> VerificationKey:
    """The public half of `signer(algorithm)`, through the hygiene of its key set."""
    public = signer(algorithm)
    return parse_key_set(key_set(public.jwk()), CORP).keys[public.kid]


async def _no_body() -> bytes:
    return b""


def call(*headers: tuple[bytes, bytes], query: str = "", certificate: Certificate | None = None) -> Call:
    """A call with these headers."""
    everything: Headers = ((b"host", b"proxy.example.com"), (b"accept", b"*/*"), *headers)
    return Call(
        "POST", "/v2/models/iris/infer", query, everything, Peer("127.0.0.1", certificate=certificate), _no_body
    )


def bearer(token: str, **facts: Any) -> Call:
    """A call with this token."""
    return call((b"authorization", b"Bearer " + token.encode()), **facts)


class Hands:
    """A clock that goes when told; `now` and `monotonic` go together."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        return NOW + self.passed

    def monotonic(self) -> float:
        return 1000.0 + self.passed


class Ring:
    """A `KeyRing` that holds what it is given and counts who asked."""

    def __init__(self, *algorithms: str) -> None:
        self.keys = {key.kid: key for key in map(verification_key, algorithms or ("ES256",))}
        self.number = 1
        self.asked: list[str] = []

    async def key(self, issuer: Issuer, kid: str) -> VerificationKey:
        self.asked.append(kid)
        if kid not in self.keys:
            raise Unauthenticated(Reason.TOKEN_KEY_UNKNOWN)
        return self.keys[kid]

    def generation(self, issuer: Issuer) -> int:
        return self.number
