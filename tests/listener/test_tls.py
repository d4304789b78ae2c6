"""TLS as clients meet it: versions, client certificates, no resumption, reload under open connections."""

import asyncio
import base64
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from proxy.adapters.mint import Minted, mint
from proxy.adapters.tls import ClientCertificates, Profile, ServerTls, TlsFiles
from proxy.errors import ConfigError
from proxy.listener import Limits

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def minted(tmp_path_factory: pytest.TempPathFactory) -> Minted:
    return mint(tmp_path_factory.mktemp("certs") / "ours", ["localhost", "127.0.0.1"], ["analyst"])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Minted:
    """Another CA, whose certificates look the same."""
    return mint(tmp_path_factory.mktemp("certs") / "foreign", ["localhost", "127.0.0.1"], ["analyst"])


def server_tls(
    minted: Minted,
    client_certificates: ClientCertificates = ClientCertificates.OFF,
    profile: Profile = Profile.INTERMEDIATE,
) -> ServerTls:
    ca = None if client_certificates is ClientCertificates.OFF else minted.ca.certificate
    files = TlsFiles(minted.server.certificate, minted.server.key, client_ca=ca)
    return ServerTls(files, client_certificates, profile, time.time())


def client_context(minted: Minted, pair: Any = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=minted.ca.certificate)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def ask(house: Any, context: ssl.SSLContext) -> Any:
    client = await house.connect(ssl=context, server_hostname="localhost")
    await client.feed(GET)
    assert (await client.answer())[0] == 200
    return client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_peer_facts(version: ssl.TLSVersion, minted: Minted, recorder: Any, open_house: Any) -> None:
    tls = server_tls(minted, ClientCertificates.REQUIRED)
    pair = minted.clients["analyst"]
    async with open_house(recorder, Limits(), context=tls.context) as house:
        await ask(house, client_context(minted, pair, version))
    peer = recorder.hits[0].peer
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    assert peer.tls_version == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
    assert "GCM" in peer.tls_cipher or "CHACHA20" in peer.tls_cipher
    assert peer.certificate.serial == f"{certificate.serial_number:x}"
    assert peer.certificate.dns_names == ("analyst",)
    assert peer.certificate.uris == ("spiffe://hip.test/analyst",)
    assert len(peer.certificate.fingerprint) == 43  # RFC 8705: SHA-256 in base64url without padding


@pytest.mark.parametrize(
    ("asked", "shown", "ends"),
    [
        (ClientCertificates.OFF, None, "ok"),
        (ClientCertificates.OPTIONAL, None, "ok"),
        (ClientCertificates.OPTIONAL, "ours", "ok"),
        (ClientCertificates.OPTIONAL, "foreign", "refused"),
        (ClientCertificates.REQUIRED, None, "refused"),
        (ClientCertificates.REQUIRED, "ours", "ok"),
        (ClientCertificates.REQUIRED, "foreign", "refused"),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificates(
    asked: ClientCertificates,
    shown: str | None,
    ends: str,
    version: ssl.TLSVersion,
    minted: Minted,
    foreign: Minted,
    recorder: Any,
    open_house: Any,
) -> None:
    pair = {"ours": minted, "foreign": foreign}[shown].clients["analyst"] if shown else None
    context = client_context(minted, pair, version)
    async with open_house(recorder, Limits(), context=server_tls(minted, asked).context) as house:
        if ends == "ok":
            await ask(house, context)
            assert (recorder.hits[0].peer.certificate is not None) == (shown is not None)
            return
        with pytest.raises((OSError, asyncio.IncompleteReadError)):  # TLS 1.3 tells the client after its handshake
            await ask(house, context)
        assert recorder.hits == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_outlives_its_context(
    version: ssl.TLSVersion, minted: Minted, foreign: Minted, tmp_path: Path, recorder: Any, open_house: Any
) -> None:
    """No tickets; and after the CA has changed, an old session does not bring an untrusted certificate back."""
    context = client_context(minted, minted.clients["analyst"], version)
    context.load_verify_locations(foreign.ca.certificate)

    def visit(port: int, session: ssl.SSLSession | None) -> tuple[bytes, bool | None, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(GET)
            return tls.recv(4096), tls.session_reused, tls.session

    files = _place(minted, tmp_path)
    tls = ServerTls(files, ClientCertificates.REQUIRED, Profile.INTERMEDIATE, time.time())
    async with open_house(recorder, Limits(), context=tls.context) as house:
        answer, _, session = await asyncio.to_thread(visit, house.listener.port, None)
        assert b"200 OK" in answer
        assert session is None or not session.has_ticket
        shutil.copy(foreign.ca.certificate, files.client_ca)
        tls.reload(time.time())
        try:
            answer, reused, _ = await asyncio.to_thread(visit, house.listener.port, session)
        except OSError:
            answer, reused = b"", False
        assert (answer, reused) == (b"", False)
        assert len(recorder.hits) == 1


@pytest.mark.parametrize(
    ("profile", "offer", "ends"),
    [
        (Profile.INTERMEDIATE, ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "refused"),
        (Profile.INTERMEDIATE, ["-tls1_2", "-cipher", "AES128-GCM-SHA256"], "refused"),  # no forward secrecy
        (Profile.INTERMEDIATE, ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"], "refused"),  # no AEAD
        (Profile.INTERMEDIATE, ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "ok"),
        (Profile.FIPS, ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "refused"),
        (Profile.FIPS, ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], "ok"),
        (Profile.FIPS, ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "refused"),
        (Profile.FIPS, ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"], "ok"),
        (Profile.INTERMEDIATE, ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "ok"),
        (Profile.MODERN, ["-tls1_2"], "refused"),
        (Profile.MODERN, ["-tls1_3", "-alpn", "h2,http/1.1"], "ok"),
    ],
)
async def test_openssl_client(
    profile: Profile, offer: list[str], ends: str, minted: Minted, recorder: Any, open_house: Any
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command")
    async with open_house(recorder, Limits(), context=server_tls(minted, profile=profile).context) as house:
        command = [openssl, "s_client", "-connect", f"127.0.0.1:{house.listener.port}", "-quiet", "-ign_eof"]
        command += ["-CAfile", str(minted.ca.certificate), "-verify_return_error", *offer]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, _ = await process.communicate(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (b"200 OK" in out) == (ends == "ok")
        assert len(recorder.hits) == (1 if ends == "ok" else 0)


async def test_handshake_deadline(minted: Minted, recorder: Any, open_house: Any) -> None:
    """A client that connects and says nothing holds a place for a moment only; the place counts from accept on."""
    limits = Limits(handshake=0.08, connections=1)
    async with open_house(recorder, limits, context=server_tls(minted).context) as house:
        client = await house.connect()
        assert await client.end() == b""
        async with asyncio.timeout(10):
            while house.listener.connections:
                await asyncio.sleep(0.01)
        await ask(house, client_context(minted))


async def test_plain_http_on_the_tls_port(minted: Minted, recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits(), context=server_tls(minted).context) as house:
        client = await house.connect()
        await client.feed(GET)
        assert b"HTTP" not in await client.end()
        assert recorder.hits == []


async def test_refusal_through_tls_can_be_read(minted: Minted, recorder: Any, open_house: Any) -> None:
    async with open_house(recorder, Limits(close=0.2), context=server_tls(minted).context) as house:
        client = await house.connect(ssl=client_context(minted), server_hostname="localhost")
        await client.feed(b"GET /../a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer())[0] == 400
        assert await client.end() == b""


def _served(client: Any) -> bytes:
    return bytes(client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


def _place(source: Minted, target: Path) -> TlsFiles:
    for name, path in (("crt", source.server.certificate), ("key", source.server.key), ("ca", source.ca.certificate)):
        shutil.copy(path, target / name)
    return TlsFiles(target / "crt", target / "key", client_ca=target / "ca")


async def test_reload(minted: Minted, foreign: Minted, tmp_path: Path, recorder: Any, open_house: Any) -> None:
    """New connections get the new pair and the new CA; the open one goes on; a bad pair is never loaded."""
    files = _place(minted, tmp_path)
    tls = ServerTls(files, ClientCertificates.REQUIRED, Profile.INTERMEDIATE, time.time())
    async with open_house(recorder, Limits(), context=tls.context) as house:
        before = await ask(house, client_context(minted, minted.clients["analyst"]))

        shutil.copy(foreign.server.key, files.key)  # half a rotation: the pair does not match
        with pytest.raises(ConfigError, match="does not belong"):
            tls.reload(time.time())
        still = await ask(house, client_context(minted, minted.clients["analyst"]))
        assert _served(still) == _served(before)

        _place(foreign, tmp_path)
        tls.reload(time.time())
        after = await ask(house, client_context(foreign, foreign.clients["analyst"]))
        assert _served(after) != _served(before)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):  # the old CA is no longer trusted
            await ask(house, _trusting(foreign, minted))
        await before.feed(GET)
        assert (await before.answer())[0] == 200


def _trusting(server: Minted, client: Minted) -> ssl.SSLContext:
    return client_context(server, client.clients["analyst"])


async def test_fingerprint_is_the_certificates(minted: Minted, recorder: Any, open_house: Any) -> None:
    pair = minted.clients["analyst"]
    async with open_house(recorder, Limits(), context=server_tls(minted, ClientCertificates.OPTIONAL).context) as house:
        await ask(house, client_context(minted, pair))
    digest = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).fingerprint(hashes.SHA256())
    fingerprint = recorder.hits[0].peer.certificate.fingerprint
    assert base64.urlsafe_b64decode(fingerprint + "=") == digest
