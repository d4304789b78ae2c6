"""The ladder: what an enforcing rule does now about what its detector saw. The highest rung of all signals decides.

Not guaranteed: that a caller who is asked to sign in again (`step_up`) is another one afterwards. It shows that
somebody with the second factor is there, and it stands in the trail.
"""

from dataclasses import dataclass

from proxy.errors import AnomalousInput, Challenge, Refusal, StepUpRequired
from proxy.exchange import DetectorUse, Mode, Principal, Score, SequenceFinding, Suspicion
from proxy.reasons import Reason

DELAY_SECONDS = 2.0  # of an answer on the rung `delay`: a bisection of 1,000 queries takes half an hour


@dataclass(frozen=True, slots=True)
class Due:
    """A rung, and which suspicion put the caller on it. `since` in UNIX seconds."""

    rung: Suspicion
    reason: Reason
    since: float = 0.0

    def refusal(self, principal: Principal, now: float) -> Refusal | None:
        """Return why there is no answer, or None if there will be one."""
        if self.rung is Suspicion.REFUSE:
            return AnomalousInput(self.reason)
        if self.rung is Suspicion.STEP_UP and (principal.auth_time is None or principal.auth_time <= self.since):
            return StepUpRequired(self.reason, challenge=Challenge(max_age=max(1, int(now - self.since))))
        return None


def due(use: DetectorUse, score: Score, finding: SequenceFinding | None) -> Due | None:
    """Return the rung of this request, or None if nothing that is enforced is suspicious."""
    found = []
    if use.mode is Mode.ENFORCE and score.suspicious:
        found.append(Due(use.on_suspicion, Reason.ANOMALOUS_INPUT))
    if finding is not None and use.sequences is not None and use.sequences.mode is Mode.ENFORCE:
        found.append(Due(use.sequences.rung(finding), Reason.SUSPICIOUS_SEQUENCE, finding.since))
    return max(found, key=lambda one: one.rung.height) if found else None
