"""Where an issuer's keys are: OpenID Connect Discovery 1.0 sections 4.1 and 4.3, and which URLs we ask at all.

Keys come over TLS, or from this machine. A provider's document names the place, but only for the issuer that we
asked for. Not guaranteed: that the named host is the provider's own; discovery lets a provider host its keys anywhere.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from proxy.errors import DependencyFault
from proxy.exchange import Issuer
from proxy.identity.notation import decode_object
from proxy.reasons import Reason

_WELL_KNOWN = "/.well-known/openid-configuration"


def configuration_url(issuer: Issuer) -> str:
    """Return where the issuer's discovery document is. Raise DependencyFault(KEYS_UNAVAILABLE)."""
    return permitted(issuer.issuer.removesuffix("/") + _WELL_KNOWN)  # section 4.1: a final slash is removed


def discovered_jwks_uri(document: bytes, issuer: Issuer) -> str:
    """Return the place that a discovery document names. Raise DependencyFault(KEYS_UNAVAILABLE)."""
    try:
        configuration = decode_object(document)
    except ValueError as exc:
        raise _unusable("the discovery document is not one JSON object with unique names") from exc
    if configuration.get("issuer") != issuer.issuer:  # section 4.3: exactly, or another issuer answers for this one
        raise _unusable("the discovery document is another issuer's")
    uri = configuration.get("jwks_uri")
    if not isinstance(uri, str):
        raise _unusable("the discovery document has no jwks_uri")
    return permitted(uri)


def permitted(url: str) -> str:
    """Return the URL if keys may come from there: https, or http on the loopback. Raise DependencyFault."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise _unusable("the address of the keys is no URL") from exc
    if not host or port == 0 or parts.username is not None or not url.isprintable() or not url.isascii():
        raise _unusable("the address of the keys is no plain URL: scheme, host, path")
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(host)):
        raise _unusable("the address of the keys is neither https nor on this machine's loopback")
    return url


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unusable(detail: str) -> DependencyFault:
    return DependencyFault(Reason.KEYS_UNAVAILABLE, detail)
