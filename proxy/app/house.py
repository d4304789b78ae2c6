"""What an operator is told of the whole house: the checks behind `/readyz`, and the listener's refusals on record."""

import asyncio
import logging
from dataclasses import dataclass, field

from proxy.adapters.journal import Journal, State
from proxy.adapters.keys import JwksKeyRing
from proxy.adapters.metrics import Metrics
from proxy.adapters.tls import ServerTls
from proxy.admin import Check, Health, Readiness
from proxy.app.standing import Standing
from proxy.audit.describe import refused_message
from proxy.audit.pseudonym import Pseudonyms
from proxy.errors import DependencyFault
from proxy.exchange import Peer
from proxy.listener import Refused
from proxy.ports import Clock

EXPIRY_WARNING = 14 * 86_400  # seconds before the certificate ends

_log = logging.getLogger("hip")


@dataclass(slots=True)
class House:
    """The parts that can be unwell."""

    standing: Standing
    key_ring: JwksKeyRing
    journal: Journal
    metrics: Metrics
    pseudonyms: Pseudonyms
    tls: ServerTls | None
    clock: Clock
    draining: bool = False
    _records: set[asyncio.Task[None]] = field(default_factory=set)

    def readiness(self) -> Readiness:
        """Return the state of every part; requests should come while none has failed."""
        checks = {"policy": self._policy(), "trail": self._trail()}
        for issuer in self.key_ring.status():
            detail = f"{issuer.keys} keys" + (f"; {issuer.error}" if issuer.error else "")
            health = Health.FAILED if not issuer.keys else Health.WARNING if issuer.error else Health.OK
            checks[f"keys:{issuer.issuer}"] = Check(health, detail)
        if self.tls is not None:
            checks["certificate"] = self._certificate(self.tls)
        return Readiness(self.standing.snapshot.policy.digest, self.draining, checks)

    def policy_changed(self) -> None:
        """Tell the metrics what serves, or that the last change does not."""
        if self.standing.error:
            self.metrics.policy_rejected()
        else:
            self.metrics.policy_loaded(self.standing.snapshot.policy.digest)

    def refused(self, refused: Refused, peer: Peer) -> None:
        """Leave the one record of a message that the listener did not take."""
        self.metrics.message_refused(refused.reason)
        task = asyncio.get_running_loop().create_task(self._record(refused, peer))
        self._records.add(task)
        task.add_done_callback(self._records.discard)

    async def settle(self) -> None:
        """Return when every refusal of the listener is on record."""
        if self._records:
            await asyncio.wait(self._records)

    async def _record(self, refused: Refused, peer: Peer) -> None:
        policy = self.standing.snapshot.policy.digest
        event = refused_message(
            refused.incident, refused.reason, refused.status, refused.detail, peer, policy, self.pseudonyms
        )
        try:
            await self.journal.append(event)
        except DependencyFault as error:  # nothing was forwarded, and the journal counts what it refused
            _log.error("a refused message is not in the journal: %s", error.detail)

    def _policy(self) -> Check:
        error = self.standing.error
        return Check(Health.WARNING, f"the last change was rejected: {error}") if error else Check(Health.OK)

    def _trail(self) -> Check:
        status = self.journal.status()
        if status.state is not State.OK:
            return Check(Health.FAILED, status.cause)
        if status.disk_warning:
            return Check(Health.WARNING, f"{status.free:.0%} of the disk is free")
        return Check(Health.OK, f"{status.unsealed} records since the last signed head")

    def _certificate(self, tls: ServerTls) -> Check:
        days = (tls.expires - self.clock.now()) / 86_400
        if days <= 0:
            return Check(Health.FAILED, "expired")
        return Check(Health.WARNING if days * 86_400 < EXPIRY_WARNING else Health.OK, f"{days:.0f} days left")
