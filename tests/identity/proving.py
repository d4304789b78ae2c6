"""A client's DPoP key and the proofs it makes (RFC 9449 section 4.2), with any fault one likes."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import get_default_algorithms
from jwt.utils import base64url_encode


def _b64(data: bytes) -> str:
    return base64url_encode(data).decode()


def _key(algorithm: str) -> Any:
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else ec.generate_private_key(ec.SECP256R1())


@dataclass
class Prover:
    """A key pair that never leaves the client."""

    algorithm: str = "ES256"
    private: Any = field(default=None)

    def __post_init__(self) -> None:
        self.private = self.private or _key(self.algorithm)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, only the members that make it up."""
        members = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return {name: members[name] for name in ("kty", "crv", "x", "y") if name in members}

    @property
    def thumbprint(self) -> str:
        """RFC 7638: what `cnf.jkt` of a bound token holds."""
        return _b64(hashlib.sha256(json.dumps(self.jwk, sort_keys=True, separators=(",", ":")).encode()).digest())

    def proof(
        self,
        method: str,
        url: str,
        token: str | None = None,
        *,
        now: float | None = None,
        header: Mapping[str, object] | None = None,
        claims: Mapping[str, object] | None = None,
    ) -> str:
        """A good proof, with other members where asked; a change to None removes the member."""
        facts = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": url, "iat": int(now or time.time())}
        if token is not None:
            facts["ath"] = _b64(hashlib.sha256(token.encode()).digest())
        head = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk}
        return self.sign(_json({**head, **(header or {})}), _json({**facts, **(claims or {})}))

    def sign(self, header: bytes, claims: bytes) -> str:
        """Sign these very bytes."""
        message = f"{_b64(header)}.{_b64(claims)}"
        return f"{message}.{_b64(get_default_algorithms()[self.algorithm].sign(message.encode(), self.private))}"


def _json(members: Mapping[str, object]) -> bytes:
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()
