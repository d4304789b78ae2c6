"""Where an upstream may live, and who it must prove to be."""

import datetime as dt
import hashlib
import ssl
import warnings
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from raw_upstream import INFER, Step, client, ok, raw_upstream, upstream

from proxy.adapters.dial import forbidden
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.errors import ConfigError, UpstreamFault
from proxy.exchange import Upstream
from proxy.reasons import Reason

# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("169.254.169.254", True),
        ("169.254.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("::ffff:a9fe:a9fe", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("fd20:ce::254", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("0.0.0.0", True),
        ("::", True),
        ("224.0.0.1", True),
        ("ff02::1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("192.168.1.1", False),
        ("fd00::1", False),
        ("::1", False),
        ("203.0.113.1", False),
    ],
)
def test_addresses(address: str, refused: bool) -> None:
    assert forbidden(address, ()) is refused


def test_an_address_can_be_allowed_in_words() -> None:
    allowed = (ip_network("169.254.10.0/24"),)
    assert not forbidden("169.254.10.1", allowed)
    assert forbidden("169.254.169.254", allowed)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "169.254.43518", "::ffff:169.254.169.254"]
)
async def test_no_spelling_of_the_metadata_address_is_dialled(host: str) -> None:
    """The check is on what the resolver returns, so that a spelling or a name cannot walk around it."""
    async with client() as sending:
        with pytest.raises(UpstreamFault) as caught:
            await sending.send(upstream(80, host=host), INFER)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    assert caught.value.detail.endswith("an address where no upstream may live")


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pki:
    """A CA, a certificate for the upstream's name and one for us."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.server = self.ca.issue_cert("localhost")
        self.ca_file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        ours = self.ca.issue_cert("proxy.test")
        self.cert_file, self.key_file = str(directory / "cert.pem"), str(directory / "key.pem")
        ours.cert_chain_pems[0].write_to_path(self.cert_file)
        ours.private_key_pem.write_to_path(self.key_file)

    def context(self, cert: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (cert or self.server).configure_cert(context)
        return context

    @property
    def pin(self) -> str:
        key = load_pem_x509_certificate(self.server.cert_chain_pems[0].bytes()).public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def upstream(self, port: int, **other: object) -> Upstream:
        fields: dict[str, object] = {"scheme": "https", "host": "localhost", "ca_file": self.ca_file}
        return upstream(port, **{**fields, **other})


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


async def test_a_verified_connection_is_reused(pki: Pki) -> None:
    async with raw_upstream(tls=pki.context()) as server, client() as sending:
        for _ in range(3):
            await sending.send(pki.upstream(server.port, spki_sha256=pki.pin), INFER)
        assert server.connections == [1, 1, 1]
        assert b"host: localhost:" in server.requests[0][1]


async def test_a_large_body_both_ways_over_tls(pki: Pki) -> None:
    body = bytes(range(256)) * 4096
    async with raw_upstream([[ok(body)]], tls=pki.context()) as server, client() as sending:
        request = type(INFER)("POST", "/", (), body)
        assert (await sending.send(pki.upstream(server.port), request)).body == body
        assert server.requests[0][1].endswith(body)


@pytest.mark.parametrize("fault", ["other name", "other CA", "system CAs", "expired", "other key", "TLS 1.1", "no TLS"])
async def test_who_cannot_prove_itself_hears_nothing(pki: Pki, fault: str) -> None:
    """Not one byte of a request is sent before the other end has proved who it is."""
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    server_side: ssl.SSLContext | None = pki.context()
    other: dict[str, object] = {}
    match fault:
        case "other name":
            server_side = pki.context(pki.ca.issue_cert("elsewhere.test"))
        case "other CA":
            server_side = pki.context(trustme.CA().issue_cert("localhost"))
        case "system CAs":
            other["ca_file"] = None
        case "expired":
            server_side = pki.context(pki.ca.issue_cert("localhost", not_after=yesterday))
        case "other key":
            other["spki_sha256"] = "0" * 64
        case "TLS 1.1":
            assert server_side is not None
            server_side.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings(action="ignore"):  # Python, too, would rather not
                server_side.minimum_version = server_side.maximum_version = ssl.TLSVersion.TLSv1_1
        case _:
            server_side = None
    async with raw_upstream([[Step.CLOSE]] * 9, tls=server_side) as server, client() as sending:
        with pytest.raises(UpstreamFault) as caught:
            await sending.send(pki.upstream(server.port, connect_timeout=0.5, **other), INFER)
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert server.requests == []


async def test_our_certificate_is_shown(pki: Pki) -> None:
    demanding = pki.context()
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.load_verify_locations(pki.ca_file)
    files = {"client_cert_file": pki.cert_file, "client_key_file": pki.key_file}
    async with raw_upstream(tls=demanding) as server, client() as sending:
        assert (await sending.send(pki.upstream(server.port, **files), INFER)).status == 200
        with pytest.raises(UpstreamFault):
            await sending.send(pki.upstream(server.port), INFER)
        assert len(server.requests) == 1


async def test_a_body_without_a_length_is_refused_over_tls(pki: Pki) -> None:
    """Without a length, an attacker on the network who cuts the connection decides where the answer ends."""
    script = [[b"HTTP/1.1 200 OK\r\n\r\n{}", Step.CLOSE]]
    async with raw_upstream(script, tls=pki.context()) as server, client() as sending:
        with pytest.raises(UpstreamFault) as caught:
            await sending.send(pki.upstream(server.port), INFER)
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


async def test_a_file_that_cannot_be_read_stops_the_start_and_changes_nothing(pki: Pki, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("not a certificate")
    async with raw_upstream(tls=pki.context()) as server:
        sending = HttpUpstreamClient()
        good = pki.upstream(server.port)
        sending.retain([good])
        await sending.send(good, INFER)
        with pytest.raises(ConfigError) as caught:
            sending.retain([pki.upstream(1, ca_file=str(bad)), pki.upstream(2, ca_file=str(tmp_path / "missing.pem"))])
        assert {finding.file for finding in caught.value.findings} == {str(bad), str(tmp_path / "missing.pem")}
        await sending.send(good, INFER)
        assert server.connections == [1, 1]
        with pytest.raises(UpstreamFault):
            await sending.send(pki.upstream(1, ca_file=str(bad)), INFER)
        await sending.close()
