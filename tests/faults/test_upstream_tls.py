"""TLS files of an upstream that change while we serve: the new CA is trusted, the old connections end in order."""

import shutil
import ssl
from pathlib import Path

import pytest

from proxy.adapters.mint import Minted, mint
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.errors import ConfigError, UpstreamFault
from tests.upstream.raw_upstream import INFER, raw_upstream, upstream


def serving(minted: Minted) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(minted.server.certificate, minted.server.key)
    return context


async def test_a_new_ca_is_trusted_and_the_old_one_no_more(tmp_path: Path) -> None:
    old, new = (mint(tmp_path / name, ["localhost"], []) for name in ("old", "new"))
    ca = tmp_path / "ca.pem"
    shutil.copy(old.ca.certificate, ca)
    client = HttpUpstreamClient()
    async with raw_upstream(tls=serving(old)) as before, raw_upstream(tls=serving(new)) as after:
        first, second = (
            upstream(server.port, scheme="https", host="localhost", ca_file=str(ca)) for server in (before, after)
        )
        client.retain([first, second])
        assert client.files() == {first: (ca,), second: (ca,)}
        assert (await client.send(first, INFER)).status == 200
        with pytest.raises(UpstreamFault, match="certificate"):
            await client.send(second, INFER)
        assert not client.renew(first), "nothing is new"
        shutil.copy(new.ca.certificate, ca)
        assert client.renew(first)
        assert client.renew(second)
        await before.until(left=1)
        assert (await client.send(second, INFER)).status == 200
        with pytest.raises(UpstreamFault):
            await client.send(first, INFER)
        await client.close()


async def test_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    minted = mint(tmp_path / "certs", ["localhost"], [])
    client = HttpUpstreamClient()
    async with raw_upstream(tls=serving(minted)) as server:
        ca = str(minted.ca.certificate)
        to = upstream(server.port, scheme="https", host="localhost", ca_file=ca)
        client.retain([to])
        good = minted.ca.certificate.read_bytes()
        minted.ca.certificate.write_bytes(b"half a fi")
        with pytest.raises(ConfigError, match="TLS files cannot be used"):
            client.renew(to)
        assert (await client.send(to, INFER)).status == 200
        minted.ca.certificate.write_bytes(good)
        await client.close()
