"""Who is at the other end of the socket: taken from the socket and the TLS session, never from a header."""

import asyncio
import base64
import hashlib
import ssl

from cryptography import x509

from proxy.exchange import Certificate, Peer


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Return the facts of a connection; ValueError for a certificate that cannot be read, though its chain held."""
    address = str(transport.get_extra_info("peername")[0])
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return Peer(address)
    cipher = tls.cipher()
    der = tls.getpeercert(binary_form=True)  # set only when the handshake has verified the chain
    return Peer(address, tls.version(), cipher[0] if cipher else None, certificate_of(der) if der else None)


def certificate_of(der: bytes) -> Certificate:
    """Read the names that a policy may mention; the subject is free text and names nobody (RFC 9525 section 2)."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return Certificate(
        fingerprint=base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode("ascii"),
        serial=f"{certificate.serial_number:x}",
        dns_names=tuple(names.get_values_for_type(x509.DNSName)),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
    )
