"""The audit records: one closed, typed schema. Spans and every export derive from these, never the other way.

A refused request is one `decision`; an allowed one is a `decision` written before it is forwarded and a `completion`
written before the answer leaves, with the same `event` id. Never in a record: tokens, inputs, outputs, exception
text. What identifies a person or a machine is a keyed hash. Field by field: docs/audit-reference.md.
"""

from typing import Literal

import msgspec

SCHEMA_VERSION = 1


class Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A record part: an unknown field is an error when it is read back."""


class Actor(Closed, frozen=True):
    """Who asked."""

    subject: str  # keyed pseudonym
    issuer: str
    roles: tuple[str, ...]
    factors: tuple[str, ...]
    token: str  # keyed hash of issuer and `jti`
    key_id: str
    acr: str | None = None
    auth_time: int | None = None
    bound: bool = False  # the token is bound to the client certificate
    client: str | None = None  # that the token was given to


class Source(Closed, frozen=True):
    """Where from."""

    address: str  # keyed hash
    tls: str | None = None
    cipher: str | None = None
    certificate: str | None = None  # SHA-256 fingerprint, base64url


class Obligations(Closed, frozen=True):
    """How exactly the answer may speak, whether MFA was asked for, what may be asked for beside the input."""

    output: str
    decimals: int | None = None
    top_k: int | None = None
    label_only: bool = False
    mfa: bool = True
    parameters: tuple[str, ...] = ()  # of the request, in words; empty: what the dialect holds safe


class Spent(Closed, frozen=True):
    """What a budget was asked for. `remaining` is per window, in the budget's order."""

    budget: str
    requests: int
    rows: int
    tokens: int
    remaining: tuple[int, ...]
    revision: int | None = None  # None: refused, nothing charged


JudgedAs = Literal[
    "pass", "degrade", "step_up", "delay", "refuse", "shadow_degrade", "shadow_step_up", "shadow_delay", "shadow_refuse"
]


class Sequence(Closed, frozen=True):
    """What the caller's recent rows showed."""

    pattern: str
    count: int  # rows that show it
    limit: int  # rows from which they show it
    window: int  # rows looked at
    row: int  # of the request
    since: float  # UNIX seconds
    verdict: JudgedAs
    distance: float | None = None  # in units of the detector's tau


class Judged(Closed, frozen=True):
    """What the detector said of the strangest row, and of the sequence where there is something to say."""

    detector: str
    digest: str
    mode: str
    p_value: float
    alpha: float
    statistic: float
    threshold: float
    row: int
    verdict: JudgedAs  # about the row
    sequence: Sequence | None = None
    rows: int = 1  # that were judged


class UpstreamError(Closed, frozen=True):
    """What is kept of an upstream's own words: enough to find the fault, nothing that a caller may have put there."""

    bytes: int
    digest: str  # SHA-256 of the body
    content_type: str | None = None
    errors: tuple[str, ...] = ()  # exception class names
    places: tuple[str, ...] = ()  # file:line


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"):
    """The root of the record types; `type` in the JSON line tells which."""


class Decision(Event, tag="decision", frozen=True, kw_only=True):
    """Written before anything is forwarded; the whole record of a request that is refused."""

    event: str
    effect: Literal["allow", "deny"]
    reason: str
    policy: str
    method: str  # empty: the listener could not read one
    source: Source
    trace: str  # empty: no span was made
    span: str
    action: str | None = None
    model: str | None = None
    version: str | None = None
    dialect: str | None = None
    rule: str | None = None
    shadow: tuple[str, ...] = ()  # rules in shadow that would have decided otherwise
    actor: Actor | None = None
    obligations: Obligations | None = None
    spent: Spent | None = None
    judged: Judged | None = None
    input_hash: str | None = None  # keyed
    input_bytes: int | None = None
    status: int | None = None  # of the answer, when refused
    detail: str | None = None  # our own words, never a caller's or an upstream's


class Completion(Event, tag="completion", frozen=True, kw_only=True):
    """Written before the answer is released."""

    event: str
    reason: str
    status: int
    applied: Obligations | None = None
    upstream: str | None = None
    upstream_replica: str | None = None  # the address of the replica that answered, where there are several
    upstream_status: int | None = None
    upstream_ms: float | None = None
    upstream_error: UpstreamError | None = None
    answer_bytes: int | None = None
    given_back: bool = False  # the charge: nothing of the request was sent
    settled_tokens: int | None = None  # what the budget was charged in the end; None: as the decision's `spent` says
    detail: str | None = None


class Start(Event, tag="start", frozen=True, kw_only=True):
    """A worker began to serve."""

    version: str
    configuration: str  # digest
    policy: str
    replica: str = ""  # which machine or pod, as the configuration names it
    worker: int = 0
    failure: Literal["deny", "open"] = "deny"  # what becomes of a request whose record cannot be written
    boot: str = ""  # the kernel's boot id: `mono_ns` compares only within one boot


class Stop(Event, tag="stop", frozen=True, kw_only=True):
    """A worker ended in order."""

    requests: int  # decisions in this stream


class PolicyChange(Event, tag="policy", frozen=True, kw_only=True):
    """A policy directory was read again."""

    effect: Literal["loaded", "rejected"]
    policy: str  # the digest that serves from now on
    previous: str
    findings: int = 0


class CertificateChange(Event, tag="certificate", frozen=True, kw_only=True):
    """Certificate files were read again."""

    effect: Literal["loaded", "rejected"]
    place: str  # `listener`, or `upstream NAME`
    fingerprint: str = ""  # SHA-256 of the listener's certificate that serves from now on, base64url
    findings: int = 0


class RevocationChange(Event, tag="revocations", frozen=True, kw_only=True):
    """A list of revocations was read again. Who is on it stands in the list alone."""

    effect: Literal["loaded", "rejected"]
    place: str  # `file` or `shared`
    entries: int  # that count from now on
    findings: int = 0


class Probed(Event, tag="probe", frozen=True, kw_only=True):
    """Golden inputs were asked: how the model's answers compare with the baseline."""

    probe: str
    model: str
    baseline: str  # SHA-256 of the file, hexadecimal
    outcome: Literal["same", "changed", "failed"]
    quarantined: bool  # from now on
    detail: str = ""  # what changed, or what failed
    flips: float | None = None  # share of labels
    shift: float | None = None  # the largest, of any score
    ms: float | None = None


class InputsRecorded(Event, tag="inputs", frozen=True, kw_only=True):
    """A file of a model's recorded inputs was begun, ended or deleted. What is in it is not in the journal."""

    effect: Literal["begun", "ended", "deleted"]
    model: str
    file: str
    recipient: str = ""  # who can read it: the first 16 hexadecimal digits of the SHA-256 of the public key
    rows: int = 0  # when it ended


# ── what the journal says of itself ─────────────────────────────────────────────────────────────────────────────────


class Segment(Event, tag="segment", frozen=True, kw_only=True):
    """The first record of every file: what a verifier needs to begin here, without the files before."""

    index: int
    certificate: str  # signed note: the long-term key certifies this segment's key (proxy.audit.certificate)
    checkpoint: str  # signed note over all records before this one
    peaks: tuple[str, ...]  # the tree's state before this record, hexadecimal, largest first
    anchor: str  # hash of the anchor log's last line when the stream began: links it to everything before


class Checkpoint(Event, tag="checkpoint", frozen=True, kw_only=True):
    """A signed head over all records before this one (C2SP tlog-checkpoint)."""

    note: str


class Recovered(Event, tag="recovered", frozen=True, kw_only=True):
    """A stream of this directory ended without order; this is what was found of it, left as it was."""

    stream: str
    size: int  # whole records
    root: str  # hexadecimal, of the tree over them
    torn_bytes: int  # of a record that was never acknowledged
    torn_digest: str  # SHA-256


class Gap(Event, tag="gap", frozen=True, kw_only=True):
    """The journal could not be written for a while: requests were refused, or let pass by `failure: open`."""

    cause: str
    refused: int  # records
    seconds: float
    unrecorded: int = 0  # records that are missing of requests that were let pass


class Retention(Event, tag="retention.delete", frozen=True, kw_only=True):
    """Segments are about to be deleted because they are old enough; the anchor log says the same, signed."""

    stream: str
    segments: int  # files, from the first one on
    size: int  # records
    hash: str  # of the last of them
    profile: str
    days: int


class Lookup(Event, tag="lookup", frozen=True, kw_only=True):
    """Somebody asked who stands behind pseudonyms."""

    by: str  # who says to have asked
    purpose: str
    pseudonyms: tuple[str, ...]
    candidates: int  # names that were tried
    found: int


class Review(Event, tag="review", frozen=True, kw_only=True):
    """Somebody has looked through the journal."""

    by: str  # who says so
    anchor_line: int  # number of the anchor line up to which it was looked at …
    anchor_hash: str  # … and its hash
    until_ns: int  # of the newest record that was looked at
    verified: str  # what the verification found
    decisions: int  # in the time since the last review
    refused: int
    remark: str


AnyEvent = (
    Decision
    | Completion
    | Start
    | Stop
    | PolicyChange
    | CertificateChange
    | RevocationChange
    | Probed
    | InputsRecorded
    | Segment
    | Checkpoint
    | Recovered
    | Gap
    | Retention
    | Lookup
    | Review
)


class Position(msgspec.Struct, frozen=True):
    """Where a record stands: the pointer that spans carry."""

    stream: str
    seq: int
    hash: str  # hexadecimal


UNRECORDED = Position("unrecorded", -1, "")  # let pass without a record: `audit.failure: open`
