"""The vocabulary: every word that two parts of the house say to each other. Read this file first.

Frozen values, no behaviour beyond what a word means. In the order of the request's one way: call, target,
principal, grant, charge, verdict, cleared, reply, answer; `Exchange` collects them for the auditor.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from proxy.errors import Challenge
from proxy.reasons import Reason
from proxy.record import Position

Headers = tuple[tuple[bytes, bytes], ...]  # names in lower case, in the order received
Features = NDArray[np.float32]  # shape (rows, features)


class Word(msgspec.Struct, frozen=True):
    """A value that is made for each request: in use a frozen dataclass, at a tenth of its cost.

    `msgspec.structs.replace` makes a changed copy. What a policy holds is made once, and is a dataclass.
    """


# ── 0 listen ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that the TLS layer has verified against the configured CA."""

    fingerprint: str  # base64url(SHA-256(DER)), no padding: the form of `cnf["x5t#S256"]`, RFC 8705 section 3.1
    serial: str  # hexadecimal
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()  # SPIFFE ids live here


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the socket; never taken from a header."""

    address: str
    tls_version: str | None = None  # "TLSv1.3"; None on a plain socket
    tls_cipher: str | None = None
    certificate: Certificate | None = None


class Call(Word, frozen=True):
    """One clean HTTP message. `path` and `query` are the bytes that will be forwarded, as ASCII."""

    method: str
    path: str
    query: str
    headers: Headers
    peer: Peer
    read_body: Callable[[], Awaitable[bytes]]  # raises BodyTooLarge, BodyTimeout; call it once

    def values(self, name: bytes) -> list[bytes]:
        """Return every value sent under a header name; deciding on the first of several is a known hole."""
        return [value for key, value in self.headers if key == name]


# ── 1 classify ──────────────────────────────────────────────────────────────────────────────────────────────────


class Action(StrEnum):
    """What a request wants of a model server. Those of `MANAGEMENT` are closed unless a rule names them."""

    INFER = "infer"
    STREAM = "stream"
    METADATA = "metadata"
    HEALTH = "health"
    CONFIG = "config"
    STATISTICS = "statistics"
    REPOSITORY = "repository"
    SHARED_MEMORY = "shared_memory"
    TRACE = "trace"
    LOGGING = "logging"
    METRICS = "metrics"
    DOCS = "docs"


MANAGEMENT = frozenset(Action) - {Action.INFER, Action.STREAM, Action.METADATA, Action.HEALTH}


class Target(Word, frozen=True):
    """What a call asks for. `model` is None where the action concerns the whole server."""

    action: Action
    model: str | None
    version: str | None = None
    form: str = ""  # in the dialect's own words: in which of its forms such a request is written
    sole: bool = False  # the path names no model: it is the only one that the policy has behind this dialect
    complete: "Callable[[Target, bytes], Target] | None" = None  # reads what only the body says: the model, the action
    served_as: str | None = None  # the server's own name of the model, where the policy has another
    models: tuple[str, ...] = ()  # of a whole server: those of its models that the rule is about


Pointer = tuple[str, ...]  # the steps of a JSON pointer (RFC 6901); `*` is every entry of a list


@dataclass(frozen=True, slots=True)
class Form:
    """Where a server of the dialect `generic` keeps things."""

    infer: str  # the path
    rows: Pointer  # in a request: the list of rows
    features: Pointer | None  # in a row: its numbers; None: there are none for a detector
    scores: tuple[Pointer, ...]  # in a reply: what leaves hardened …
    labels: tuple[Pointer, ...]  # … and what leaves if it is a label
    health: str | None = None  # the path


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How a replica is asked whether it is well. Times in seconds."""

    path: str  # asked with GET, behind the replica's base path; 2xx is well
    every: float
    timeout: float
    down_after: int  # failures in a row
    up_after: int  # successes in a row

    def __str__(self) -> str:
        turns = f"down after {self.down_after}, up after {self.up_after}"
        return f"GET {self.path} every {self.every:g} s, at most {self.timeout:g} s, {turns}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A model server. `base_path` is prepended to the authorised path; sizes in bytes, times in seconds.

    Where it has `replicas`, each of them is an upstream of its own that requests are shared among, and what this one
    says of its address is the first replica's.
    """

    name: str
    scheme: str
    host: str
    port: int
    base_path: str
    dialect: str
    timeout: float  # from the request's first byte to the answer's last, unless it streams
    connect_timeout: float
    max_reply_bytes: int
    max_connections: int
    ca_file: str | None = None  # https: the CA to trust instead of the system's
    client_cert_file: str | None = None  # https: our certificate, PEM with its chain …
    client_key_file: str | None = None  # … and its key; both or neither
    spki_sha256: str | None = None  # https: hexadecimal digest of the one public key that may answer
    form: Form | None = None  # of the dialect `generic`, and of no other
    # An upstream is looked up by its hash for every request, and what stands above tells two apart.
    public_host: str | None = field(default=None, hash=False)  # the only host under which callers reach it, lower case
    prefix: str = field(default="", hash=False)  # of the callers' paths, which the server does not see: `/iris`
    replicas: "tuple[Upstream, ...]" = field(default=(), hash=False)
    health: HealthCheck | None = field(default=None, hash=False)  # of each replica

    @property
    def address(self) -> str:
        """Where it is, as records, metrics and operators name a replica: `10.0.0.7:8000`, with its base path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}{self.base_path}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


# ── 2 authenticate ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Mfa:
    """What counts as multi-factor (RFC 8176, NIST SP 800-63B). Empty sets ask nothing; `max_age` in seconds."""

    any_amr: frozenset[str] = frozenset()  # at least one of these methods …
    acr_values: tuple[str, ...] = ()  # … or one of these contexts
    max_age: int | None = None  # since `auth_time`


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may say who a caller is. Exactly one of `jwks_file`, `jwks_uri`, `discovery` is set."""

    name: str
    issuer: str  # compared with `iss` byte for byte
    audience: str
    algorithms: frozenset[str]
    mfa: Mfa
    roles_claim: tuple[str, ...]  # a path of object keys
    token_types: frozenset[str] = frozenset({"at+jwt", "application/at+jwt"})
    jwks_file: str | None = None
    jwks_uri: str | None = None
    discovery: bool = False
    ca_file: str | None = None
    leeway: int = 30  # seconds of clock difference
    max_staleness: int = 3600  # seconds that old keys serve while the key server is away


class Scheme(StrEnum):
    """How a token is presented, as `Authorization` names it."""

    BEARER = "Bearer"  # RFC 6750
    DPOP = "DPoP"  # RFC 9449


NO_CLAIMS: Mapping[str, object] = MappingProxyType({})


class Principal(Word, frozen=True):
    """An authenticated caller. Times are UNIX seconds."""

    issuer: str  # the issuer's name in the policy
    subject: str
    roles: frozenset[str]
    factors: frozenset[str]  # `amr`, exactly as sent
    acr: str | None
    auth_time: int | None
    issued_at: int
    expires_at: int
    token_id: str  # `jti`
    token_digest: bytes  # SHA-256 of the whole token
    key_id: str
    client: str | None = None  # `client_id` or `azp`
    certificate: str | None = None  # the fingerprint that the token is bound to, if any
    claims: Mapping[str, object] = msgspec.field(default_factory=lambda: NO_CLAIMS)  # for the policy's conditions
    proof_key: str | None = None  # the thumbprint (RFC 7638) of the DPoP key that the token is bound to, if any

    @property
    def account(self) -> str:
        """Whose budget is charged: unambiguous, whatever characters an issuer puts into a subject."""
        return f"{len(self.issuer)}:{self.issuer}:{self.subject}"


# ── 3 authorize ─────────────────────────────────────────────────────────────────────────────────────────────────


class Unit(StrEnum):
    """What a budget counts."""

    REQUESTS = "requests"
    ROWS = "rows"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` units in any `seconds` seconds."""

    unit: Unit
    limit: int
    seconds: int
    name: str = field(init=False, repr=False, compare=False)  # in the `RateLimit` fields: `requests-60s`
    quota: str = field(init=False, repr=False, compare=False)  # its member of the `RateLimit-Policy` field

    def __post_init__(self) -> None:
        """Spell once what every answer says."""
        object.__setattr__(self, "name", f"{self.unit}-{self.seconds}s")
        # draft-ietf-httpapi-ratelimit-headers-11, section 3.1: without `qu` the unit is requests. Rows and tokens are
        # not in the registry of section 10.3 yet; an unregistered unit tells the truth, the default would not.
        unit = "" if self.unit is Unit.REQUESTS else f';qu="{self.unit}"'
        object.__setattr__(self, "quota", f'"{self.name}";q={self.limit}{unit};w={self.seconds}')


@dataclass(frozen=True, slots=True)
class Budget:
    """Several windows, all charged or none."""

    name: str
    windows: tuple[Window, ...]


class Output(Word, frozen=True):
    """How exactly an answer may speak. The rule's profile and the floor are already one."""

    name: str
    decimals: int | None = None
    top_k: int | None = None
    label_only: bool = False

    @property
    def open(self) -> bool:
        """Say whether the profile keeps nothing back."""
        return self.decimals is None and self.top_k is None and not self.label_only


class Mode(StrEnum):
    """Whether a protection acts on what it sees."""

    ENFORCE = "enforce"
    SHADOW = "shadow"  # decide, record what would have happened, let it pass
    OFF = "off"


class Suspicion(StrEnum):
    """The ladder, in rising order: what is done about a suspicion. Each rung includes `label`."""

    LABEL = "label"  # answer with the label only: the caller cannot tell
    STEP_UP = "step_up"  # and only to who has signed in since
    DELAY = "delay"  # and late
    REFUSE = "refuse"

    @property
    def height(self) -> int:
        """How far up the ladder."""
        return _RUNGS.index(self)


_RUNGS = tuple(Suspicion)


class Pattern(StrEnum):
    """What the recent rows of a caller look like."""

    NEAR_DUPLICATES = "near_duplicates"
    COLLUDING = "colluding"
    OUT_OF_DISTRIBUTION = "out_of_distribution"


@dataclass(frozen=True, slots=True)
class SequenceFinding:
    """What a caller's recent rows show, as long as they show it: the evidence."""

    pattern: Pattern
    count: int  # rows that show it
    limit: int  # rows from which they show it
    window: int  # rows looked at
    row: int  # of the request: where it was first seen
    since: float  # UNIX seconds of the row that reached the limit, or last doubled it
    distance: float | None = None  # to the nearest other row, in units of the detector's tau; None: not about distance


@dataclass(frozen=True, slots=True)
class SequenceUse:
    """Query sequences as a rule uses them."""

    mode: Mode
    near: bool  # whether rows near each other mean anything; a time series is made of them
    decay: float  # seconds after which a row no longer counts
    rungs: Mapping[Pattern, tuple[Suspicion, ...]]

    def rung(self, finding: SequenceFinding) -> Suspicion:
        """Return what is due: each doubling of the evidence is one rung up."""
        rungs = self.rungs[finding.pattern]
        doublings = (finding.count // finding.limit).bit_length() - 1
        return rungs[min(doublings, len(rungs) - 1)]


@dataclass(frozen=True, slots=True)
class DetectorUse:
    """A detector as a rule uses it. `digest` is the hexadecimal SHA-256 that the policy names."""

    name: str
    file: str
    digest: str
    mode: Mode
    on_suspicion: Suspicion  # about one row
    sequences: SequenceUse | None = None  # None: nobody looks at them

    @property
    def enforced(self) -> bool:
        """Say whether anything is done about what it sees."""
        return Mode.ENFORCE in (self.mode, self.sequences.mode if self.sequences else Mode.OFF)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A request parameter that may be used."""

    most: int | None = None  # None: any value
    cap: bool = True  # what is above `most` becomes `most`; False: it is refused


Parameters = Mapping[str, Parameter]  # by name; what is not in it is refused


class Naming(StrEnum):
    """Where the requests of a dialect name their model."""

    PATH = "path"
    BODY = "body"
    NOWHERE = "nowhere"  # so the policy can have one model behind it


@dataclass(frozen=True, slots=True)
class KnownParameter:
    """A request parameter that a dialect knows, so that a rule may speak of it."""

    default: Parameter | None = None  # where the rule does not; None: refused
    counted: bool = False  # a rule may say `at_most`


NO_PARAMETERS: Parameters = MappingProxyType({})


class Grant(Word, frozen=True):
    """A permission with its obligations: what a rule allowed, and under which conditions."""

    rule: str
    principal: Principal
    target: Target
    upstream: Upstream
    budget: Budget
    output: Output
    detector: DetectorUse | None
    mfa: bool  # False: the rule says in words that it needs none
    policy: str  # digest
    shadow: tuple[str, ...] = ()  # rules in shadow that would have decided otherwise
    parameters: Parameters = msgspec.field(default_factory=lambda: NO_PARAMETERS)
    terms: tuple[str, ...] = ()  # the same in words, where the policy says something else than the dialect


@dataclass(frozen=True, slots=True)
class Denial:
    """The other decision. `rule` is the nearest rule, if one was near."""

    reason: Reason
    rule: str | None = None
    challenge: Challenge | None = None  # set when a stronger authentication would be allowed
    shadow: tuple[str, ...] = ()  # rules in shadow that would have allowed it
    scope: str | None = None  # the OAuth scope with which a rule would be about the request


# ── 4 charge ────────────────────────────────────────────────────────────────────────────────────────────────────


class Cost(Word, frozen=True):
    """What one request is worth."""

    requests: int = 1
    rows: int = 0
    tokens: int = 0

    def of(self, unit: Unit) -> int:
        """Return the amount in one unit."""
        amount: int = getattr(self, unit)  # the fields are named after the units
        return amount


class WindowState(Word, frozen=True):
    """What a window holds after a charge (or after a refusal)."""

    window: Window
    remaining: int
    reset: int  # seconds until units come back


class Charge(Word, frozen=True):
    """A paid request. `revision` counts the charges of the account and budget: an auditor sees a gap."""

    account: str
    budget: Budget
    cost: Cost
    states: tuple[WindowState, ...]
    revision: int
    at: int = 0  # microseconds of the ledger's own clock: where a settlement finds what it corrects


class Exhausted(Word, frozen=True):
    """A request that the budget does not cover; nothing was charged."""

    budget: Budget
    cost: Cost
    states: tuple[WindowState, ...]
    window: Window  # the one that says no
    retry_after: int | None  # seconds; None: never, the cost is above the limit


# ── 5 inspect ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Images:
    """The encoded images of a request, one a row. They are read when a detector asks for them, as texts are."""

    read: Callable[[], Sequence[bytes]]  # raises Malformed(SCHEMA_MISMATCH) where there is more than images
    size: int  # bytes of the request: what reading them costs at most


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a request, one a row. They are read when a detector asks for them, and cost nothing before."""

    read: Callable[[], Sequence[bytes]]  # raises Malformed(SCHEMA_MISMATCH) where there is more than text
    images: Images | None = None  # the same bytes, where they may also be encoded images


Inputs = Features | Texts | Images


class Query(Word, frozen=True):
    """A request body, read once by its dialect. `features` is None where there is nothing for a detector."""

    cost: Cost
    body: bytes  # what will be forwarded
    headers: Headers  # what the dialect forwards beside it
    features: Inputs | None = None
    id: str | None = None  # the caller's own name for the request, which the answer may repeat
    alternatives: int | None = None  # scores beside each word of a text; None: no scores, also if some come
    prose: bool = False  # the strings of the answer are text, whatever numbers they hold
    behind: bytes | memoryview = b""  # what follows `body`, where it lies in the body that came: never held twice


class Score(Word, frozen=True):
    """What a detector says of the strangest row. A row is suspicious when `p_value <= alpha`."""

    p_value: float  # conformal: (1 + calibration scores at least as high) / (n + 1)
    alpha: float  # the target false-alarm rate
    statistic: float
    threshold: float
    row: int
    rows: int = 1  # that were judged

    @property
    def suspicious(self) -> bool:
        """Say whether the row is outside of what the detector learned."""
        return self.p_value <= self.alpha


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """What the rows of one request looked like: all that query sequences need, here or on another worker."""

    identities: NDArray[np.uint64]  # the same for rows that are the same number by number
    sketches: Features  # shape (rows, 64)
    suspicious: NDArray[np.bool_]
    tau: float  # sketches that are no further apart are near-duplicates

    def part(self, start: int, end: int) -> "Sightings":
        """Return some of the rows."""
        rows = slice(start, end)
        return Sightings(self.identities[rows], self.sketches[rows], self.suspicious[rows], self.tau)


class Passed(Word, frozen=True):
    """Nothing suspicious, or a shadow that only records."""

    score: Score | None = None


class Degraded(Word, frozen=True):
    """Suspicious: the answer will be coarser. `output` replaces the grant's."""

    score: Score
    output: Output
    response: Suspicion = Suspicion.LABEL  # the rung


Verdict = Passed | Degraded  # a refusal is an exception: it cannot become part of a `Cleared`


class Cleared(Word, frozen=True):
    """A request that took every step. Forwarding accepts nothing else, so a skipped step is a type error."""

    grant: Grant
    charge: Charge
    verdict: Verdict
    query: Query

    @property
    def output(self) -> Output:
        """How exactly the answer may speak."""
        return self.verdict.output if isinstance(self.verdict, Degraded) else self.grant.output


# ── 6 forward, 7 harden ─────────────────────────────────────────────────────────────────────────────────────────


class Outbound(Word, frozen=True):
    """A hygienic request to one upstream: every header in it was chosen by us."""

    method: str
    target: str  # path and query, as authorised
    headers: Headers
    body: bytes
    behind: bytes | memoryview = b""  # what follows it


class Reply(Word, frozen=True):
    """What the upstream said, whole. Headers in lower case."""

    status: int
    headers: Headers
    body: bytes
    replica: str | None = None  # the address of who answered; None: the upstream has no replicas

    def value(self, name: bytes) -> bytes | None:
        """Return the only value of a header; several differing values count as none."""
        found = {value for key, value in self.headers if key == name}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Streamed:
    """A reply whose body is still coming. `pieces` raises the port's errors, too."""

    status: int
    headers: Headers
    pieces: AsyncIterator[bytes]
    replica: str | None = None  # as in `Reply`


class Hardened(Word, frozen=True):
    """What may leave of a reply. `cost`: what it was worth in truth; None where the estimate stands."""

    headers: Headers
    body: bytes
    cost: Cost | None = None


class Answer(Word, frozen=True):
    """What leaves for the caller. Whoever takes a body that is still coming closes it, however that ends."""

    status: int
    headers: Headers
    body: bytes | AsyncGenerator[bytes, None]


# ── 8 audit ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Exchange:
    """One request and what became of it: the gateway writes each field once, the audit trail reads them.

    The only mutable word here. Nothing decides on it: it is evidence, not state.
    """

    event: str  # the id that pairs the records, and the incident id that a caller is told
    call: Call
    started: float  # UNIX seconds
    policy: str  # digest
    trace_id: str
    span_id: str
    dialect: str | None = None
    target: Target | None = None
    schemes: tuple[Scheme, ...] = (Scheme.BEARER,)  # to challenge with; the caller's own is the first
    principal: Principal | None = None
    grant: Grant | None = None
    denial: Denial | None = None
    query: Query | None = None
    charge: Charge | None = None
    exhausted: Exhausted | None = None
    given_back: bool = False  # the whole charge: nothing was sent
    settled: Cost | None = None  # what the charge became; None: the estimate stands
    score: Score | None = None
    finding: SequenceFinding | None = None
    verdict: Verdict | None = None
    reply: Reply | None = None
    forwarded: float | None = None  # UNIX seconds when the request was sent
    upstream_seconds: float | None = None
    judge_seconds: float | None = None  # what the detector took
    answer_bytes: int | None = None  # of the body that leaves; None while it streams
    decision_record: Position | None = None  # where the `decision` record stands
    decision_in_line: bool = False  # it will stand somewhere, and the request was cancelled before it was told where
    reason: Reason = Reason.ALLOWED
    detail: str = ""  # for the auditor, cleaned by the trail
    status: int = 0  # of the answer
    finished: float = 0.0
