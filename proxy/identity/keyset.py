"""Which keys of a published key set may verify a token (RFC 7517).

The whole document is refused where trusting any of it would be a mistake: not one JSON object, too large, two keys
under one `kid`, a private or symmetric key that anybody could have read, nothing usable. A single key is skipped
where the set holds it for somebody else (RFC 7517 section 5: encryption keys, algorithms that the issuer's entry
does not allow, unknown types), or where it is too weak; `KeySet.skipped` tells the operator which and why.

Not guaranteed: that the document came from the issuer. The TLS connection or the file's owner answers for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from proxy.errors import DependencyFault
from proxy.exchange import Issuer
from proxy.identity.notation import decode_object
from proxy.identity.publickey import Skipped, import_key
from proxy.ports import VerificationKey
from proxy.reasons import Reason

MAX_DOCUMENT_BYTES = 256 * 1024  # bytes
MAX_KEYS = 64

PRIVATE_MEMBERS = frozenset({"d", "dp", "dq", "k", "oth", "p", "q", "qi"})  # RFC 7518 sections 6.2.2, 6.3.2, 6.4.1


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys by `kid`, never empty, and what was skipped, in words for the operator."""

    keys: Mapping[str, VerificationKey]
    skipped: tuple[str, ...]


def parse_key_set(document: bytes, issuer: Issuer) -> KeySet:
    """Return the issuer's usable keys. Raise DependencyFault(KEYS_UNAVAILABLE) for a set that is not to be trusted."""
    entries = _entries(document)
    kids = [entry["kid"] for entry in entries if isinstance(entry.get("kid"), str)]
    if len(set(kids)) != len(kids):
        raise _unusable("two keys have one kid: which of them a token means is undecidable")
    keys: dict[str, VerificationKey] = {}
    skipped: list[str] = []
    for number, entry in enumerate(entries, start=1):
        if entry.get("kty") == "oct" or PRIVATE_MEMBERS & entry.keys():
            raise DependencyFault(
                Reason.KEYS_UNAVAILABLE,
                f"key {number} is private or symmetric: who can read this set can sign; replace the key",
            )
        try:
            key = import_key(entry, issuer.algorithms)
        except Skipped as why:
            skipped.append(f"key {number}: {why.because}")
        else:
            keys[key.kid] = key
    if not keys:
        raise _unusable("no usable key: " + ("; ".join(skipped) or "the set is empty"))
    return KeySet(MappingProxyType(keys), tuple(skipped))


def _entries(document: bytes) -> list[dict[str, object]]:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"the key set has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        entries = decode_object(document).get("keys")
    except ValueError as exc:
        raise _unusable("the key set is not one JSON object with unique names") from exc
    if not isinstance(entries, list) or len(entries) > MAX_KEYS or not all(isinstance(key, dict) for key in entries):
        raise DependencyFault(Reason.KEYS_UNAVAILABLE, f"`keys` must be an array of at most {MAX_KEYS} objects")
    return entries


def _unusable(detail: str) -> DependencyFault:
    return DependencyFault(Reason.KEYS_UNAVAILABLE, detail)
