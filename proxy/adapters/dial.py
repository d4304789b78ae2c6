"""Dialling: from an upstream's name to a connected, verified socket.

Decides which addresses a name may lead to, and whether the other end is who it should be: TLS 1.2 or better, chain and
name verified, and, where a pin is given, the leaf's public key compared (SHA-256 over SubjectPublicKeyInfo, the form
of RFC 7469). A pin adds to the verification, it replaces nothing.

Not guaranteed: that a private address is a model server. Only link-local and cloud metadata addresses are refused,
because an upstream usually does live in a private network.
"""

import asyncio
import hashlib
import hmac
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

P = TypeVar("P", bound=asyncio.BaseProtocol)
Network = IPv4Network | IPv6Network

FORBIDDEN: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, RFC 3927: the metadata address of most clouds
        "fe80::/10",  # link-local, RFC 4291
        "fd00:ec2::254/128",  # AWS metadata
        "fd20:ce::254/128",  # Google metadata
        "100.100.100.200/32",  # Alibaba metadata
        "168.63.129.16/32",  # Azure wire server
        "192.0.0.192/32",  # Oracle metadata
        "0.0.0.0/8",  # "this host": reaches loopback by another spelling
        "::/128",
        "224.0.0.0/4",  # multicast
        "ff00::/8",
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an upstream lives and how its identity is checked. `context` is None for a plain socket."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    pin: str | None = None  # hexadecimal SHA-256 of the leaf's SubjectPublicKeyInfo
    allowed: tuple[Network, ...] = ()  # exceptions from FORBIDDEN


def tls_context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """Return a verifying client context: the system's CAs, or only those of `ca_file`. Reads files."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # NIST SP 800-52r2 section 3.1
    context.set_alpn_protocols(["http/1.1"])
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


def forbidden(address: str, allowed: tuple[Network, ...]) -> bool:
    """Say whether no upstream may live at this address, in whichever spelling it hides."""
    ip = ip_address(address.partition("%")[0])  # a zone id names an interface, not another address
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or (ip_address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip)
    return any(ip in network for network in FORBIDDEN) and not any(ip in network for network in allowed)


async def dial(to: Destination, protocol: Callable[[], P], deadline: float) -> P:
    """Return a protocol whose connection is open and verified. Raise httpx.ConnectError or httpx.ConnectTimeout."""
    try:
        async with asyncio.timeout_at(deadline):
            addresses = await _resolve(to)
            transport, made = await _connect(to, addresses, protocol, deadline)
    except TimeoutError as exc:
        raise httpx.ConnectTimeout("no connection in time") from exc
    except (OSError, ssl.CertificateError, UnicodeError) as exc:  # UnicodeError: a host that is no name
        raise httpx.ConnectError(_why(exc)) from exc
    if to.pin is not None and not hmac.compare_digest(_spki(transport), to.pin.lower()):
        transport.abort()
        raise httpx.ConnectError("the upstream's public key is not the pinned one")
    return made


async def _resolve(to: Destination) -> list[str]:
    """Return the addresses of the name. One forbidden address among them condemns the name: it is being turned."""
    found = await asyncio.get_running_loop().getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    if any(forbidden(address, to.allowed) for address in addresses):
        raise httpx.ConnectError("the name leads to an address where no upstream may live")
    return addresses


async def _connect(
    to: Destination, addresses: list[str], protocol: Callable[[], P], deadline: float
) -> tuple[asyncio.Transport, P]:
    """Try the addresses in their order, each with an equal share of the time left. No name is resolved again here."""
    loop = asyncio.get_running_loop()
    name = to.host if to.context is not None else None
    failed: OSError | None = None
    for index, address in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - index)
        try:
            async with asyncio.timeout(share):
                return await loop.create_connection(protocol, address, to.port, ssl=to.context, server_hostname=name)
        except OSError as exc:  # TimeoutError is one
            failed = exc
    raise failed or httpx.ConnectError("the name has no address")


def _spki(transport: asyncio.BaseTransport) -> str:
    """Return the hexadecimal SHA-256 of the leaf's SubjectPublicKeyInfo; of nothing, where there is no certificate."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    if der is None:
        return ""
    key = x509.load_der_x509_certificate(der).public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _why(exc: Exception) -> str:
    """Return what helps an operator: why a certificate does not verify, or the system's word for the error."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"no connection: its certificate does not verify, {exc.verify_message}"
    words = exc.strerror if isinstance(exc, OSError) else None
    return f"no connection: {type(exc).__name__}{f', {words}' if words else ''}"
