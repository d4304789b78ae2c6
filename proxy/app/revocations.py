"""The lists of what is no longer believed: the watched file, the shared list, or both, and what is told of them."""

import asyncio
import logging
from collections.abc import Collection, Iterator
from functools import partial
from typing import Literal

from proxy.adapters.metrics import Metrics
from proxy.adapters.revocations import RevocationFile
from proxy.admin import Check, Health
from proxy.app.shared import Shared
from proxy.documents import suggestion
from proxy.errors import DependencyFault
from proxy.exchange import Certificate, Principal
from proxy.identity.revocation import NOTHING_REVOKED
from proxy.identity.workload import MTLS
from proxy.ports import RevocationList, Trail
from proxy.reasons import Reason
from proxy.record import RevocationChange

FILE, SHARED = "file", "shared"

_log = logging.getLogger("hip.revocations")


class Revoked:
    """Every list that the configuration has. What one of them revokes is revoked."""

    def __init__(self, file: RevocationFile | None, shared: Shared, metrics: Metrics) -> None:
        lists = {FILE: file, SHARED: shared.revocations}
        self._lists = {place: one for place, one in lists.items() if one is not None}
        self._shared = shared.revocations
        self._metrics = metrics
        for place, one in self._lists.items():
            metrics.revocations(place, one.status().entries)

    def believed(self) -> RevocationList:
        """Return what to ask about a caller."""
        match list(self._lists.values()):
            case []:
                return NOTHING_REVOKED
            case [one]:
                return one
            case both:
                return _All(tuple(both))

    def checks(self, issuers: Collection[str]) -> Iterator[tuple[str, Check]]:
        """Say how the lists are. `issuers`: the names that the policy has, of which a line must name one."""
        for place, one in self._lists.items():
            status = one.status()
            unknown = sorted(status.issuers - {*issuers, MTLS})
            if one is self._shared and self._shared.stale:
                check = Check(Health.FAILED, f"cannot be known: {status.error or 'not read for a while'}")
            elif status.error:
                check = Check(Health.WARNING, f"the last change was rejected: {status.error}")
            elif unknown:
                check = Check(Health.WARNING, f"revokes nothing: {stranger(unknown[0], issuers)}")
            else:
                check = Check(Health.OK, f"{status.entries} revoked")
            yield "revocations" if place == FILE else f"revocations:{place}", check

    async def follow(self, trail: Trail, stop: asyncio.Event) -> None:
        """Follow every list until `stop`."""
        await asyncio.gather(
            *(one.follow(stop, partial(self._tell, trail, place)) for place, one in self._lists.items())
        )

    async def _tell(self, trail: Trail, place: str, findings: int) -> None:
        entries = self._lists[place].status().entries
        self._metrics.revocations(place, entries)
        if findings:
            self._metrics.revocations_rejected(place)
        effect: Literal["loaded", "rejected"] = "rejected" if findings else "loaded"
        try:
            await trail.append(RevocationChange(effect=effect, place=place, entries=entries, findings=findings))
        except DependencyFault as error:  # the journal says so itself, and nothing is served until it can
            _log.error("a change of the revocations is not in the journal: %s", error.detail)


def stranger(issuer: str, known: Collection[str]) -> str:
    """Return what is said of an issuer's name that the policy does not have."""
    return f"no issuer of the policy is called `{issuer}`{suggestion(issuer, {*known, MTLS})}"


class _All:
    def __init__(self, lists: tuple[RevocationList, ...]) -> None:
        self._lists = lists

    @property
    def generation(self) -> int:
        return sum(one.generation for one in self._lists)

    def revoked(self, principal: Principal, certificate: Certificate | None) -> Reason | None:
        return next((reason for one in self._lists if (reason := one.revoked(principal, certificate))), None)
