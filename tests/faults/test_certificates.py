"""Certificate files under a running proxy: renewed, half written, wrong, gone, back; clients taken back."""

import asyncio
import json
import shutil
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from typer.testing import CliRunner

from proxy.adapters.crl import read_crl
from proxy.adapters.mint import Minted, mint, renew
from proxy.cli.certs import certs_app
from proxy.errors import ConfigError
from tests.faults.house import Client, Standing, config, house, model, policy


async def fingerprint(standing: Standing) -> bytes:
    """Return the certificate that a new connection gets."""
    client = await standing.connect()
    tls: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True)
    await client.close()
    assert der is not None
    return der


async def test_a_renewed_pair_serves_new_connections_and_keeps_the_open_ones(tmp_path: Path) -> None:
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        old, client = await fingerprint(standing), await standing.connect()
        assert (await client.ask()).status == 200
        renew(tmp_path / "certs", days_left=365)
        async with asyncio.timeout(20):
            while await fingerprint(standing) == old:
                await asyncio.sleep(0.05)
        assert (await client.ask()).status == 200
        await client.close()
        (record,) = await standing.recorded("certificate", 1)
        assert (record["effect"], record["place"]) == ("loaded", "listener")
        (start,) = standing.records("start")
        assert start["boot"]
        assert start["replica"]


@pytest.mark.parametrize("fault", ["gone", "corrupt", "another's key"])
async def test_a_bad_set_is_never_loaded_and_a_good_one_ends_it(fault: str, tmp_path: Path) -> None:
    """The one before serves on; /readyz, the metric and the journal say so, until the files are good again."""
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        certs = tmp_path / "certs"
        shutil.copytree(certs, tmp_path / "good")
        match fault:
            case "gone":
                (certs / "server.crt").unlink()
            case "corrupt":
                (certs / "server.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
            case _:
                shutil.copy(certs / "ca.key", certs / "server.key")
        await standing.until("certificate:listener", "warning")
        assert (await standing.ask()).status == 200
        assert standing.proxy.house.readiness().ready
        for name in ("server.crt", "server.key"):
            shutil.copy(tmp_path / "good" / name, certs / name)
        await standing.until("certificate:listener", None)
        assert [record["effect"] for record in await standing.recorded("certificate", 2)] == ["rejected", "loaded"]
        assert b"hip_certificate_reload_failures_total 1.0" in standing.proxy.house.metrics.exposition()


async def test_a_certificate_that_ends_soon_is_in_the_log_the_metrics_and_the_readiness(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, not at each look; and no more once a renewed one is there."""
    certs = tmp_path / "certs"

    def old(minted: Minted) -> None:
        shutil.rmtree(certs)
        mint(certs, ["localhost", "127.0.0.1"], ["analyst"], datetime.now(UTC) - timedelta(days=80))

    def lines() -> list[str]:
        return [line for line in caplog.messages if line.startswith("certificate: ")]

    caplog.set_level("WARNING", "hip.certificates")
    async with model() as server, house(tmp_path, policy(server.url), prepare=old) as standing:
        await standing.until("certificate", "warning")
        async with asyncio.timeout(20):
            while not lines():
                await asyncio.sleep(0.05)
        assert standing.proxy.house.readiness().ready
        assert (await standing.ask()).status == 200
        page = standing.proxy.house.metrics.exposition().decode()
        (ends,) = [float(line.split()[1]) for line in page.splitlines() if line.startswith("hip_certificate_expiry_")]
        assert 9 * 86_400 < ends - time.time() < 11 * 86_400
        renew(certs, days_left=30)
        await standing.until("certificate", "ok")
        assert lines() == ["certificate: 10 days left; put the renewed one at its place, it is loaded by itself"]


async def test_a_pair_between_its_halves_is_not_judged(tmp_path: Path) -> None:
    """The certificate first, its key before the files rest: no rejection, one load."""
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        old = await fingerprint(standing)
        fresh = mint(tmp_path / "fresh", ["localhost"], [])
        shutil.copy(fresh.server.certificate, tmp_path / "certs" / "server.crt")
        shutil.copy(fresh.server.key, tmp_path / "certs" / "server.key")
        async with asyncio.timeout(20):
            while not standing.records("certificate"):
                await asyncio.sleep(0.05)
        assert [record["effect"] for record in standing.records("certificate")] == ["loaded"]
        context = ssl.create_default_context(cafile=fresh.ca.certificate)
        _, writer = await asyncio.open_connection(
            "127.0.0.1", standing.proxy.port, ssl=context, server_hostname="localhost"
        )
        writer.close()
        assert old


# ── clients that their CA has taken back ────────────────────────────────────────────────────────────────────────────


def crl(minted: Minted, *taken_back: Path, days: int = 7, key: Path | None = None) -> bytes:
    """Return a list of the development CA."""
    now = datetime.now(UTC)
    authority = x509.load_pem_x509_certificate(minted.ca.certificate.read_bytes())
    signing = serialization.load_pem_private_key((key or minted.ca.key).read_bytes(), None)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(now - timedelta(days=30)).next_update(now + timedelta(days=days))
    for path in taken_back:
        serial = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


async def test_a_certificate_taken_back_ends_its_connections_and_gets_no_new_ones(tmp_path: Path) -> None:
    """The others keep theirs."""
    listed = tmp_path / "clients.crl"
    settings = config().replace("client_ca:", "client_crl: clients.crl, client_ca:")
    async with (
        model() as server,
        house(tmp_path, policy(server.url), settings, lambda minted: listed.write_bytes(crl(minted))) as standing,
    ):
        analyst, guest = (standing.certificates.clients[name] for name in ("analyst", "guest"))
        first, second = await standing.connect(analyst), await standing.connect(guest)
        assert [(await client.ask()).status for client in (first, second)] == [200, 200]
        listed.write_bytes(crl(standing.certificates, analyst.certificate))
        await first.end()
        assert (await second.ask()).status == 200
        await second.close()
        with pytest.raises((OSError, EOFError)):
            await standing.ask(analyst)
        assert standing.check("revocation list") == "ok"


async def test_another_client_ca_ends_every_connection_with_a_certificate(tmp_path: Path) -> None:
    """A connection without one goes on."""
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        shown, none = await standing.connect(standing.certificates.clients["analyst"]), await standing.connect()
        assert [(await client.ask()).status for client in (shown, none)] == [200, 200]
        other = mint(tmp_path / "other", ["localhost"], [])
        shutil.copy(other.ca.certificate, tmp_path / "certs" / "ca.crt")
        await shown.end()
        assert (await none.ask()).status == 200
        await none.close()


async def test_a_handshake_that_waits_out_a_reload_gets_nothing(tmp_path: Path) -> None:
    """Accepted before the CA changed, finished after: the certificate was good then, and is not now."""
    async with model() as server, house(tmp_path, policy(server.url)) as standing:
        context, pair = standing.trust, standing.certificates.clients["analyst"]
        context.load_cert_chain(pair.certificate, pair.key)
        reader, writer = await asyncio.open_connection("127.0.0.1", standing.proxy.port)
        other = mint(tmp_path / "other", ["localhost"], [])
        shutil.copy(other.ca.certificate, tmp_path / "certs" / "ca.crt")
        async with asyncio.timeout(20):
            while not standing.records("certificate"):
                await asyncio.sleep(0.05)
        client = Client(reader, writer, standing.token)

        async def late() -> None:
            await writer.start_tls(context, server_hostname="localhost")
            await client.ask()

        with pytest.raises((OSError, EOFError)):
            await late()
        await client.close()
        assert server.bodies == []


WRONG_LISTS = [
    ("no list", lambda ours, other: b"", "no revocation list"),
    ("not PEM", lambda ours, other: b"-----BEGIN X509 CRL-----\nx\n-----END X509 CRL-----", "can be read"),
    ("another CA's", lambda ours, other: crl(other), "no CA of client_ca has signed"),
    ("another CA's key", lambda ours, other: crl(ours, key=other.ca.key), "no CA of client_ca has signed"),
    ("out of date", lambda ours, other: crl(ours, days=-1), "out of date"),
    ("two, one of them bad", lambda ours, other: crl(ours) + crl(ours, days=-1), "out of date"),
    ("too large", lambda ours, other: b"x" * ((16 << 20) + 1), "more than 16 MiB"),
]


@pytest.mark.parametrize(("make", "said"), [case[1:] for case in WRONG_LISTS], ids=[case[0] for case in WRONG_LISTS])
def test_a_list_that_must_not_be_loaded(make: Callable[[Minted, Minted], bytes], said: str, tmp_path: Path) -> None:
    ours, other = (mint(tmp_path / name, ["localhost"], []) for name in ("ours", "other"))
    with pytest.raises(ConfigError, match=said):
        read_crl(tmp_path / "list", make(ours, other), ours.ca.certificate.read_bytes(), time.time())


# ── hip certs renew ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_renew_keeps_names_and_purpose_and_changes_the_key(tmp_path: Path) -> None:
    minted = mint(tmp_path / "certs", ["localhost", "127.0.0.1"], ["analyst"])
    before = minted.server.certificate.read_bytes()
    assert renew(tmp_path / "certs", days_left=30) == {}
    renewed = renew(tmp_path / "certs", days_left=365)
    assert set(renewed) == {"server", "client-analyst"}
    old, new = (x509.load_pem_x509_certificate(pem) for pem in (before, minted.server.certificate.read_bytes()))
    for extension in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.KeyUsage):
        kept, now = (one.extensions.get_extension_for_class(extension).value for one in (old, new))
        assert kept == now
    assert old.public_key() != new.public_key()
    assert (minted.server.key.stat().st_mode & 0o777) == 0o600


def test_renew_refuses_what_it_has_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca\.crt"):
        renew(tmp_path, days_left=30)
    minted = mint(tmp_path / "certs", ["localhost"], [])
    with pytest.raises(ConfigError, match="the CA has ended"):
        renew(tmp_path / "certs", days_left=30, now=datetime.now(UTC) + timedelta(days=400))
    shutil.copy(minted.server.key, minted.ca.key)
    with pytest.raises(ConfigError, match="not the key of the CA"):
        renew(tmp_path / "certs", days_left=30)


def test_the_command_says_what_it_renewed(tmp_path: Path) -> None:
    mint(tmp_path / "certs", ["localhost"], [])
    runner, where = CliRunner(), str(tmp_path / "certs")
    assert "nothing ends within 30 days" in runner.invoke(certs_app, ["renew", where]).output
    said = runner.invoke(certs_app, ["renew", where, "--days-left", "365", "--json"])
    assert (said.exit_code, set(json.loads(said.output))) == (0, {"server"})
    assert runner.invoke(certs_app, ["renew", str(tmp_path)]).exit_code == 2
