"""What an operator is told of the whole house: the checks behind `/readyz`, and the policy in the metrics."""

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.adapters.journal import Failure, Journal, State
from proxy.adapters.keys import JwksKeyRing
from proxy.adapters.metrics import Metrics
from proxy.adapters.spans import SpanCounts, Spans
from proxy.adapters.upstream import HttpUpstreamClient
from proxy.admin import Check, Health, Readiness
from proxy.app.certificates import Certificates
from proxy.app.probing import Probing
from proxy.app.recording import Recording
from proxy.app.revocations import Revoked
from proxy.app.shared import Shared
from proxy.app.standing import Standing


@dataclass(slots=True)
class House:
    """The parts that can be unwell."""

    standing: Standing
    key_ring: JwksKeyRing
    journal: Journal
    metrics: Metrics
    certificates: Certificates
    upstreams: HttpUpstreamClient
    shared: Shared
    spans: Spans
    probing: Probing
    revoked: Revoked
    recording: Recording | None = None  # None: hip.yaml has no place for inputs
    draining: bool = False

    def readiness(self) -> Readiness:
        """Return the state of every part; requests should come while none has failed."""
        return Readiness(self.standing.snapshot.policy.digest, self.draining, dict(self._checks()))

    def policy_changed(self) -> None:
        """Tell the metrics what serves, or that the last change does not."""
        if self.standing.error:
            self.metrics.policy_rejected()
        else:
            self.metrics.policy_loaded(self.standing.snapshot.policy.digest)

    def _checks(self) -> Iterator[tuple[str, Check]]:
        yield "policy", self._policy()
        yield "trail", self._trail()
        for issuer in self.key_ring.status():
            detail = f"{issuer.keys} keys" + (f"; {issuer.error}" if issuer.error else "")
            health = Health.FAILED if not issuer.keys else Health.WARNING if issuer.error else Health.OK
            yield f"keys:{issuer.issuer}", Check(health, detail)
        yield from self.revoked.checks(self.standing.snapshot.policy.factors)
        yield from self.certificates.checks()
        yield from self.probing.checks()
        if self.recording is not None:
            yield from self.recording.checks()
        if self.shared.check is not None:
            yield "store", self.shared.check
        for upstream, down in self.upstreams.down().items():
            if down:  # a warning: who takes the proxy away because of it takes every other upstream away too
                detail = "down: its circuit is open until a request gets through, or no replica is well"
                yield f"upstream:{upstream}", Check(Health.WARNING, detail)
        for replica in self.upstreams.replicas():
            name, why = f"replica:{replica.upstream.name}:{replica.upstream.address}", replica.passed_over
            yield name, Check(Health.WARNING if why else Health.OK, why or f"{replica.pending} requests under way")
        if lost := lost_spans(self.spans.counts()):
            yield "spans", Check(Health.WARNING, f"{lost} lost; {self.spans.counts().error}")

    def _policy(self) -> Check:
        error = self.standing.error
        return Check(Health.WARNING, f"the last change was rejected: {error}") if error else Check(Health.OK)

    def _trail(self) -> Check:
        status = self.journal.status()
        left_out = f"; {status.unrecorded} records left out (failure: open)" if status.unrecorded else ""
        if status.state is not State.OK and status.failure is Failure.OPEN:  # who takes it away closes what is open
            return Check(Health.WARNING, f"requests pass WITHOUT A RECORD: {status.cause}{left_out}")
        if status.state is not State.OK:
            return Check(Health.FAILED, status.cause)
        if status.disk_warning:
            return Check(Health.WARNING, f"{status.free:.0%} of the disk is free{left_out}")
        if status.second_place_error:
            return Check(
                Health.WARNING, f"heads do not reach their second place: {status.second_place_error}{left_out}"
            )
        if status.failure is Failure.OPEN:
            return Check(Health.WARNING, f"failure: open: a request does not need its record{left_out}")
        return Check(Health.OK, f"{status.unsealed} records since the last signed head")


def lost_spans(counts: SpanCounts) -> int:
    """Return how many spans, or exchanges that were to leave some, reached no collector or file."""
    return counts.refused + counts.failed + counts.unsent + counts.unwritten
