"""The composition root: the only place that builds adapters, in the order in which they need each other.

`running` starts everything or nothing, and ends it in the opposite order: the listener drains first, the journal
closes last, so that whatever was answered is recorded.
"""

import asyncio
import hashlib
import logging
import math
import os
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from proxy import __version__
from proxy.adapters.afterwards import Afterwards
from proxy.adapters.journal import Durability, Failure, Journal, Retention, ensure_keys, read_recipient, second_place
from proxy.adapters.journal.second_place import SecondPlace
from proxy.adapters.keys import JwksKeyRing
from proxy.adapters.metrics import Metrics
from proxy.adapters.places import PrincipalPlaces
from proxy.adapters.revocations import RevocationFile
from proxy.adapters.samples import prepare
from proxy.adapters.source_limit import SourceLimit
from proxy.adapters.spans import Spans
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.admin import admin_app
from proxy.app.certificates import Certificates
from proxy.app.house import House, lost_spans
from proxy.app.probing import Probing
from proxy.app.reading import load, read_config
from proxy.app.recording import Recording
from proxy.app.refusals import Refusals
from proxy.app.revocations import Revoked
from proxy.app.seat import ALONE, Seat
from proxy.app.shared import open_shared
from proxy.app.stages import Stages
from proxy.app.standing import Standing
from proxy.audit.pseudonym import Pseudonyms
from proxy.config import Settings
from proxy.dialects import DIALECTS
from proxy.edge import Edge
from proxy.errors import ConfigError, Finding
from proxy.gateway import Gateway, World
from proxy.identity.authenticator import Authenticator
from proxy.identity.dpop import Possession
from proxy.listener import Capacity, Limits, bind, serve
from proxy.record import Start

ADMIN_DRAIN = 1.0  # seconds: probes are short
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger("hip")


class SystemClock:
    """The machine's clock: nothing on the request's path reads another."""

    now = staticmethod(time.time)  # UNIX seconds
    monotonic = staticmethod(time.monotonic)  # seconds that never go back
    sleep = staticmethod(asyncio.sleep)


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that serves. `admin_port` is 0 in a worker: its supervisor has the admin listener."""

    port: int
    admin_port: int
    standing: Standing
    journal: Journal
    house: House


def new_id() -> str:
    """Return 32 random hexadecimal digits."""
    return os.urandom(16).hex()


@asynccontextmanager
async def running(config: Path, seat: Seat = ALONE, stages: Stages | None = None) -> AsyncIterator[Running]:
    """Serve inside the `async with` block. Raise ConfigError and serve nothing where anything is wrong.

    Paths in the file are relative to the file. `stages` times every step of every request.
    """
    data, settings = read_config(config, seat.workers)
    digest, here, clock = hashlib.sha256(data).hexdigest(), config.parent, SystemClock()
    directory = here / settings.audit.directory
    async with AsyncExitStack() as stack:
        upstreams = HttpUpstreamClient()
        stack.push_async_callback(upstreams.close)
        tls, standing = load(settings, here, upstreams, clock)
        policy = standing.snapshot.policy
        keys = ensure_keys(directory / "keys")
        key_ring = JwksKeyRing(clock)
        stack.push_async_callback(key_ring.close)
        revocations = RevocationFile(here / settings.revocations) if settings.revocations else None
        shared = await open_shared(settings.state, here, clock, stack)
        listening, admin_listening = _sockets(settings, seat, stack)
        journal = await Journal.open(
            directory,
            signer=keys.signer,
            clock=clock,
            facts=_start(digest, policy.digest, settings.audit.failure, seat),
            durability=Durability(settings.audit.durability),
            failure=Failure(settings.audit.failure),
            second_place=_second_place(settings, here),
            recipient=read_recipient(here / settings.audit.encrypt_to) if settings.audit.encrypt_to else None,
            retention=None if settings.audit.retention == "forever" else Retention(settings.audit.retention),
        )
        stack.push_async_callback(journal.close)
        if settings.audit.failure == "open":
            _log.critical("audit failure: open: where a record cannot be written, requests pass WITHOUT A RECORD")
        metrics = Metrics(DIALECTS)
        revoked = Revoked(revocations, shared, metrics)
        pseudonyms = Pseudonyms(keys.pseudonym_secret)
        spans = _spans(settings, here, pseudonyms, seat)
        stack.push_async_callback(spans.close)
        afterwards = Afterwards((metrics, spans))
        stack.callback(afterwards.tell)
        certificates = Certificates(tls, upstreams, journal, metrics, clock)
        probing = Probing(standing.current, upstreams, journal, metrics, clock, shared.quarantine)
        recording = _recording(settings, here, standing, journal, clock)
        if recording is not None:
            stack.push_async_callback(recording.close)
        house = House(
            standing, key_ring, journal, metrics, certificates, upstreams, shared, spans, probing, revoked, recording
        )
        refusals = Refusals(standing.current, journal, metrics, pseudonyms, clock)
        stack.push_async_callback(refusals.settle)
        sequences = shared.sequences

        def policy_changed() -> None:
            house.policy_changed()
            probing.policy_changed()
            if recording is not None:
                recording.policy_changed()
            sequences.retain({detector.sha256 for detector in standing.snapshot.policy.detectors.values()})

        public_url = settings.listen.public_url
        world = World(
            snapshot=standing.current,
            authenticator=Authenticator(
                key_ring,
                clock,
                revocations=revoked.believed(),
                possession=Possession(public_url, shared.replays) if public_url else None,
            ),
            sources=_sources(settings, seat, clock),
            ledger=shared.ledger,
            upstreams=upstreams,
            sequences=sequences,
            trail=journal,
            observers=(afterwards,) if recording is None else (afterwards, recording),
            pseudonyms=pseudonyms,
            clock=clock,
            new_id=new_id,
            via=b"hip-" + digest[:8].encode(),
            quarantined=probing.quarantined,
            places=_places(settings),
        )
        gateway = Gateway(world if stages is None else stages.watching(world))
        await key_ring.load(policy.issuers.values())
        policy_changed()
        admin_port = 0
        if admin_listening is not None:
            admin = admin_app(house.readiness, metrics.exposition, None if stages is None else stages.table)
            serving = serve(admin, listening=admin_listening, limits=Limits(), drain_seconds=ADMIN_DRAIN)
            admin_port = (await stack.enter_async_context(serving)).port
        caps = settings.listen.limits
        capacity = Capacity(Edge(gateway, caps.body), caps.requests, refusals.refused)
        data_path = await stack.enter_async_context(
            serve(
                capacity if stages is None else stages.timing(capacity),
                listening=listening,
                limits=Limits(
                    body_bytes=caps.body,
                    connections=caps.connections,
                    connections_per_source=caps.connections_per_source,
                ),
                drain_seconds=settings.listen.drain,
                context=tls.context if tls is not None else None,
                on_refused=refusals.refused,
            )
        )
        metrics.watch_connections(lambda: data_path.connections)
        metrics.watch_sequences(lambda: sequences.forgotten)
        metrics.watch_requests(lambda: capacity.under_way)
        metrics.watch_upstreams(upstreams.down)
        metrics.watch_replicas(upstreams.replicas)
        metrics.watch_journal(lambda: journal.status().unrecorded)
        metrics.watch_spans(lambda: lost_spans(spans.counts()))
        stop = asyncio.Event()
        followers = [
            _follow("policy", standing.follow(journal, key_ring, stop, policy_changed)),
            _follow("certificates", certificates.follow(data_path.dismiss, stop)),
            _follow("shared state", shared.follow(stop)),
            _follow("probes", probing.follow(stop)),
            _follow("other workers' probes", probing.listen(stop)),
            _follow("replicas", upstreams.follow(stop)),
            _follow("revocations", revoked.follow(journal, stop)),
        ]
        if recording is not None:
            metrics.watch_recording(recording.outcomes)
            followers.append(_follow("recorded inputs", recording.follow(stop)))
        try:
            yield Running(data_path.port, admin_port, standing, journal, house)
        finally:
            house.draining = True
            stop.set()
            await asyncio.wait(followers)


def _sockets(settings: Settings, seat: Seat, stack: AsyncExitStack) -> tuple[socket.socket, socket.socket | None]:
    """Return the data path's socket and the admin listener's; a worker gets the first, and has not the second."""
    if seat.listening is not None:
        return seat.listening, None
    sockets = []
    for host, port in ((settings.listen.host, settings.listen.port), (settings.admin.host, settings.admin.port)):
        sockets.append(bind(host, port))
        stack.callback(sockets[-1].close)
    return sockets[0], sockets[1]


def _start(configuration: str, policy: str, failure: Literal["deny", "open"], seat: Seat) -> Start:
    try:
        boot = BOOT_ID.read_text("ascii").strip()
    except OSError:  # not Linux: then nobody may compare `mono_ns` between two streams
        boot = ""
    return Start(
        version=__version__,
        configuration=configuration,
        policy=policy,
        replica=socket.gethostname(),  # in Kubernetes, the pod's name
        worker=seat.worker,
        failure=failure,
        boot=boot,
    )


def _second_place(settings: Settings, here: Path) -> SecondPlace | None:
    audit = settings.audit
    if audit.heads is None and audit.heads_ca_file is not None:
        hint = "write `heads: syslog+tls://HOST:PORT`"
        raise ConfigError([Finding("audit.heads_ca_file", 0, 0, "a CA of no collector", hint)])
    return None if audit.heads is None else second_place(audit.heads, here, audit.heads_ca_file)


def _sources(settings: Settings, seat: Seat, clock: SystemClock) -> SourceLimit:
    """Return what counts failed authentications: each worker on its own, so each has its share."""
    window = settings.failed_authentications
    return SourceLimit(replace(window, limit=math.ceil(window.limit / seat.workers)), clock)


def _places(settings: Settings) -> PrincipalPlaces | None:
    limit = settings.listen.limits.requests_per_principal
    return None if limit is None else PrincipalPlaces(limit)


def _recording(
    settings: Settings, here: Path, standing: Standing, journal: Journal, clock: SystemClock
) -> Recording | None:
    if settings.recordings is None:
        return None
    directory = here / settings.recordings.directory
    prepare(directory)
    return Recording(directory, settings.recordings.at_most, lambda: standing.snapshot.policy, journal, clock)


def _spans(settings: Settings, here: Path, pseudonyms: Pseudonyms, seat: Seat) -> Spans:
    file = here / settings.telemetry.file if settings.telemetry.file else None
    if file is not None and seat.workers > 1:  # each renames its file when it is full
        file = file.with_stem(f"{file.stem}-{seat.worker}")
    return Spans(endpoint=settings.telemetry.otlp, file=file, pseudonyms=pseudonyms)


def _follow(what: str, following: Coroutine[object, object, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(following, name=what)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("changes of the %s are not followed any more: restart", task.get_name(), exc_info=error)
