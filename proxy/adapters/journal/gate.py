"""Whether records are accepted, and what becomes of the others: refused, or, only in words, let pass without a record.

Only `State.OK` accepts. The gate knows neither disk nor stream: whoever sees them shuts it and opens it again. A
journal that is closed lets nothing pass, whatever the configuration says.
"""

import errno
import logging

from proxy.adapters.journal.status import Failure, State
from proxy.errors import DependencyFault
from proxy.ports import Clock
from proxy.reasons import Reason
from proxy.record import UNRECORDED, Gap, Position

_log = logging.getLogger("hip.audit")


class Gate:
    """One journal's gate; `accepts` is what every record asks."""

    def __init__(self, clock: Clock, failure: Failure) -> None:
        self._clock = clock
        self.failure = failure
        self.accepts = True
        self.state, self.cause = State.OK, ""
        self.refused = 0  # records, since the journal was opened
        self.unrecorded = 0  # records that are missing, since the journal was opened
        self._refused_before = self._unrecorded_before = 0  # the gap that is now
        self._since = 0.0  # monotonic: when it began

    @property
    def lets_pass(self) -> bool:
        """Say whether a request goes on although its record cannot be written."""
        return self.failure is Failure.OPEN and self.state is not State.CLOSED

    def turn_away(self) -> Position:
        """Count a record that cannot be taken; return in its place, or raise DependencyFault(AUDIT_UNWRITABLE)."""
        if self.lets_pass:
            self.unrecorded += 1
            return UNRECORDED
        self.refused += 1
        raise self.fault()

    def fault(self) -> DependencyFault:
        """Return what a request is refused with."""
        return DependencyFault(Reason.AUDIT_UNWRITABLE, f"the audit journal is {self.state}: {self.cause}")

    def shut(self, state: State, cause: str) -> None:
        """Accept nothing from now on."""
        if self.accepts:
            self._since = self._clock.monotonic()
            self._refused_before, self._unrecorded_before = self.refused, self.unrecorded
            fate = "passes WITHOUT A RECORD (failure: open)" if self.lets_pass else "is refused"
            _log.critical("audit journal %s: %s; every request %s", state, cause, fate)
        self.accepts, self.state, self.cause = False, state, cause

    def open(self) -> Gap:
        """Accept again; returns the record of the time between, which must be the first one."""
        cause, self.state, self.cause, self.accepts = f"{self.state}: {self.cause}", State.OK, "", True
        seconds = round(self._clock.monotonic() - self._since, 3)
        refused = self.refused - self._refused_before
        unrecorded = self.unrecorded - self._unrecorded_before
        _log.warning(
            "audit journal writes again after %s s, %d records refused, %d left out", seconds, refused, unrecorded
        )
        return Gap(cause=cause, refused=refused, seconds=seconds, unrecorded=unrecorded)

    def close(self) -> None:
        """Accept nothing any more, in order."""
        self.accepts, self.state, self.cause = False, State.CLOSED, "the journal is closed"


def cause_of(error: Exception) -> str:
    """Return an error of the disk in words for an operator."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"
    return str(error)
