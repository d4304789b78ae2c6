"""An identity provider for the demo and the tests: it gives a token to whoever asks, so it is never for production.

What it makes is real: access tokens of RFC 9068 with `amr` (RFC 8176), `acr` and `auth_time`, signed with ES256 or
EdDSA by keys that are made at its start and never leave the process; a JWKS (RFC 7517); a discovery document (OpenID
Connect Discovery 1.0). What it does not do: ask for a password or a second factor. Only loopback is bound, and only
under its own name, so that a web page cannot rebind a name to it.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy.demo.loopback import LOOPBACK, LoopbackServer

Algorithm = Literal["ES256", "EdDSA"]
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

AUDIENCE = "inference-proxy"
CLIENT_ID = "hip-demo"
LIFETIME = 3600  # seconds
MAX_FORM_BYTES = 4096
MAX_FORM_FIELDS = 8

DEMO_USERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"alice": ("analyst",), "tom": ("trial",), "olga": ("ops",), "mallory": ()}
)


@dataclass(frozen=True, slots=True)
class _SigningKey:
    kid: str
    algorithm: Algorithm
    private: PrivateKey

    def public(self) -> dict[str, object]:
        """Return the public half as a JWK."""
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            key = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            key = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**key, "kid": self.kid, "use": "sig", "alg": self.algorithm}


class DemoIdentityProvider(LoopbackServer):
    """Tokens for everybody. Its issuer is its own URL, known after `start()`."""

    def __init__(
        self,
        port: int = 0,
        users: Mapping[str, tuple[str, ...]] = DEMO_USERS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._users = users
        self._now = now
        self._generation = 0
        self._current: dict[Algorithm, _SigningKey] = {}
        self._retiring: tuple[_SigningKey, ...] = ()
        self.rotate()
        table = [
            Route("/.well-known/openid-configuration", self._discovery),
            Route("/jwks", self._jwks),
            Route("/token", self._token, methods=["POST"]),
        ]
        rebinding = Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False)
        super().__init__(Starlette(routes=table, middleware=[rebinding]), port)

    @property
    def issuer(self) -> str:
        """The `iss` of every token."""
        return self.url

    @property
    def jwks_uri(self) -> str:
        """Where the public keys are."""
        return f"{self.url}/jwks"

    def jwks(self) -> bytes:
        """Return the public keys as a JWK set, for a policy that reads them from a file."""
        return json.dumps({"keys": [key.public() for key in (*self._current.values(), *self._retiring)]}).encode()

    def rotate(self) -> None:
        """Sign with new keys from now on; the last ones stay published until `retire()` or the next rotation."""
        self._generation += 1
        self._retiring = tuple(self._current.values())
        fresh: tuple[tuple[Algorithm, PrivateKey], ...] = (
            ("ES256", ec.generate_private_key(ec.SECP256R1())),
            ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        )
        self._current = {
            algorithm: _SigningKey(f"{algorithm.lower()}-{self._generation}", algorithm, private)
            for algorithm, private in fresh
        }

    def retire(self) -> None:
        """Publish the current keys only: what the last ones signed is void."""
        self._retiring = ()

    def token(
        self,
        subject: str,
        roles: Sequence[str] = (),
        amr: Sequence[str] = ("pwd", "otp"),
        acr: str | None = None,
        auth_age: int = 0,
        algorithm: Algorithm = "ES256",
        **overrides: object,
    ) -> str:
        """Return a signed access token; `auth_age` is in seconds.

        An override replaces a claim, or takes it out when it is None: that is how a test makes a token that must not
        pass.
        """
        now = int(self._now())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_hex(16),
            "client_id": CLIENT_ID,
            "amr": list(amr),
            "acr": acr,
            "auth_time": now - auth_age,
            "realm_access": {"roles": list(roles)},
        } | overrides
        present = {name: value for name, value in claims.items() if value is not None}
        key = self._current[algorithm]
        # RFC 9068 section 2.1: the type tells an access token from an ID token.
        return jwt.encode(present, key.private, algorithm, headers={"typ": "at+jwt", "kid": key.kid})

    async def _discovery(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "jwks_uri": self.jwks_uri,
                "token_endpoint": f"{self.url}/token",
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": list(self._current),
            }
        )

    async def _jwks(self, _: Request) -> Response:
        return Response(self.jwks(), media_type="application/jwk-set+json")

    async def _token(self, request: Request) -> Response:
        """Answer `user=alice&otp=yes`: not a grant of RFC 6749, which has none without a credential."""
        form = await _form(request)
        user, otp = form.get("user", ""), form.get("otp", "no")
        if user not in self._users or otp not in ("yes", "no") or form.keys() - {"user", "otp"}:
            known = ", ".join(self._users)
            hint = f"send user=NAME and otp=yes or otp=no, once each; the names are: {known}"
            return _uncached({"error": "invalid_request", "error_description": hint}, 400)
        token = self.token(user, self._users[user], ("pwd", "otp") if otp == "yes" else ("pwd",))
        return _uncached({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME}, 200)


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a small urlencoded form; an empty one for anything else, also for a field sent twice."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return {}
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError:
        return {}
    form = dict(pairs)
    return form if len(form) == len(pairs) else {}


def _uncached(content: object, status: int) -> Response:
    return JSONResponse(content, status, {"cache-control": "no-store"})  # RFC 6749 section 5.1
