"""The hygiene of key sets and of discovery documents: vectors of name, fault and outcome."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from issuing import ALGORITHMS, CORP, ISS, Signer, b64, key_set, signer

from proxy.errors import DependencyFault
from proxy.identity import publickey
from proxy.identity.discovery import configuration_url, discovered_jwks_uri, permitted
from proxy.identity.keyset import MAX_DOCUMENT_BYTES, MAX_KEYS, parse_key_set
from proxy.reasons import Reason

GOOD = signer("ES256", "good").jwk()


def detail_of(document: bytes) -> str:
    with pytest.raises(DependencyFault) as fault:
        parse_key_set(document, CORP)
    assert fault.value.reason is Reason.KEYS_UNAVAILABLE
    return fault.value.detail


def jwk(private: Any, algorithm: str, **changes: object) -> dict[str, object]:
    return Signer(algorithm, "other", private).jwk(**changes)


OKP = signer("EdDSA", "other")
RSA = signer("RS256", "other")
EC = signer("ES256", "other")

SKIPPED: list[tuple[str, dict[str, object], str]] = [
    ("kid missing", EC.jwk(kid=None), "no usable kid"),
    ("kid empty", EC.jwk(kid=""), "no usable kid"),
    ("kid a number", EC.jwk(kid=1), "no usable kid"),
    ("kid with a line feed", EC.jwk(kid="a\nb"), "no usable kid"),
    ("kid too long", EC.jwk(kid="k" * 257), "no usable kid"),
    ("kty missing", EC.jwk(kty=None), "neither RSA nor"),
    ("kty unknown", EC.jwk(kty="AKP"), "neither RSA nor"),
    ("kty an array", EC.jwk(kty=["EC"]), "neither RSA nor"),
    ("kty in lower case", EC.jwk(kty="ec"), "neither RSA nor"),
    ("crv missing", EC.jwk(crv=None), "neither RSA nor"),
    ("crv an array", EC.jwk(crv=["P-256"]), "neither RSA nor"),
    ("P-521", jwk(ec.generate_private_key(ec.SECP521R1()), "ES512"), "neither RSA nor"),
    ("secp256k1", jwk(ec.generate_private_key(ec.SECP256K1()), "ES256K"), "neither RSA nor"),
    ("Ed448", OKP.jwk(crv="Ed448"), "neither RSA nor"),
    ("X25519", OKP.jwk(crv="X25519"), "neither RSA nor"),
    ("for encryption", RSA.jwk(use="enc", alg="RSA-OAEP"), "use is not sig"),
    ("use unknown", EC.jwk(use="SIG"), "use is not sig"),
    ("use an array", EC.jwk(use=["sig"]), "use is not sig"),
    ("neither use nor key_ops", EC.jwk(use=None), "neither use nor key_ops"),
    ("key_ops without verify", EC.jwk(key_ops=["sign"]), "key_ops has no verify"),
    ("key_ops empty", EC.jwk(key_ops=[]), "key_ops has no verify"),
    ("key_ops a string", EC.jwk(key_ops="verify"), "key_ops has no verify"),
    ("key_ops says verify, use says enc", EC.jwk(use="enc", key_ops=["verify"]), "use is not sig"),
    ("alg of another curve", EC.jwk(alg="ES384"), "alg is not one"),
    ("alg of another type", EC.jwk(alg="RS256"), "alg is not one"),
    ("alg none", EC.jwk(alg="none"), "alg is not one"),
    ("alg a number", EC.jwk(alg=1), "alg is not one"),
    ("alg an array", EC.jwk(alg=[]), "alg is not one"),
    ("alg RS1", RSA.jwk(alg="RS1"), "alg is not one"),
    ("RSA without alg, both paddings allowed", RSA.jwk(alg=None), "alg is not one"),
    ("x missing", EC.jwk(x=None), "x is missing"),
    ("x empty", EC.jwk(x=""), "x is missing"),
    ("x a number", EC.jwk(x=1), "x is missing"),
    ("x with padding", EC.jwk(x=str(EC.jwk()["x"]) + "="), "x is not base64url"),
    ("x too short", EC.jwk(x=b64(bytes(31))), "no point"),
    ("not on the curve", EC.jwk(x=b64(b"\1" * 32), y=b64(b"\1" * 32)), "no point"),
    ("the point at zero", EC.jwk(x=b64(bytes(32)), y=b64(bytes(32))), "no point"),
    ("Ed25519 too short", OKP.jwk(x=b64(b"\7" * 31)), "no point"),
    ("Ed25519 all zero", OKP.jwk(x=b64(bytes(32))), "small order"),
    ("Ed25519 the neutral point", OKP.jwk(x=b64(b"\1" + bytes(31))), "small order"),
    ("Ed25519 zero, not canonical", OKP.jwk(x=b64((2**255 - 19).to_bytes(32, "little"))), "small order"),
    ("RSA of 1024 bits", jwk(rsa.generate_private_key(65537, 1024), "RS256"), "RSA of 1024 bits"),
    ("RSA of 16384 bits", RSA.jwk(n=b64(b"\xff" * 2048)), "RSA of 16384 bits"),
    ("RSA exponent 3", RSA.jwk(e=b64(b"\3")), "exponent"),
    ("RSA exponent 1", RSA.jwk(e=b64(b"\1")), "no point or modulus"),
    ("RSA modulus zero", RSA.jwk(n=b64(bytes(256))), "no point or modulus"),
]


@pytest.mark.parametrize(("entry", "why"), [v[1:] for v in SKIPPED], ids=[v[0] for v in SKIPPED])
def test_skipped(entry: dict[str, object], why: str) -> None:
    """The key is left out, the operator is told why, the others serve."""
    found = parse_key_set(key_set(entry, GOOD), CORP)
    assert found.keys.keys() == {"good"}
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("key 1: ")
    assert why in found.skipped[0]


REFUSED: list[tuple[str, bytes, str]] = [
    ("empty", b"", "not one JSON object"),
    ("HTML", b"<!doctype html><title>Sign in</title>", "not one JSON object"),
    ("an array", b"[]", "not one JSON object"),
    ("two documents", key_set(GOOD) * 2, "not one JSON object"),
    ("a name twice", b'{"keys":[],"keys":[]}', "not one JSON object"),
    ("a name twice inside a key", key_set(GOOD).replace(b'"use"', b'"use":"enc","use"'), "not one JSON object"),
    ("deep", b'{"keys":' + b"[" * 90_000, "not one JSON object"),
    ("no keys member", b"{}", "`keys` must be"),
    ("keys an object", b'{"keys":{}}', "`keys` must be"),
    ("keys with a string", b'{"keys":["x"]}', "`keys` must be"),
    ("too many keys", key_set(*([{}] * (MAX_KEYS + 1))), "`keys` must be"),
    ("too many bytes", key_set(GOOD) + b" " * MAX_DOCUMENT_BYTES, "more than"),
    ("no key", b'{"keys":[]}', "the set is empty"),
    ("no usable key", key_set(EC.jwk(use="enc")), "use is not sig"),
    ("two keys of one kid", key_set(GOOD, signer("EdDSA", "good").jwk()), "one kid"),
    ("two keys of one kid, one for encryption", key_set(GOOD, EC.jwk(kid="good", use="enc")), "one kid"),
    ("symmetric", key_set(GOOD, {"kty": "oct", "kid": "s", "k": "AAAA"}), "key 2 is private or symmetric"),
    ("symmetric without its value", key_set(GOOD, {"kty": "oct", "kid": "s"}), "private or symmetric"),
    *[
        (f"private: {name}", key_set({**GOOD, name: "AA"}), "private")
        for name in ("d", "p", "q", "dp", "dq", "qi", "k")
    ],
]


@pytest.mark.parametrize(("document", "why"), [v[1:] for v in REFUSED], ids=[v[0] for v in REFUSED])
def test_refused(document: bytes, why: str) -> None:
    """The whole document is not to be trusted."""
    assert why in detail_of(document)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_good_keys(algorithm: str) -> None:
    found = parse_key_set(key_set(signer(algorithm).jwk(x5t="ignored")), CORP)
    assert [key.algorithm for key in found.keys.values()] == [algorithm]
    assert found.skipped == ()


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "EdDSA"])
def test_alg_follows_from_the_curve(algorithm: str) -> None:
    (key,) = parse_key_set(key_set(signer(algorithm).jwk(alg=None)), CORP).keys.values()
    assert key.algorithm == algorithm


def test_alg_follows_from_the_only_padding_allowed() -> None:
    """An RSA key without `alg`, for an issuer whose entry leaves one choice."""
    (key,) = parse_key_set(key_set(RSA.jwk(alg=None)), replace(CORP, algorithms=frozenset({"PS256"}))).keys.values()
    assert key.algorithm == "PS256"


def test_key_ops_alone_says_it_too() -> None:
    assert parse_key_set(key_set(EC.jwk(use=None, key_ops=["verify"])), CORP).keys


def test_algorithm_that_the_entry_does_not_allow() -> None:
    only = replace(CORP, algorithms=frozenset({"ES256"}))
    assert parse_key_set(key_set(GOOD, OKP.jwk()), only).keys.keys() == {"good"}


def test_small_order_table_is_complete() -> None:
    """Doubling each point of the table three times gives the neutral one; there are no others."""
    p = publickey._P
    d = -121665 * pow(121666, -1, p) % p

    def doubled_y(y: int) -> int:
        # -x² + y² = 1 + d·x²·y², so x² follows from y, and y(2P) = (y² + x²) / (2 + x² - y²)
        xx = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        return (y * y + xx) * pow(2 + xx - y * y, -1, p) % p

    assert {doubled_y(doubled_y(doubled_y(y))) for y in publickey._SMALL_ORDER_Y} == {1}
    assert len(publickey._SMALL_ORDER_Y) == 5


def test_small_order_key_would_accept_any_message() -> None:
    """Why the table is there: this is what the arithmetic says about the neutral point."""
    neutral = ed25519.Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))
    neutral.verify(b"\1" + bytes(63), b"any message")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e"]), JSON))
def test_any_key(changes: dict[str, object]) -> None:
    """Any members beside or instead of good ones: the key serves, is skipped, or the set is refused."""
    for base in (EC, OKP, RSA):
        try:
            found = parse_key_set(key_set({**base.jwk(), **changes}, GOOD), CORP)
        except DependencyFault:
            continue
        assert "good" in found.keys


@given(st.binary())
def test_any_bytes(document: bytes) -> None:
    assert detail_of(document)


# ── discovery ───────────────────────────────────────────────────────────────────────────────────────────────────


def discovery(**changes: object) -> bytes:
    return json.dumps({"issuer": ISS, "jwks_uri": f"{ISS}/jwks", **changes}).encode()


def test_discovery() -> None:
    assert configuration_url(CORP) == f"{ISS}/.well-known/openid-configuration"
    assert configuration_url(replace(CORP, issuer=f"{ISS}/t1/")) == f"{ISS}/t1/.well-known/openid-configuration"
    assert discovered_jwks_uri(discovery(), CORP) == f"{ISS}/jwks"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"issuer":"%s","issuer":"%s"}' % (ISS.encode(), ISS.encode()),
        discovery(issuer="https://evil.example.com"),
        discovery(issuer=ISS + "/"),
        discovery(issuer=None),
        discovery(jwks_uri=None),
        discovery(jwks_uri=[f"{ISS}/jwks"]),
        discovery(jwks_uri="http://idp.example.com/jwks"),
        discovery(jwks_uri="file:///etc/passwd"),
    ],
)
def test_discovery_refused(document: bytes) -> None:
    with pytest.raises(DependencyFault):
        discovered_jwks_uri(document, CORP)


@pytest.mark.parametrize("url", ["https://a.example/x", "http://127.0.0.1:8/x", "http://[::1]/x", "http://localhost/"])
def test_permitted(url: str) -> None:
    assert permitted(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.example.com/jwks",
        "https://",
        "https:///x",
        "http://idp.example.com/x",
        "http://10.0.0.1/x",
        "http://127.0.0.1.evil.example/x",
        "http://localhost.evil.example/x",
        "http://localhost@evil.example/x",
        "https://user:password@idp.example.com/x",
        "https://idp.example.com:0/x",
        "https://idp.example.com:99999/x",
        "https://[::1/x",
        "https://idp.example.com/\r\nx",
        "https://idp.examplé.com/x",
        "ftp://idp.example.com/x",
        "file:///etc/jwks",
    ],
)
def test_not_permitted(url: str) -> None:
    with pytest.raises(DependencyFault):
        permitted(url)
