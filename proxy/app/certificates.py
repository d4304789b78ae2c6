"""The certificate files that stand: the listener's and the upstreams', read again when they change.

A set that is not good together is never loaded: the one before serves on, and the log, `/readyz`, the metrics and the
journal say so. New connections of the listener get what is new at once; open ones go on, but for those whose client
certificate might be refused now: they end with the answer under way.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from proxy.adapters.filewatch import LOOK_SECONDS, Resting
from proxy.adapters.metrics import Metrics
from proxy.adapters.tls import ServerTls
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.admin import Check, Health
from proxy.errors import ConfigError, DependencyFault
from proxy.exchange import Peer
from proxy.ports import Clock, Trail
from proxy.record import CertificateChange

EXPIRY_WARNING = 14 * 86_400.0  # seconds before the certificate ends
LIST_WARNING = 86_400.0  # seconds before the revocation list ends
WARN_AGAIN = 86_400.0  # seconds between two lines of the log about the same end
RETRY_SECONDS = 30.0  # a rejected set is tried again: a certificate that begins in a minute is good in a minute
LISTENER = "listener"

_log = logging.getLogger("hip.certificates")

_Place = tuple[str, tuple[Path, ...], Callable[[], bool]]  # what it is for, its files, how to read them again


class Certificates:
    """Follows the files; `dismiss` ends connections whose peer it is asked about."""

    def __init__(
        self, tls: ServerTls | None, upstreams: HttpUpstreamClient, trail: Trail, metrics: Metrics, clock: Clock
    ) -> None:
        self._tls = tls
        self._upstreams = upstreams
        self._trail = trail
        self._metrics = metrics
        self._clock = clock
        self._looks: dict[str, Resting] = {}
        self._errors: dict[str, str] = {}
        self._warned: dict[str, tuple[Health, float]] = {}  # of what ends soon: what was logged, and when
        self._tried_at = clock.monotonic()
        if tls is not None:
            metrics.certificate_expires(tls.expires)

    async def follow(self, dismiss: Callable[[Callable[[Peer], bool]], None], stop: asyncio.Event) -> None:
        """Look at the files now and then, until `stop`."""
        while not stop.is_set():
            retry = self._clock.monotonic() - self._tried_at >= RETRY_SECONDS
            places = list(self._places())
            self._errors = {place: self._errors[place] for place, *_ in places if place in self._errors}
            for place, paths, reload in places:
                if await asyncio.to_thread(self._changed, place, paths) or (retry and place in self._errors):
                    await self._reload(place, reload, dismiss)
            self._warn()
            try:
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    def checks(self) -> Iterator[tuple[str, Check]]:
        """Say how the certificates are."""
        for place, error in self._errors.items():
            yield f"certificate:{place}", Check(Health.WARNING, f"the last change was rejected: {error}")
        yield from self._ends()

    def _ends(self) -> Iterator[tuple[str, Check]]:
        if self._tls is None:
            return
        left = self._tls.expires - self._clock.now()
        health = Health.FAILED if left <= 0 else Health.WARNING if left < EXPIRY_WARNING else Health.OK
        yield "certificate", Check(health, f"{left / 86_400:.0f} days left" if left > 0 else "expired")
        if self._tls.list_expires is not None:
            left = self._tls.list_expires - self._clock.now()
            health = Health.FAILED if left <= 0 else Health.WARNING if left < LIST_WARNING else Health.OK
            said = f"{left / 3_600:.0f} hours left" if left > 0 else "out of date: no client certificate is accepted"
            yield "revocation list", Check(health, said)

    def _warn(self) -> None:
        """Log what ends soon, once a day, and at once when it has ended."""
        now = self._clock.monotonic()
        for what, check in self._ends():
            health, at = self._warned.get(what, (Health.OK, now))
            if check.health is Health.OK:
                self._warned.pop(what, None)
            elif check.health is not health or now - at >= WARN_AGAIN:
                self._warned[what] = check.health, now
                level = logging.ERROR if check.health is Health.FAILED else logging.WARNING
                _log.log(level, "%s: %s; put the renewed one at its place, it is loaded by itself", what, check.detail)

    def _places(self) -> Iterator[_Place]:
        tls, upstreams = self._tls, self._upstreams
        if tls is not None:
            yield LISTENER, tls.paths, lambda: tls.reload(self._clock.now())
        for upstream, paths in upstreams.files().items():
            yield f"upstream {upstream.name}", paths, partial(upstreams.renew, upstream)

    def _changed(self, place: str, paths: tuple[Path, ...]) -> bool:
        look = self._looks.get(place)
        if look is None or look.paths != paths:
            self._looks[place] = Resting(paths)
            return True  # read once more: nobody knows what has changed between the first reading and this look
        return look.changed()

    async def _reload(
        self, place: str, reload: Callable[[], bool], dismiss: Callable[[Callable[[Peer], bool]], None]
    ) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            news = reload()
        except ConfigError as error:
            if self._errors.get(place) == str(error):
                return
            self._errors[place] = str(error)
            self._metrics.certificate_rejected()
            _log.error("%s: the certificates were not read again; those before still serve\n%s", place, error)
            await self._tell(place, "rejected", len(error.findings))
            return
        if not news and place not in self._errors:
            return
        self._errors.pop(place, None)
        _log.info("%s: the certificates were read again", place)
        if place == LISTENER and self._tls is not None:
            self._metrics.certificate_expires(self._tls.expires)
            dismiss(self._distrusted)
        await self._tell(place, "loaded", 0)

    def _distrusted(self, peer: Peer) -> bool:
        return peer.certificate is not None and self._tls is not None and self._tls.distrusts(peer.certificate)

    async def _tell(self, place: str, effect: Literal["loaded", "rejected"], findings: int) -> None:
        fingerprint = self._tls.fingerprint if place == LISTENER and self._tls is not None else ""
        event = CertificateChange(effect=effect, place=place, fingerprint=fingerprint, findings=findings)
        try:
            await self._trail.append(event)
        except DependencyFault as error:  # the journal says so itself, and nothing is served until it can
            _log.error("a change of certificates is not in the journal: %s", error.detail)
