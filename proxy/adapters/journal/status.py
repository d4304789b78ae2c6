"""The journal's settings and what it shows of itself."""

from dataclasses import dataclass
from enum import StrEnum


class Durability(StrEnum):
    """What an acknowledgement promises."""

    SYNC = "sync"  # on the medium (fdatasync, shared by all who wait)
    GROUP = "group"  # with the kernel: survives kill -9, not a power cut within the last second
    ASYNC = "async"  # nothing: survives neither


class Failure(StrEnum):
    """What becomes of a request whose record cannot be written."""

    DENY = "deny"  # refused
    OPEN = "open"  # let pass WITHOUT a record, counted


class State(StrEnum):
    """Whether records are accepted. Only `OK` accepts."""

    OK = "ok"
    DISK_LOW = "disk_low"
    STUCK = "stuck"  # a call to the disk does not return
    FAILED = "failed"  # a call to the disk failed; a new stream is tried
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps and rhythms."""

    segment_bytes: int = 64 << 20
    segment_seconds: float = 3_600
    checkpoint_records: int = 1_000
    checkpoint_seconds: float = 1  # when there is news
    heartbeat_seconds: float = 60  # a checkpoint although there is no news, and an anchor line
    sync_seconds: float = 1  # between two fdatasync in the background
    stuck_seconds: float = 1  # that a call to the disk may take
    retry_seconds: float = 1  # between two attempts to start anew after a failure
    warn_free: float = 0.20  # share of the file system
    deny_free: float = 0.05
    tick_seconds: float = 0.25


@dataclass(frozen=True, slots=True)
class Status:
    """The journal's state, for readiness, metrics and the log."""

    state: State
    cause: str
    disk_warning: bool
    free: float  # share of the file system
    stream: str
    records: int
    unsealed: int
    refused: int  # records, since the journal was opened
    unrecorded: int  # records that are missing because `failure: open` let their requests pass
    failure: Failure
    second_place_error: str  # empty: heads reach their second place, or there is none
