"""An issuer for development: one key in a directory, and tokens for whoever can read it. For `hip init`, `hip token`.

Real tokens (RFC 9068, ES256) of an issuer that nobody else can be: its name ends in `.test` (RFC 6761 section 6.2).
Not for production: nobody is asked for a password or a second factor. Whoever reads the key is whoever they like.
"""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from proxy.errors import ConfigError, Finding

ISSUER = "https://issuer.hip.test"
AUDIENCE = "inference-proxy"
CLIENT_ID = "hip-development"
KEY_FILE = "signing.key"
JWKS_FILE = "jwks.json"


def make_issuer(directory: Path) -> None:
    """Write a new key and its public half. Raise ConfigError; overwrite nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwks = {"keys": [{**public, "kid": secrets.token_hex(8), "use": "sig", "alg": "ES256"}]}
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in ((KEY_FILE, pem), (JWKS_FILE, json.dumps(jwks, indent=2).encode() + b"\n")):
            descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    except OSError as exc:
        raise ConfigError([Finding(str(directory), 0, 0, f"cannot be written: {exc.strerror}")]) from exc


def development_token(
    directory: Path, *, subject: str, roles: Sequence[str], amr: Sequence[str], lifetime: int, now: int
) -> str:
    """Return an access token that says: signed in now, with these methods. `lifetime` in seconds. Raise ConfigError."""
    try:
        key = serialization.load_pem_private_key((directory / KEY_FILE).read_bytes(), password=None)
        kid = json.loads((directory / JWKS_FILE).read_bytes())["keys"][0]["kid"]
    except (OSError, ValueError, TypeError, LookupError) as exc:
        hint = "name a directory that `hip init` has made without --issuer; else your provider makes the tokens"
        raise ConfigError([Finding(str(directory), 0, 0, "no development issuer here", hint)]) from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError([Finding(str(directory / KEY_FILE), 0, 0, "not a key of the development issuer")])
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "iat": now,
        "exp": now + lifetime,
        "jti": secrets.token_hex(16),
        "client_id": CLIENT_ID,
        "amr": list(amr),
        "auth_time": now,
        "realm_access": {"roles": list(roles)},
    }
    return jwt.encode(claims, key, "ES256", headers={"typ": "at+jwt", "kid": kid})
