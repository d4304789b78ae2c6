"""One public key of a key set: whether it may verify tokens, and with which one algorithm (RFC 7517, 7518, 8037).

PyJWT builds the key and does the arithmetic; every choice is made here before, because PyJWT ignores `use`,
`key_ops`, sizes and padding, and would build a private key if it were given one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import InvalidKeyError
from jwt.algorithms import Algorithm, get_default_algorithms

from proxy.identity.notation import decode_base64url
from proxy.identity.token import ALGORITHMS

MAX_KID_CHARS = 256
MIN_RSA_BITS = 2048  # SP 800-57 part 1: 112 bits of strength
MAX_RSA_BITS = 8192  # a larger one only costs time
RSA_EXPONENT = 65537

_ENGINES = get_default_algorithms()

# (kty, crv) → the algorithms that such a key can have (RFC 7518 sections 3.3 to 3.5, RFC 8037 section 3.1).
_ALGORITHMS_OF: Mapping[tuple[str, str | None], frozenset[str]] = MappingProxyType(
    {
        ("RSA", None): frozenset({"RS256", "PS256"}),
        ("EC", "P-256"): frozenset({"ES256"}),
        ("EC", "P-384"): frozenset({"ES384"}),
        ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    }
)
_PUBLIC_MEMBERS: Mapping[str, tuple[str, ...]] = MappingProxyType({"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)})

# The y of every Ed25519 point of order 1, 2, 4 or 8: anybody can sign for such a key, and all zeros is one of them.
_P = 2**255 - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


class Skipped(Exception):
    """A key that is not for us, and why, for the operator. No error: a set may hold keys for others."""

    def __init__(self, because: str) -> None:
        super().__init__(because)
        self.because = because


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key with its one algorithm; a `VerificationKey`."""

    kid: str
    algorithm: str
    engine: Algorithm
    material: object

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether the signature over the message is this key's."""
        return self.engine.verify(message, self.material, signature)


def import_key(entry: Mapping[str, object], algorithms: frozenset[str]) -> PublicKey:
    """Return a key that may verify with one of these algorithms. Raise Skipped."""
    kid, kty, crv = entry.get("kid"), entry.get("kty"), entry.get("crv")
    if not isinstance(kid, str) or not kid.isprintable() or not 0 < len(kid) <= MAX_KID_CHARS:
        raise Skipped(because="no usable kid")
    if not isinstance(kty, str) or not isinstance(crv, str | None) or (kty, crv) not in _ALGORITHMS_OF:
        raise Skipped(because="neither RSA nor P-256, P-384 or Ed25519")
    _check_purpose(entry)
    algorithm = _algorithm(entry, _ALGORITHMS_OF[kty, crv], algorithms)
    members = {name: _member(entry, name) for name in _PUBLIC_MEMBERS[kty]}
    if kty == "OKP" and int.from_bytes(decode_base64url(members["x"]), "little") % 2**255 % _P in _SMALL_ORDER_Y:
        raise Skipped(because="a point of small order")
    engine = _ENGINES[algorithm]
    try:
        material: object = engine.from_jwk({"kty": kty, "crv": crv, **members})
    except (InvalidKeyError, ValueError) as exc:
        raise Skipped(because="no point or modulus of its type") from exc
    if isinstance(material, RSAPublicKey):
        _check_rsa(material)
    return PublicKey(kid, algorithm, engine, material)


def _check_purpose(entry: Mapping[str, object]) -> None:
    # RFC 7517 sections 4.2, 4.3: each says what the key is for; one must, and whichever is there must agree.
    if "use" not in entry and "key_ops" not in entry:
        raise Skipped(because="neither use nor key_ops says that it verifies signatures")
    if entry.get("use", "sig") != "sig":
        raise Skipped(because="use is not sig")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise Skipped(because="key_ops has no verify")


def _algorithm(entry: Mapping[str, object], possible: frozenset[str], algorithms: frozenset[str]) -> str:
    allowed = [name for name in possible & algorithms & ALGORITHMS if entry.get("alg", name) == name]
    if len(allowed) != 1:  # an RSA key without alg, and an issuer that allows both paddings, leaves the choice open
        raise Skipped(because="alg is not one that fits the key and that the issuer's entry allows")
    return allowed[0]


def _member(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    try:
        if isinstance(value, str) and decode_base64url(value):
            return value
    except ValueError as exc:
        raise Skipped(because=f"{name} is not base64url without padding") from exc
    raise Skipped(because=f"{name} is missing")


def _check_rsa(key: RSAPublicKey) -> None:
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise Skipped(because=f"RSA of {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if key.public_numbers().e != RSA_EXPONENT:
        raise Skipped(because=f"an RSA exponent other than {RSA_EXPONENT}")
