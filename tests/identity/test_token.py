"""Every line of the JWT and bound-token rules as a vector: name, fault, reason (RFC 8725, 9068, 7515, 8705)."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from issuing import ALGORITHMS, AUDIENCE, CLAIMS, CORP, HEADER, ISS, NOW, b64, signer, verification_key

from proxy.errors import Unauthenticated
from proxy.exchange import Certificate, Issuer, Principal
from proxy.identity.claims import MAX_ITEMS, MAX_TEXT, MAX_TIME
from proxy.identity.token import check_binding, peek, verify
from proxy.reasons import Reason

FINGERPRINT = b64(bytes(range(32)))


def judge(token: str, issuer: Issuer = CORP, algorithm: str = "ES256") -> Principal:
    return verify(peek(token), verification_key(algorithm), issuer, now=NOW)


def reason_of(token: str, issuer: Issuer = CORP) -> Reason:
    with pytest.raises(Unauthenticated) as refused:
        judge(token, issuer)
    assert refused.value.detail, "an auditor is told more than the reason"
    return refused.value.reason


HEADERS: list[tuple[str, dict[str, object], Reason]] = [
    ("alg missing", {"alg": None}, Reason.TOKEN_ALGORITHM),
    ("alg none", {"alg": "none"}, Reason.TOKEN_ALGORITHM),
    ("alg None", {"alg": "None"}, Reason.TOKEN_ALGORITHM),
    ("alg NONE", {"alg": "NONE"}, Reason.TOKEN_ALGORITHM),
    ("alg nOnE", {"alg": "nOnE"}, Reason.TOKEN_ALGORITHM),
    ("alg HS256", {"alg": "HS256"}, Reason.TOKEN_ALGORITHM),
    ("alg HS512", {"alg": "HS512"}, Reason.TOKEN_ALGORITHM),
    ("alg ES256K", {"alg": "ES256K"}, Reason.TOKEN_ALGORITHM),
    ("alg RS512", {"alg": "RS512"}, Reason.TOKEN_ALGORITHM),
    ("alg in lower case", {"alg": "es256"}, Reason.TOKEN_ALGORITHM),
    ("alg with a space", {"alg": "ES256 "}, Reason.TOKEN_ALGORITHM),
    ("alg an array", {"alg": ["ES256"]}, Reason.TOKEN_ALGORITHM),
    ("alg another than the key's", {"alg": "RS256"}, Reason.TOKEN_ALGORITHM),
    ("kid missing", {"kid": None}, Reason.TOKEN_KEY_UNKNOWN),
    ("kid empty", {"kid": ""}, Reason.TOKEN_KEY_UNKNOWN),
    ("kid a number", {"kid": 1}, Reason.TOKEN_KEY_UNKNOWN),
    ("kid a path with NUL", {"kid": "../../dev/null\0"}, Reason.TOKEN_KEY_UNKNOWN),
    ("kid too long", {"kid": "k" * (MAX_TEXT + 1)}, Reason.TOKEN_KEY_UNKNOWN),
    ("kid another than the key's", {"kid": "ES256-2"}, Reason.TOKEN_KEY_UNKNOWN),
    ("typ missing", {"typ": None}, Reason.TOKEN_TYPE),
    ("typ of an ID token", {"typ": "JWT"}, Reason.TOKEN_TYPE),
    ("typ in another case", {"typ": "AT+JWT"}, Reason.TOKEN_TYPE),
    ("typ of a logout token", {"typ": "logout+jwt"}, Reason.TOKEN_TYPE),
    ("typ of a DPoP proof", {"typ": "dpop+jwt"}, Reason.TOKEN_TYPE),
    ("typ an object", {"typ": {}}, Reason.TOKEN_TYPE),
    ("typ empty", {"typ": ""}, Reason.TOKEN_TYPE),
    ("crit unknown", {"crit": ["exp"], "exp": NOW}, Reason.TOKEN_MALFORMED),
    ("crit empty", {"crit": []}, Reason.TOKEN_MALFORMED),
    ("b64 false", {"crit": ["b64"], "b64": False}, Reason.TOKEN_MALFORMED),
    ("b64 true", {"b64": True}, Reason.TOKEN_MALFORMED),
    ("zip", {"zip": "DEF"}, Reason.TOKEN_MALFORMED),
    ("enc", {"enc": "A256GCM"}, Reason.TOKEN_MALFORMED),
    ("jwk embedded", {"jwk": signer("ES384").jwk()}, Reason.TOKEN_MALFORMED),
    ("x5c embedded", {"x5c": ["MIIB"]}, Reason.TOKEN_MALFORMED),
    ("jku", {"jku": "https://evil.example.com/jwks"}, Reason.TOKEN_MALFORMED),
    ("x5u", {"x5u": "https://evil.example.com/x5c"}, Reason.TOKEN_MALFORMED),
]

CLAIM_FAULTS: list[tuple[str, dict[str, object], Reason]] = [
    ("iss missing", {"iss": None}, Reason.TOKEN_ISSUER),
    ("iss with a slash more", {"iss": ISS + "/"}, Reason.TOKEN_ISSUER),
    ("iss in another case", {"iss": ISS.upper()}, Reason.TOKEN_ISSUER),
    ("iss a prefix", {"iss": ISS[:-1]}, Reason.TOKEN_ISSUER),
    ("iss an array", {"iss": [ISS]}, Reason.TOKEN_ISSUER),
    ("aud missing", {"aud": None}, Reason.TOKEN_AUDIENCE),
    ("aud another", {"aud": "billing"}, Reason.TOKEN_AUDIENCE),
    ("aud a longer name", {"aud": AUDIENCE + "-2"}, Reason.TOKEN_AUDIENCE),
    ("aud empty", {"aud": []}, Reason.TOKEN_AUDIENCE),
    ("aud with a number", {"aud": [AUDIENCE, 1]}, Reason.TOKEN_AUDIENCE),
    ("aud an object", {"aud": {AUDIENCE: True}}, Reason.TOKEN_AUDIENCE),
    ("aud nested", {"aud": [[AUDIENCE]]}, Reason.TOKEN_AUDIENCE),
    ("aud too many", {"aud": [AUDIENCE] * (MAX_ITEMS + 1)}, Reason.TOKEN_AUDIENCE),
    ("sub missing", {"sub": None}, Reason.TOKEN_CLAIMS),
    ("sub empty", {"sub": ""}, Reason.TOKEN_CLAIMS),
    ("sub a number", {"sub": 7}, Reason.TOKEN_CLAIMS),
    ("sub with a line feed", {"sub": "alice\nadmin"}, Reason.TOKEN_CLAIMS),
    ("sub with NUL", {"sub": "alice\0"}, Reason.TOKEN_CLAIMS),
    ("sub with a bidirectional override", {"sub": "ali\u202ece"}, Reason.TOKEN_CLAIMS),
    ("sub too long", {"sub": "a" * (MAX_TEXT + 1)}, Reason.TOKEN_CLAIMS),
    ("jti missing", {"jti": None}, Reason.TOKEN_CLAIMS),
    ("jti empty", {"jti": ""}, Reason.TOKEN_CLAIMS),
    ("jti a number", {"jti": 1}, Reason.TOKEN_CLAIMS),
    ("exp missing", {"exp": None}, Reason.TOKEN_CLAIMS),
    ("exp a string", {"exp": str(NOW + 60)}, Reason.TOKEN_CLAIMS),
    ("exp a float", {"exp": NOW + 60.0}, Reason.TOKEN_CLAIMS),
    ("exp 1e300", {"exp": 1e300}, Reason.TOKEN_CLAIMS),
    ("exp true", {"exp": True}, Reason.TOKEN_CLAIMS),
    ("exp negative", {"exp": -1}, Reason.TOKEN_CLAIMS),
    ("exp after the year 9999", {"exp": MAX_TIME + 1}, Reason.TOKEN_CLAIMS),
    ("exp beyond 64 bits", {"exp": 10**30}, Reason.TOKEN_CLAIMS),
    ("exp before iat", {"exp": NOW - 61 + 30, "iat": NOW - 10}, Reason.TOKEN_EXPIRED),
    ("exp not after iat", {"exp": NOW, "iat": NOW}, Reason.TOKEN_CLAIMS),
    ("exp just passed", {"exp": NOW - CORP.leeway}, Reason.TOKEN_EXPIRED),
    ("exp long ago", {"exp": NOW - 86_400, "iat": NOW - 90_000}, Reason.TOKEN_EXPIRED),
    ("iat missing", {"iat": None}, Reason.TOKEN_CLAIMS),
    ("iat a string", {"iat": str(NOW)}, Reason.TOKEN_CLAIMS),
    ("iat false", {"iat": False}, Reason.TOKEN_CLAIMS),
    ("iat in the future", {"iat": NOW + CORP.leeway + 1}, Reason.TOKEN_NOT_YET_VALID),
    ("nbf in the future", {"nbf": NOW + CORP.leeway + 1}, Reason.TOKEN_NOT_YET_VALID),
    ("nbf a float", {"nbf": NOW - 60.5}, Reason.TOKEN_CLAIMS),
    ("auth_time a string", {"auth_time": str(NOW)}, Reason.TOKEN_CLAIMS),
    ("auth_time a float", {"auth_time": NOW - 0.5}, Reason.TOKEN_CLAIMS),
    ("amr a string", {"amr": "mfa"}, Reason.TOKEN_CLAIMS),
    ("amr with a number", {"amr": ["pwd", 1]}, Reason.TOKEN_CLAIMS),
    ("amr an object", {"amr": {"mfa": True}}, Reason.TOKEN_CLAIMS),
    ("acr a number", {"acr": 2}, Reason.TOKEN_CLAIMS),
    ("client_id an array", {"client_id": ["a"]}, Reason.TOKEN_CLAIMS),
    ("roles an object", {"realm_access": {"roles": {"admin": True}}}, Reason.TOKEN_CLAIMS),
    ("roles with a number", {"realm_access": {"roles": ["analyst", 1]}}, Reason.TOKEN_CLAIMS),
    ("roles behind a string", {"realm_access": "roles"}, Reason.TOKEN_CLAIMS),
    ("an ID token by its claims", {"at_hash": "x"}, Reason.TOKEN_TYPE),
    ("a security event", {"events": {}}, Reason.TOKEN_TYPE),
    ("cnf a string", {"cnf": FINGERPRINT}, Reason.TOKEN_BINDING),
    ("cnf empty", {"cnf": {}}, Reason.TOKEN_BINDING),
    ("cnf jkt of a wrong length", {"cnf": {"jkt": FINGERPRINT[:-2]}}, Reason.TOKEN_BINDING),
    ("cnf unknown beside one that is known", {"cnf": {"jkt": FINGERPRINT, "kid": "k"}}, Reason.TOKEN_BINDING),
    ("cnf unknown", {"cnf": {"kid": "x"}}, Reason.TOKEN_BINDING),
    ("cnf of two kinds", {"cnf": {"x5t#S256": FINGERPRINT, "jkt": "x"}}, Reason.TOKEN_BINDING),
    ("x5t#S256 with padding", {"cnf": {"x5t#S256": FINGERPRINT + "="}}, Reason.TOKEN_BINDING),
    ("x5t#S256 too short", {"cnf": {"x5t#S256": FINGERPRINT[:-4]}}, Reason.TOKEN_BINDING),
    ("x5t#S256 a number", {"cnf": {"x5t#S256": 1}}, Reason.TOKEN_BINDING),
]


@pytest.mark.parametrize(("fault", "reason"), [v[1:] for v in HEADERS], ids=[v[0] for v in HEADERS])
def test_header(fault: dict[str, object], reason: Reason) -> None:
    """A header that is not exactly what the issuer's entry allows, under a good signature."""
    assert reason_of(signer().token(header=fault)) is reason


@pytest.mark.parametrize(("fault", "reason"), [v[1:] for v in CLAIM_FAULTS], ids=[v[0] for v in CLAIM_FAULTS])
def test_claim(fault: dict[str, object], reason: Reason) -> None:
    """A claim that is missing, of the wrong form or not for us, under a good signature."""
    assert reason_of(signer().token(claims=fault)) is reason


GOOD = signer().token()
HEAD, BODY, SIGNATURE = GOOD.split(".")

FORMS: list[tuple[str, str]] = [
    ("empty", ""),
    ("dots only", ".."),
    ("two parts", f"{HEAD}.{BODY}"),
    ("four parts", GOOD + ".x"),
    ("JWE, five parts", f"{HEAD}.{HEAD}.{HEAD}.{BODY}.{SIGNATURE}"),
    ("JSON serialisation", json.dumps({"protected": HEAD, "payload": BODY, "signature": SIGNATURE})),
    ("detached payload", f"{HEAD}..{SIGNATURE}"),
    ("padding at the end", GOOD + "=="),
    ("padding in the header", f"{HEAD}=.{BODY}.{SIGNATURE}"),
    ("trailing space", GOOD + " "),
    ("trailing line feed", GOOD + "\n"),
    ("trailing NUL", GOOD + "\0"),
    ("base64 instead of base64url", f"{HEAD}+/.{BODY}.{SIGNATURE}"),
    ("one character left over", f"{HEAD}.{BODY}.{SIGNATURE}AAA"),
    ("spare bits set", f"{HEAD}.{BODY}.{SIGNATURE[:-1]}{chr(ord(SIGNATURE[-1]) + 1)}"),
    ("digits of another script", f"{HEAD}.{BODY}.\u0661"),
]


@pytest.mark.parametrize("token", [v[1] for v in FORMS], ids=[v[0] for v in FORMS])
def test_form(token: str) -> None:
    """Anything but three canonical base64url parts."""
    assert reason_of(token) is Reason.TOKEN_MALFORMED


BYTES: list[tuple[str, Callable[[bytes, bytes], tuple[bytes, bytes]]]] = [
    ("duplicate claim", lambda h, c: (h, c[:-1] + b',"sub":"root"}')),
    ("duplicate claim, spelled with an escape", lambda h, c: (h, c[:-1] + b',"s\\u0075b":"root"}')),
    ("duplicate name inside a claim", lambda h, c: (h, c[:-1] + b',"x":[{"a":1,"a":2}]}')),
    ("duplicate header", lambda h, c: (h[:-1] + b',"alg":"none"}', c)),
    ("claims an array", lambda h, c: (h, b"[" + c + b"]")),
    ("claims a string", lambda h, c: (h, b'"x"')),
    ("header null", lambda h, c: (b"null", c)),
    ("trailing junk", lambda h, c: (h, c + b"{}")),
    ("NaN", lambda h, c: (h, c[:-1] + b',"x":NaN}')),
    ("-Infinity", lambda h, c: (h, c[:-1] + b',"x":-Infinity}')),
    ("a number beyond float64", lambda h, c: (h, c[:-1] + b',"x":1e999}')),
    ("an integer of 5,000 digits", lambda h, c: (h, c[:-1] + b',"x":' + b"9" * 5000 + b"}")),
    ("lone surrogate", lambda h, c: (h, c[:-1] + b',"x":"\\ud800"}')),
    ("byte order mark", lambda h, c: (h, b"\xef\xbb\xbf" + c)),
    ("UTF-16", lambda h, c: (h, c.decode().encode("utf-16"))),
    ("not UTF-8", lambda h, c: (h, c[:-1] + b',"x":"\xff"}')),
    ("raw line feed in a string", lambda h, c: (h, c[:-1] + b',"x":"\n"}')),
    ("100,000 levels deep", lambda h, c: (h, c[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
]


@pytest.mark.parametrize("change", [v[1] for v in BYTES], ids=[v[0] for v in BYTES])
def test_bytes(change: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> None:
    """JSON with a second reading, under a good signature."""
    header, claims = json.dumps(dict(HEADER)).encode(), json.dumps(dict(CLAIMS)).encode()
    assert reason_of(signer().sign(*change(header, claims))) is Reason.TOKEN_MALFORMED


def test_signature_of_other_claims() -> None:
    other = signer().token(claims={"sub": "root"})
    assert reason_of(f"{other.rpartition('.')[0]}.{SIGNATURE}") is Reason.TOKEN_SIGNATURE


def test_signature_missing() -> None:
    assert reason_of(f"{HEAD}.{BODY}.") is Reason.TOKEN_SIGNATURE


def test_signature_all_zero() -> None:
    """CVE-2022-21449, psychic signatures: r = s = 0."""
    assert reason_of(f"{HEAD}.{BODY}.{b64(bytes(64))}") is Reason.TOKEN_SIGNATURE


def test_signature_in_asn1() -> None:
    """JWS has r and s side by side; the DER form is another text for one signature."""
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    raw = peek(GOOD).signature
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    assert reason_of(f"{HEAD}.{BODY}.{b64(der)}") is Reason.TOKEN_SIGNATURE


def test_public_key_as_hmac_secret() -> None:
    """The oldest confusion: a token signed with HS256 and the public key's text."""
    import hashlib
    import hmac

    message = f"{b64(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{BODY}"
    secret = json.dumps(signer().jwk()).encode()
    token = f"{message}.{b64(hmac.digest(secret, message.encode(), hashlib.sha256))}"
    assert reason_of(token) is Reason.TOKEN_ALGORITHM


def test_algorithm_that_the_issuer_does_not_allow() -> None:
    assert reason_of(GOOD, replace(CORP, algorithms=frozenset({"EdDSA"}))) is Reason.TOKEN_ALGORITHM


def test_none_even_when_the_policy_allows_it() -> None:
    """The closed list of algorithms stands below every policy."""
    lax = replace(CORP, algorithms=frozenset({"none", "HS256"}))
    assert reason_of(signer().token(header={"alg": "none"}), lax) is Reason.TOKEN_ALGORITHM


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_real_signatures(algorithm: str) -> None:
    """Each allowed algorithm verifies, and not after one changed bit."""
    token = signer(algorithm).token()
    assert judge(token, algorithm=algorithm).subject == "alice"
    unverified = peek(token)
    for position in (0, len(unverified.signature) // 2, len(unverified.signature) - 1):
        flipped = bytearray(unverified.signature)
        flipped[position] ^= 1
        with pytest.raises(Unauthenticated) as refused:
            verify(replace(unverified, signature=bytes(flipped)), verification_key(algorithm), CORP, now=NOW)
        assert refused.value.reason is Reason.TOKEN_SIGNATURE


def test_principal() -> None:
    """Every field comes from its claim."""
    from hashlib import sha256

    principal = judge(GOOD)
    assert principal.issuer == "corp"
    assert principal.subject == "alice"
    assert principal.roles == {"analyst"}
    assert principal.factors == {"pwd", "otp"}
    assert principal.acr == "urn:example:aal2"
    assert principal.auth_time == NOW - 600
    assert (principal.issued_at, principal.expires_at) == (NOW - 60, NOW + 240)
    assert (principal.token_id, principal.key_id, principal.client) == ("token-1", "ES256-1", "notebook")
    assert principal.token_digest == sha256(GOOD.encode()).digest()
    assert principal.certificate is None
    assert principal.claims["client_id"] == "notebook"


ACCEPTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("the long media type", {"typ": "application/at+jwt"}, {}),
    ("a header that nobody has to understand", {"x5t": "abc", "cty": "x"}, {}),
    ("aud a list with ours", {}, {"aud": ["billing", AUDIENCE]}),
    ("exp within the leeway", {}, {"exp": NOW - CORP.leeway + 1}),
    ("iat within the leeway", {}, {"iat": NOW + CORP.leeway}),
    ("nbf within the leeway", {}, {"nbf": NOW + CORP.leeway}),
    ("nbf past", {}, {"nbf": NOW - 1}),
    ("no amr, acr, auth_time, client", {}, dict.fromkeys(("amr", "acr", "auth_time", "client_id"))),
    ("a subject of another script", {}, {"sub": "Алиса 愛麗絲"}),
    ("an unknown claim, whatever it is", {}, {"x": [1.5, None, {"y": "\u202e"}]}),
]


@pytest.mark.parametrize(("header", "claims"), [v[1:] for v in ACCEPTED], ids=[v[0] for v in ACCEPTED])
def test_accepted(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """What the standards allow is not refused."""
    assert judge(signer().token(header, claims)).token_id == "token-1"


def test_no_roles() -> None:
    """A missing roles claim is no role, not an error: the policy denies by default."""
    assert judge(signer().token(claims={"realm_access": None})).roles == frozenset()
    assert judge(signer().token(claims={"realm_access": {}})).roles == frozenset()


def test_one_string_is_one_role() -> None:
    token = signer().token(claims={"groups": "analyst admin"})
    assert judge(token, replace(CORP, roles_claim=("groups",))).roles == {"analyst admin"}


SCOPES = [
    ("one", "read", {"read"}),
    ("several", "read openid https://api.example/infer", {"read", "openid", "https://api.example/infer"}),
    ("a list, as some providers write it", ["read", "infer"], {"read", "infer"}),
    ("none", None, set()),
    ("empty", "", None),
    ("two spaces", "read  infer", None),
    ("a space before", " read", None),
    ("a line break", "read\ninfer", None),
    ("a quotation mark", 'read "infer"', None),
    ("a number", 7, None),
    ("too many", " ".join(map(str, range(257))), None),
]


@pytest.mark.parametrize(("value", "roles"), [case[1:] for case in SCOPES], ids=[case[0] for case in SCOPES])
def test_scope_is_the_list_that_its_standard_says(value: object, roles: set[str] | None) -> None:
    """RFC 9068 section 2.2.3; only at the top of the token, where the standard has it."""
    scoped = replace(CORP, roles_claim=("scope",))
    token = signer().token(claims={"scope": value})
    if roles is None:
        assert reason_of(token, scoped) is Reason.TOKEN_CLAIMS
    else:
        assert judge(token, scoped).roles == roles
    within = signer().token(claims={"resource": {"scope": "read infer"}})
    assert judge(within, replace(CORP, roles_claim=("resource", "scope"))).roles == {"read infer"}


def test_azp_names_the_client_where_client_id_does_not() -> None:
    assert judge(signer().token(claims={"client_id": None, "azp": "web"})).client == "web"


def test_kubernetes_service_account() -> None:
    """Their tokens carry no `typ`; the issuer's entry lists the empty string, and the subject serves as the role."""
    cluster = replace(CORP, token_types=frozenset({""}), roles_claim=("sub",))
    claims = {"sub": "system:serviceaccount:ml:batch", "amr": None, "kubernetes.io": {"namespace": "ml"}}
    token = signer().token(header={"typ": None}, claims=claims)
    assert judge(token, cluster).roles == {"system:serviceaccount:ml:batch"}
    assert reason_of(signer().token(), cluster) is Reason.TOKEN_TYPE


def test_certificate_binding() -> None:
    """RFC 8705 section 3: the token's certificate, and no other, on this very connection."""
    bound = judge(signer().token(claims={"cnf": {"x5t#S256": FINGERPRINT}}))
    assert bound.certificate == FINGERPRINT
    check_binding(bound, Certificate(FINGERPRINT, "01"))
    for certificate, reason in (
        (None, Reason.CERTIFICATE_MISSING),
        (Certificate(b64(bytes(32)), "01"), Reason.TOKEN_BINDING),
        (Certificate(FINGERPRINT + "=", "01"), Reason.TOKEN_BINDING),
    ):
        with pytest.raises(Unauthenticated) as refused:
            check_binding(bound, certificate)
        assert refused.value.reason is reason


def test_unbound_token_on_a_connection_with_certificate() -> None:
    check_binding(judge(GOOD), Certificate(FINGERPRINT, "01"))


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}\.[A-Za-z0-9_-]{0,80}", fullmatch=True))
def test_any_text_is_refused(token: str) -> None:
    """Any text that our issuer did not sign yields Unauthenticated and nothing else."""
    with pytest.raises(Unauthenticated):
        judge(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*HEADER, "crit", "cty"]), JSON, max_size=3),
    st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "cnf", "azp"]), JSON, max_size=4),
)
def test_any_signed_claims_are_judged(header: dict[str, object], claims: dict[str, object]) -> None:
    """A good signature over any JSON yields a sound Principal or Unauthenticated and nothing else."""
    try:
        principal = judge(signer().token(header, claims))
    except Unauthenticated:
        return
    assert principal.subject.isprintable()
    assert type(principal.expires_at) is int
    assert principal.expires_at > NOW - CORP.leeway
    assert all(isinstance(role, str) for role in principal.roles | principal.factors)


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_one_changed_character(position: int, character: str) -> None:
    """No other text passes as this token: there is one spelling of it."""
    changed = GOOD[:position] + character + GOOD[position + 1 :]
    if changed != GOOD:
        with pytest.raises(Unauthenticated):
            judge(changed)
