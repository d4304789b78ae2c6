"""The request's one way. Everything that a request passes stands in `Gateway._walk`, in this order:

    1 classify · 2 authenticate · 3 authorize · 4 charge · 5 inspect · 6 forward · 7 harden · 8 audit

(0 listen is `proxy.listener`.) The numbers are those of docs/request-path.md. A step cannot be left out: `_forward`
takes a `Cleared`, which takes a `Grant`, a `Charge` and a `Verdict`, and nobody else makes one. The gateway does no
I/O of its own and reads no clock; what it needs of the world stands in `proxy.ports`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from proxy.audit.describe import completion, decision
from proxy.audit.pseudonym import Pseudonyms
from proxy.budget.fields import rate_limit_headers
from proxy.dialects import Dialect
from proxy.errors import (
    AnomalousInput,
    BudgetExhausted,
    DependencyFault,
    Forbidden,
    InternalFault,
    Malformed,
    Overloaded,
    ProxyLoop,
    RequestError,
    StepUpRequired,
    Unauthenticated,
    UnknownRoute,
    UpstreamFault,
    UpstreamRejected,
)
from proxy.exchange import (
    Action,
    Answer,
    Call,
    Charge,
    Cleared,
    Degraded,
    Denial,
    Exchange,
    Exhausted,
    Grant,
    Headers,
    Mode,
    Outbound,
    Passed,
    Principal,
    Query,
    Reply,
    Score,
    Suspicion,
    Target,
    Upstream,
    Verdict,
)
from proxy.identity.authenticator import Authenticator
from proxy.policy.decide import authorize
from proxy.policy.model import Policy
from proxy.ports import Clock, Detector, Ledger, Observer, Sources, Trail, UpstreamClient
from proxy.problem import public_answer
from proxy.reasons import Reason
from proxy.record import Position

RETRY_NEVER = 86_400  # seconds of Retry-After for a request that no window can ever cover


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A policy with everything that was loaded for it. A request sees one snapshot, whatever is reloaded meanwhile."""

    policy: Policy
    dialects: tuple[Dialect, ...]
    detectors: Mapping[str, Detector]


@dataclass(frozen=True, slots=True)
class World:
    """What the gateway needs of the world: the ports, and two facts about this process."""

    snapshot: Callable[[], Snapshot]
    authenticator: Authenticator
    sources: Sources
    ledger: Ledger
    upstreams: UpstreamClient
    trail: Trail
    observers: Sequence[Observer]
    pseudonyms: Pseudonyms
    clock: Clock
    new_id: Callable[[], str]  # 32 random hexadecimal digits: event, incident and trace id in one
    via: bytes  # how we sign the Via header, and know our own loop


class Gateway:
    """Takes a call, returns the answer that may leave, and leaves a record of it, whatever happens."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle(self, call: Call) -> Answer:
        """Answer a call. Every outcome has exactly one story in the trail; what cannot be recorded is not answered."""
        snapshot = self._world.snapshot()
        event = self._world.new_id()
        story = Exchange(event, call, self._world.clock.now(), snapshot.policy.digest, event, event[:16])
        try:
            answer = await self._walk(snapshot, call, story)
        except RequestError as error:
            answer = _problem(story, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours still answers, and still leaves its record
            answer = _problem(story, InternalFault(detail=f"{type(error).__name__} in the gateway"))
        except BaseException:  # cancelled: nobody reads the answer, the auditor still reads the record
            await self._conclude(story, _problem(story, Overloaded(Reason.SHUTTING_DOWN)))
            raise
        return await self._conclude(story, answer)

    async def _walk(self, snapshot: Snapshot, call: Call, story: Exchange) -> Answer:
        policy = snapshot.policy
        dialect, target, upstream = self._classify(snapshot, call, story)  # 1
        principal = await self._authenticate(policy, call, story)  # 2
        grant = self._authorize(policy, principal, target, upstream, story)  # 3
        query = story.query = dialect.read(target, call.headers, await call.read_body())
        charge = await self._charge(grant, query, story)  # 4
        verdict = self._inspect(snapshot, grant, query, story)  # 5
        cleared = Cleared(grant, charge, verdict, query)
        reply = await self._forward(cleared, story)  # 6
        headers, body = dialect.harden(target, query, reply, cleared.output)  # 7
        return Answer(200, (*headers, *rate_limit_headers(charge)), body)

    # ── 1 classify ──────────────────────────────────────────────────────────────────────────────────────────────

    def _classify(self, snapshot: Snapshot, call: Call, story: Exchange) -> tuple[Dialect, Target, Upstream]:
        """Name the action, the model and the upstream; what no dialect and no policy names does not exist."""
        if any(self._world.via in value for value in call.values(b"via")):
            raise ProxyLoop
        for dialect in snapshot.dialects:
            target = dialect.classify(call.method, call.path, call.query)
            if target is not None:
                break
        else:
            raise UnknownRoute
        story.dialect, story.target = dialect.name, target
        policy = snapshot.policy
        if target.model is not None:
            model = policy.models.get(target.model)
            if model is None or model.upstream.dialect != dialect.name:
                raise UnknownRoute(Reason.UNKNOWN_MODEL)
            return dialect, target, model.upstream
        served = [upstream for upstream in policy.upstreams.values() if upstream.dialect == dialect.name]
        if len(served) != 1:
            raise UnknownRoute(detail="a server-wide path, and not exactly one upstream of this dialect")
        return dialect, target, served[0]

    # ── 2 authenticate ──────────────────────────────────────────────────────────────────────────────────────────

    async def _authenticate(self, policy: Policy, call: Call, story: Exchange) -> Principal:
        """Return who is calling; an address that fails too often is no longer listened to."""
        wait = self._world.sources.blocked(call.peer.address)
        if wait is not None:
            raise BudgetExhausted(Reason.SOURCE_LIMIT, retry_after=wait)
        try:
            story.principal = await self._world.authenticator.authenticate(call, policy.issuers, policy.digest)
        except Unauthenticated:
            self._world.sources.failed(call.peer.address)
            raise
        return story.principal

    # ── 3 authorize ─────────────────────────────────────────────────────────────────────────────────────────────

    def _authorize(
        self, policy: Policy, principal: Principal, target: Target, upstream: Upstream, story: Exchange
    ) -> Grant:
        """Return the grant; no rule, no grant."""
        address = story.call.peer.address
        match authorize(policy, principal, target, upstream, address, now=story.started):
            case Grant() as grant:
                story.grant = grant
                return grant
            case Denial(reason, challenge=challenge) as denial:
                story.denial = denial
                if challenge is not None:
                    raise StepUpRequired(reason, challenge=challenge)
                raise Forbidden(reason)

    # ── 4 charge ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _charge(self, grant: Grant, query: Query, story: Exchange) -> Charge:
        """Charge before anything is forwarded, every window at once."""
        outcome = await self._world.ledger.charge(grant.principal.account, grant.budget, query.cost)
        if isinstance(outcome, Exhausted):
            story.exhausted = outcome
            if outcome.retry_after is None:
                raise BudgetExhausted(Reason.COST_ABOVE_LIMIT, retry_after=RETRY_NEVER)
            raise BudgetExhausted(retry_after=outcome.retry_after)
        story.charge = outcome
        return outcome

    # ── 5 inspect ───────────────────────────────────────────────────────────────────────────────────────────────

    def _inspect(self, snapshot: Snapshot, grant: Grant, query: Query, story: Exchange) -> Verdict:
        """Ask the detector, and do what the rule says about its answer."""
        use = grant.detector
        if use is None or use.mode is Mode.OFF or grant.target.action is not Action.INFER:
            return self._verdict(story, Passed())
        enforce = use.mode is Mode.ENFORCE
        try:
            score = story.score = _judged(snapshot.detectors[use.name], query)
        except Malformed:
            if enforce:
                raise
            return self._verdict(story, Passed())
        if not (score.suspicious and enforce):
            return self._verdict(story, Passed(score))
        if use.on_suspicion is Suspicion.REFUSE:
            raise AnomalousInput
        return self._verdict(story, Degraded(score, replace(grant.output, label_only=True)))

    @staticmethod
    def _verdict(story: Exchange, verdict: Verdict) -> Verdict:
        story.verdict = verdict
        return verdict

    # ── 6 forward ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _forward(self, cleared: Cleared, story: Exchange) -> Reply:
        """Record the decision, then send. Every header that the upstream sees was chosen here or by the dialect."""
        world, call, upstream = self._world, story.call, cleared.grant.upstream
        story.decision_record = await world.trail.append(decision(story, world.pseudonyms))
        headers: Headers = (
            *cleared.query.headers,
            (b"accept", b"application/json"),
            (b"accept-encoding", b"identity"),
            (b"via", b"1.1 " + world.via),
            (b"traceparent", f"00-{story.trace_id}-{story.span_id}-01".encode()),
        )
        target = f"{call.path}?{call.query}" if call.query else call.path
        begun = world.clock.monotonic()
        try:
            reply = story.reply = await world.upstreams.send(
                upstream, Outbound(call.method, target, headers, cleared.query.body)
            )
        finally:
            story.upstream_seconds = world.clock.monotonic() - begun
        if 200 <= reply.status < 300:
            return reply
        raise _UPSTREAM_ERRORS.get(reply.status, UpstreamFault)(_UPSTREAM_REASONS.get(reply.status))

    # ── 8 audit ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _conclude(self, story: Exchange, answer: Answer) -> Answer:
        """Record what becomes of the request before the answer leaves. No record, no answer."""
        story.status, story.finished = answer.status, self._world.clock.now()
        completed: Position | None = None
        try:
            if story.decision_record is None:
                story.decision_record = await self._world.trail.append(decision(story, self._world.pseudonyms))
            else:
                completed = await self._world.trail.append(completion(story, self._world.pseudonyms))
        except DependencyFault as error:
            answer = _problem(story, error)
            story.status = answer.status
        for observer in self._world.observers:
            observer.finished(story, story.decision_record, completed)
        return answer


def _judged(detector: Detector, query: Query) -> Score:
    if query.features is None:
        raise Malformed(Reason.SCHEMA_MISMATCH, "no single numeric row for the detector to judge")
    return detector.judge(query.features)


_UPSTREAM_ERRORS: Mapping[int, type[RequestError]] = {
    400: UpstreamRejected,
    404: UnknownRoute,
    413: UpstreamRejected,
    415: UpstreamRejected,
    422: UpstreamRejected,
    429: Overloaded,
    503: Overloaded,
}
_UPSTREAM_REASONS: Mapping[int, Reason] = {
    404: Reason.UPSTREAM_REJECTED,
    429: Reason.UPSTREAM_OVERLOADED,
    503: Reason.UPSTREAM_OVERLOADED,
}


def _problem(story: Exchange, error: RequestError) -> Answer:
    """Note the error for the auditor, and return what the caller may know of it."""
    story.reason, story.detail = error.reason, error.detail
    state = story.charge or story.exhausted
    return public_answer(error, story.event, rate_limit_headers(state) if state else ())
