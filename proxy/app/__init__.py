"""The composition root: the only place that builds adapters, in the order in which they need each other.

`running` starts everything or nothing, and ends it in the opposite order: the listener drains first, the journal
closes last, so that whatever was answered is recorded.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy import __version__
from proxy.adapters.journal import Durability, Journal, ensure_keys
from proxy.adapters.keys import JwksKeyRing
from proxy.adapters.ledger import MemoryLedger
from proxy.adapters.metrics import Metrics
from proxy.adapters.source_limit import SourceLimit
from proxy.adapters.spans import Spans
from proxy.adapters.tls import ClientCertificates, Profile, ServerTls, TlsFiles
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.admin import admin_app
from proxy.app.house import House
from proxy.app.standing import Standing
from proxy.audit.pseudonym import Pseudonyms
from proxy.config import Settings, read_settings
from proxy.dialects import DIALECTS
from proxy.edge import Edge
from proxy.errors import ConfigError, Finding
from proxy.gateway import Gateway, World
from proxy.identity.authenticator import Authenticator
from proxy.listener import Limits, bind, serve
from proxy.ports import Clock, Ledger
from proxy.record import Start

ADMIN_DRAIN = 1.0  # seconds: probes are short

_log = logging.getLogger("hip")


class SystemClock:
    """The machine's clock: nothing on the request's path reads another."""

    def now(self) -> float:
        """Return UNIX seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that serves."""

    port: int
    admin_port: int
    standing: Standing
    journal: Journal
    house: House


def new_id() -> str:
    """Return 32 random hexadecimal digits."""
    return os.urandom(16).hex()


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[Running]:
    """Serve inside the `async with` block. Raise ConfigError and serve nothing where anything is wrong.

    Paths in the file are relative to the file.
    """
    data, settings = _read(config)
    digest, here, clock = hashlib.sha256(data).hexdigest(), config.parent, SystemClock()
    directory = here / settings.audit.directory
    async with AsyncExitStack() as stack:
        upstreams = HttpUpstreamClient()
        stack.push_async_callback(upstreams.close)
        tls, standing = _load(settings, here, upstreams, clock)
        policy = standing.snapshot.policy
        keys = ensure_keys(directory / "keys")
        key_ring = JwksKeyRing(clock)
        stack.push_async_callback(key_ring.close)
        ledger = await _ledger(settings, clock, stack)
        sockets = []
        for host, port in ((settings.listen.host, settings.listen.port), (settings.admin.host, settings.admin.port)):
            sockets.append(bind(host, port))
            stack.callback(sockets[-1].close)
        journal = await Journal.open(
            directory,
            signer=keys.signer,
            clock=clock,
            facts=Start(version=__version__, configuration=digest, policy=policy.digest),
            durability=Durability(settings.audit.durability),
        )
        stack.push_async_callback(journal.close)
        metrics = Metrics(DIALECTS)
        pseudonyms = Pseudonyms(keys.pseudonym_secret)
        spans = _spans(settings, here, pseudonyms)
        stack.push_async_callback(spans.close)
        house = House(standing, key_ring, journal, metrics, pseudonyms, tls, clock)
        stack.push_async_callback(house.settle)
        gateway = Gateway(
            World(
                snapshot=standing.current,
                authenticator=Authenticator(key_ring, clock),
                sources=SourceLimit(settings.failed_authentications, clock),
                ledger=ledger,
                upstreams=upstreams,
                trail=journal,
                observers=(metrics, spans),
                pseudonyms=pseudonyms,
                clock=clock,
                new_id=new_id,
                via=b"hip-" + digest[:8].encode(),
            )
        )
        await key_ring.load(policy.issuers.values())
        house.policy_changed()
        if tls is not None:
            metrics.certificate_expires(tls.expires)
        limits = settings.listen.limits
        admin = await stack.enter_async_context(
            serve(
                admin_app(house.readiness, metrics.exposition),
                listening=sockets[1],
                limits=Limits(),
                drain_seconds=ADMIN_DRAIN,
            )
        )
        data_path = await stack.enter_async_context(
            serve(
                Edge(gateway, limits.body),
                listening=sockets[0],
                limits=Limits(
                    body_bytes=limits.body,
                    connections=limits.connections,
                    connections_per_source=limits.connections_per_source,
                ),
                drain_seconds=settings.listen.drain,
                context=tls.context if tls is not None else None,
                on_refused=house.refused,
            )
        )
        metrics.watch_connections(lambda: data_path.connections)
        stop = asyncio.Event()
        following = asyncio.create_task(
            standing.follow(journal, key_ring, stop, house.policy_changed), name="policy reload"
        )
        try:
            yield Running(data_path.port, admin.port, standing, journal, house)
        finally:
            house.draining = True
            stop.set()
            await asyncio.wait([following])


def _read(config: Path) -> tuple[bytes, Settings]:
    try:
        data = config.read_bytes()
    except OSError as exc:
        hint = "name the file: hip serve --config FILE"
        raise ConfigError([Finding(str(config), 0, 0, f"cannot be read: {exc.strerror}", hint)]) from exc
    return data, read_settings(str(config), data)


def _load(
    settings: Settings, here: Path, upstreams: HttpUpstreamClient, clock: Clock
) -> tuple[ServerTls | None, Standing]:
    """Read certificates and policies; whatever is wrong with either is told at once."""
    findings: list[Finding] = []
    tls = standing = None
    try:
        tls = _tls(settings, here, clock)
    except ConfigError as error:
        findings += error.findings
    try:
        standing = Standing(here / settings.policies, upstreams)
    except ConfigError as error:
        findings += error.findings
    if standing is None or findings:
        raise ConfigError(findings)
    return tls, standing


def _tls(settings: Settings, here: Path, clock: Clock) -> ServerTls | None:
    tls = settings.listen.tls
    if tls is None:
        return None
    files = TlsFiles(
        certificate=here / tls.certificate,
        key=here / tls.key,
        key_password=here / tls.key_password_file if tls.key_password_file else None,
        client_ca=here / tls.client_ca if tls.client_ca else None,
    )
    return ServerTls(files, ClientCertificates(tls.client_certificates), Profile(tls.profile), clock.now())


async def _ledger(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Ledger:
    """Return the ledger; the shared store's client is an optional extra, imported only where it is asked for."""
    if settings.state is None:
        return MemoryLedger(clock)
    from proxy.adapters.valkey import ValkeyStore
    from proxy.adapters.valkey_ledger import ValkeyLedger

    store = ValkeyStore(settings.state.url, clock)
    stack.push_async_callback(store.close)
    return ValkeyLedger(store)


def _spans(settings: Settings, here: Path, pseudonyms: Pseudonyms) -> Spans:
    file = settings.telemetry.file
    return Spans(endpoint=settings.telemetry.otlp, file=here / file if file else None, pseudonyms=pseudonyms)
