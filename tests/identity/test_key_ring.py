"""The key ring against real sockets and files: down, slow, redirecting, lying, rotating, flooded."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from issuing import CORP, Hands, bearer, key_set, signer
from keyserver import KeyServer, answer

from proxy.adapters.keys import (
    FILE_SECONDS,
    KID_BURST,
    KID_SECONDS,
    PAUSE_SECONDS,
    REFRESH_SECONDS,
    JwksKeyRing,
    KeyStatus,
)
from proxy.errors import DependencyFault, Unauthenticated
from proxy.exchange import Issuer
from proxy.identity.authenticator import Authenticator
from proxy.identity.keyset import MAX_DOCUMENT_BYTES
from proxy.reasons import Reason

OLD, NEW = signer("ES256", "old"), signer("EdDSA", "new")
GOOD = answer(key_set(OLD.jwk()))


class House:
    """A ring, its clock and its issuer."""

    def __init__(self, issuer: Issuer) -> None:
        self.clock, self.issuer = Hands(), issuer
        self.ring = JwksKeyRing(self.clock)

    async def kid(self, kid: str = "old") -> str:
        return (await self.ring.key(self.issuer, kid)).kid

    async def unavailable(self, kid: str = "old") -> str:
        with pytest.raises(DependencyFault) as fault:
            await self.kid(kid)
        assert fault.value.reason is Reason.KEYS_UNAVAILABLE
        return fault.value.detail

    async def unknown(self, kid: str) -> None:
        with pytest.raises(Unauthenticated) as refused:
            await self.kid(kid)
        assert refused.value.reason is Reason.TOKEN_KEY_UNKNOWN

    async def settled(self) -> KeyStatus:
        """Let the fetch under way end, and return the state."""
        for held in self.ring._held.values():
            if held.fetch is not None:
                await asyncio.wait({held.fetch})
        (status,) = self.ring.status()
        return status


@contextlib.asynccontextmanager
async def house(issuer: Issuer) -> AsyncIterator[House]:
    built = House(issuer)
    try:
        yield built
    finally:
        await built.ring.close()


@contextlib.asynccontextmanager
async def remote(first: bytes = GOOD, **facts: Any) -> AsyncIterator[tuple[KeyServer, House]]:
    """A key server whose `/jwks` answers `first`, and a ring that asks it."""
    async with KeyServer({"/jwks": first}) as server, house(replace(CORP, jwks_uri=server.url(), **facts)) as built:
        yield server, built


async def test_first_use_fetches_once() -> None:
    async with remote() as (server, its):
        assert await its.kid() == "old"
        assert await its.kid() == "old"
        assert server.asked == ["/jwks"]


async def test_request_carries_nothing_of_ours() -> None:
    """No cookie, no credentials, no compression asked for."""
    async with remote() as (server, its):
        await its.kid()
        names = [line.partition(b":")[0].lower() for line in server.heads[0].split(b"\r\n")[1:] if line]
        assert sorted(names) == [b"accept", b"accept-encoding", b"connection", b"host", b"user-agent"]
        assert b"accept-encoding: identity" in server.heads[0].lower()


async def test_environment_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with remote() as (_, its):
        assert await its.kid() == "old"


async def test_many_callers_share_one_fetch() -> None:
    async with remote() as (server, its):
        server.gate.clear()
        callers = [asyncio.create_task(its.kid()) for _ in range(50)]
        await server.arrived.wait()
        server.gate.set()
        assert await asyncio.gather(*callers) == ["old"] * 50
        assert server.asked == ["/jwks"]


async def test_caller_that_goes_away_leaves_the_fetch_to_the_others() -> None:
    async with remote() as (server, its):
        server.gate.clear()
        first, second = asyncio.create_task(its.kid()), asyncio.create_task(its.kid())
        await server.arrived.wait()
        first.cancel()
        server.gate.set()
        assert await second == "old"
        assert server.asked == ["/jwks"]


FIRST_FAULTS: list[tuple[str, bytes, str]] = [
    ("closed in silence", b"", "RemoteProtocolError"),
    ("not HTTP", b"220 mail.example.com ESMTP\r\n\r\n", "RemoteProtocolError"),
    ("500", answer(b"oops", "500 Internal Server Error"), "answered 500"),
    ("404", answer(b"", "404 Not Found"), "answered 404"),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204"),
    ("redirect", answer(b"", "302 Found", "location: /good"), "answered 302"),
    ("permanent redirect", answer(b"", "308 Permanent Redirect", "location: /good"), "answered 308"),
    ("HTML", answer(b"<!doctype html><title>Sign in</title>", "200 OK", "content-type: text/html"), "JSON"),
    ("empty", answer(b""), "JSON"),
    ("10 MB", answer(b" " * 10_000_000), f"more than {MAX_DOCUMENT_BYTES}"),
    ("cut off", GOOD[:-5], "RemoteProtocolError"),
    ("compressed unasked", answer(gzip.compress(key_set(OLD.jwk())), "200 OK", "content-encoding: gzip"), "JSON"),
    ("no usable key", answer(key_set(OLD.jwk(use="enc"))), "use is not sig"),
    ("a private key", answer(key_set(OLD.jwk(d="AA"))), "private"),
]


@pytest.mark.parametrize(("first", "why"), [v[1:] for v in FIRST_FAULTS], ids=[v[0] for v in FIRST_FAULTS])
async def test_bad_first_answer(first: bytes, why: str) -> None:
    """Without keys a bad answer is KEYS_UNAVAILABLE, says why, and is asked for again only after the pause."""
    async with remote(first) as (server, its):
        server.answers["/good"] = GOOD
        assert why in await its.unavailable()
        assert why in await its.unavailable()
        assert server.asked == ["/jwks"]
        server.answers["/jwks"] = GOOD
        its.clock.passed = PAUSE_SECONDS
        assert await its.kid() == "old"


@pytest.mark.parametrize(("bad", "why"), [v[1:] for v in FIRST_FAULTS], ids=[v[0] for v in FIRST_FAULTS])
async def test_bad_later_answer(bad: bytes, why: str) -> None:
    """With keys a bad answer changes nothing until the maximum age; then 503; then a good one mends it."""
    async with remote() as (server, its):
        await its.kid()
        generation = its.ring.generation(its.issuer)
        server.answers["/jwks"] = bad
        its.clock.passed = REFRESH_SECONDS
        assert await its.kid() == "old"
        status = await its.settled()
        assert why in status.error
        assert (status.keys, status.age) == (1, REFRESH_SECONDS)
        assert its.ring.generation(its.issuer) == generation
        its.clock.passed = CORP.max_staleness
        assert await its.kid() == "old"
        await its.settled()
        its.clock.passed = CORP.max_staleness + PAUSE_SECONDS
        assert why in await its.unavailable()
        assert its.ring.generation(its.issuer) != generation
        server.answers["/jwks"] = GOOD
        its.clock.passed += PAUSE_SECONDS
        assert await its.kid() == "old"
        assert (await its.settled()).error == ""


async def test_server_down_then_up() -> None:
    async with remote() as (server, its):
        await its.kid()
        await server.stop()
        its.clock.passed = REFRESH_SECONDS
        assert await its.kid() == "old"
        assert "ConnectError" in (await its.settled()).error
        its.clock.passed = CORP.max_staleness + 1
        assert "ConnectError" in await its.unavailable()
        async with server:
            its.clock.passed += PAUSE_SECONDS
            assert await its.kid() == "old"


async def test_slow_server() -> None:
    """A server that never answers costs one bounded wait; keys in hand go on serving meanwhile."""
    async with remote() as (server, its):
        its.ring = JwksKeyRing(its.clock, fetch_seconds=0.05)
        server.gate.clear()
        assert "no answer within 0.05 s" in await its.unavailable()
        server.gate.set()
        await its.ring.close()
        its.ring = JwksKeyRing(its.clock)
        await its.kid()
        its.ring._fetch_seconds = 0.05
        server.gate.clear()
        its.clock.passed += REFRESH_SECONDS
        assert await its.kid() == "old"
        assert "no answer" in (await its.settled()).error


async def test_dripping_server() -> None:
    """A byte now and then does not stretch the deadline, which is for the whole fetch."""
    async with remote(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n") as (server, its):
        server.drip = True
        its.ring = JwksKeyRing(its.clock, fetch_seconds=0.05)
        assert "no answer within 0.05 s" in await its.unavailable()


async def test_status_alone_brings_the_keys_back() -> None:
    """A replica that is not ready gets no requests: readiness must be able to recover by being asked."""
    async with remote(b"") as (server, its):
        await its.ring.load([its.issuer])
        assert its.ring.status()[0].keys == 0
        server.answers["/jwks"] = GOOD
        its.clock.passed = PAUSE_SECONDS
        assert its.ring.status()[0].keys == 0
        assert (await its.settled()).keys == 1


async def test_slow_refresh_makes_nobody_wait() -> None:
    async with remote() as (server, its):
        await its.kid()
        server.gate.clear()
        server.arrived.clear()
        its.clock.passed = REFRESH_SECONDS
        assert [await its.kid() for _ in range(20)] == ["old"] * 20
        await server.arrived.wait()
        assert server.asked == ["/jwks"] * 2
        server.gate.set()


async def test_rotation() -> None:
    """A new kid is fetched on sight; the withdrawn one is then unknown, and the generation has moved."""
    async with remote() as (server, its):
        await its.kid()
        before = its.ring.generation(its.issuer)
        server.answers["/jwks"] = answer(key_set(NEW.jwk()))
        its.clock.passed = PAUSE_SECONDS
        assert await its.kid("new") == "new"
        assert its.ring.generation(its.issuer) != before
        await its.unknown("old")


async def test_unchanged_document_keeps_the_generation() -> None:
    """Verdicts survive a refresh that brings nothing new; the age begins anew."""
    async with remote() as (server, its):
        await its.kid()
        before = its.ring.generation(its.issuer)
        its.clock.passed = REFRESH_SECONDS
        await its.kid()
        status = await its.settled()
        assert server.asked == ["/jwks"] * 2
        assert (its.ring.generation(its.issuer), status.age) == (before, 0)


async def test_cached_verdicts_alone_keep_the_keys_fresh() -> None:
    """`generation()` is all that a remembered token asks; a withdrawn key still ends it."""
    async with remote() as (server, its):
        authenticator, token = Authenticator(its.ring, its.clock), OLD.token(claims={"exp": 1_900_000_000})
        issuers = {CORP.issuer: its.issuer}
        await authenticator.authenticate(bearer(token), issuers, "p")
        server.answers["/jwks"] = answer(key_set(NEW.jwk()))
        its.clock.passed = REFRESH_SECONDS
        await authenticator.authenticate(bearer(token), issuers, "p")
        await its.settled()
        with pytest.raises(Unauthenticated) as refused:
            await authenticator.authenticate(bearer(token), issuers, "p")
        assert refused.value.reason is Reason.TOKEN_KEY_UNKNOWN


async def test_flood_of_unknown_kids() -> None:
    """A thousand invented kids cost the provider one request per pause."""
    async with remote() as (server, its):
        await its.kid()
        for number in range(500):
            await its.unknown(f"random-{number}")
        assert len(server.asked) == 1
        its.clock.passed = PAUSE_SECONDS
        await asyncio.gather(*(its.unknown(f"random-{number}") for number in range(500)))
        assert len(server.asked) == 2


async def test_keys_that_rotate_again_and_again_are_found_within_a_second() -> None:
    """A fetch a moment ago is no reason to refuse good tokens for ten seconds."""
    async with remote() as (server, its):
        await its.kid()
        for kid in ("a", "b", "c"):
            server.answers["/jwks"] = answer(key_set(signer("ES256", kid).jwk()))
            await its.unknown(kid)
            its.clock.passed += KID_SECONDS
            assert await its.kid(kid) == kid


async def test_a_lasting_flood_costs_the_issuer_one_fetch_a_pause_and_a_new_key_is_found_all_the_same() -> None:
    async with remote() as (server, its):
        await its.kid()
        server.asked.clear()
        for step in range(400):  # a hundred seconds
            its.clock.passed += 0.25
            await its.unknown(f"random-{step}")
        assert len(server.asked) == KID_BURST - 1 + 100 / PAUSE_SECONDS
        server.answers["/jwks"] = answer(key_set(NEW.jwk()))
        for _ in range(int(PAUSE_SECONDS / 0.25)):
            its.clock.passed += 0.25
            with contextlib.suppress(Unauthenticated):
                await its.kid("random")
        assert await its.kid("new") == "new"


async def test_short_staleness_refreshes_in_time() -> None:
    """The refresh comes at half of a short maximum age, not after the keys are gone."""
    async with remote(max_staleness=60) as (server, its):
        await its.kid()
        its.clock.passed = 30
        await its.kid()
        await its.settled()
        its.clock.passed = 61
        assert await its.kid() == "old"
        assert server.asked[:2] == ["/jwks"] * 2


# ── discovery ───────────────────────────────────────────────────────────────────────────────────────────────────

WELL_KNOWN = "/.well-known/openid-configuration"


@contextlib.asynccontextmanager
async def provider(**changes: object) -> AsyncIterator[tuple[KeyServer, House]]:
    async with KeyServer({"/jwks": GOOD}) as server:
        iss = server.url("")
        document = {"issuer": iss, "jwks_uri": server.url(), **changes}
        server.answers[WELL_KNOWN] = answer(json.dumps(document).encode())
        async with house(replace(CORP, issuer=iss, jwks_uri=None, discovery=True)) as its:
            yield server, its


async def test_discovery() -> None:
    async with provider() as (server, its):
        assert await its.kid() == "old"
        assert server.asked == [WELL_KNOWN, "/jwks"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "https://evil.example.com"}, "another issuer's"),
        ({"jwks_uri": "http://keys.example.com/jwks"}, "neither https nor"),
        ({"jwks_uri": None}, "no jwks_uri"),
    ],
)
async def test_discovery_refused(changes: dict[str, object], why: str) -> None:
    async with provider(**changes) as (server, its):
        assert why in await its.unavailable()
        assert server.asked == [WELL_KNOWN]


async def test_plain_http_elsewhere_is_never_asked() -> None:
    async with house(replace(CORP, jwks_uri="http://idp.example.com/jwks")) as its:
        assert "neither https nor" in await its.unavailable()


async def test_issuer_without_any_source() -> None:
    async with house(replace(CORP, jwks_uri=None)) as its:
        assert "no plain URL" in await its.unavailable()


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "trusted", "outcome"),
    [("127.0.0.1", True, ""), ("127.0.0.1", False, "CERTIFICATE_VERIFY_FAILED"), ("10.0.0.9", True, "VERIFY_FAILED")],
    ids=["the configured CA", "the system's CAs", "another name"],
)
async def test_tls(tmp_path: Path, name: str, trusted: bool, outcome: str) -> None:
    """The chain and the name are verified, against the issuer's own CA where one is set."""
    import ssl

    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with KeyServer({"/jwks": GOOD}, tls=context) as server:
        issuer = replace(CORP, jwks_uri=server.url(), ca_file=str(ca_file) if trusted else None)
        async with house(issuer) as its:
            if outcome:
                assert outcome in await its.unavailable()
            else:
                assert await its.kid() == "old"


async def test_ca_file_missing(tmp_path: Path) -> None:
    async with remote(ca_file=str(tmp_path / "nothing.pem")) as (server, its):
        assert "FileNotFoundError" in await its.unavailable()
        assert server.asked == []


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def filed(path: Path) -> AsyncIterator[House]:
    async with house(replace(CORP, jwks_uri=None, jwks_file=str(path))) as its:
        yield its


async def test_file_rotation(tmp_path: Path) -> None:
    """A replaced file is seen within a second of use, also one that keeps its size and time."""
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(OLD.jwk()))
    async with filed(path) as its:
        assert await its.kid() == "old"
        (tmp_path / "next").write_bytes(key_set(NEW.jwk()))
        (tmp_path / "next").replace(path)
        its.clock.passed = FILE_SECONDS
        assert await its.kid("new") == "new"
        await its.unknown("old")


async def test_broken_file_keeps_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(OLD.jwk()))
    async with filed(path) as its:
        await its.kid()
        path.write_bytes(b'{"keys": [')
        its.clock.passed = FILE_SECONDS
        assert await its.kid() == "old"
        assert "JSON" in (await its.settled()).error
        path.unlink()
        its.clock.passed += FILE_SECONDS
        assert await its.kid() == "old"
        assert "is not a file" in (await its.settled()).error


async def test_file_that_is_none(tmp_path: Path) -> None:
    """A missing file, a directory, a FIFO that would block, a huge file, a NUL in the name."""
    import os

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_bytes(b" " * (MAX_DOCUMENT_BYTES + 10))
    for name, why in (("none", "not a file"), (".", "not a file"), ("fifo", "not a file"), ("huge", "more than")):
        async with filed(tmp_path / name) as its:
            assert why in await its.unavailable()
    async with filed(Path("a\0b")) as its:
        assert "not a file" in await its.unavailable()


# ── several issuers, start and end ──────────────────────────────────────────────────────────────────────────────


async def test_load_status_and_forgetting() -> None:
    """`load` fetches what is new, keeps what stays, forgets the rest, and raises nothing."""
    async with KeyServer({"/a": GOOD, "/b": b""}) as server:
        a = replace(CORP, name="a", jwks_uri=server.url("/a"))
        b = replace(CORP, name="b", jwks_uri=server.url("/b"))
        async with house(a) as its:
            await its.ring.load([a, b])
            told = {status.issuer: status for status in its.ring.status()}
            assert (told["a"].keys, told["a"].age, told["a"].error) == (1, 0, "")
            assert (told["b"].keys, told["b"].age) == (0, None)
            assert "RemoteProtocolError" in told["b"].error
            await its.ring.load([replace(a, name="renamed", roles_claim=("groups",))])
            assert [status.issuer for status in its.ring.status()] == ["a"]
            assert sorted(server.asked) == ["/a", "/b"]


async def test_generations_never_repeat() -> None:
    """An issuer that was forgotten and comes back does not revive old verdicts."""
    async with remote() as (_, its):
        await its.ring.load([its.issuer])
        before = its.ring.generation(its.issuer)
        await its.ring.load([])
        await its.ring.load([its.issuer])
        assert its.ring.generation(its.issuer) > before


async def test_skipped_keys_are_told() -> None:
    async with remote(answer(key_set(NEW.jwk(use="enc"), OLD.jwk()))) as (_, its):
        await its.kid()
        assert (await its.settled()).skipped == ("key 1: use is not sig",)


async def test_close_ends_a_fetch_under_way() -> None:
    async with remote() as (server, its):
        server.gate.clear()
        waiting = asyncio.create_task(its.kid())
        await server.arrived.wait()
        await its.ring.close()
        with pytest.raises(DependencyFault):
            await waiting
