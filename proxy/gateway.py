"""The request's one way. Everything that a request passes stands in `Gateway._walk`, in this order:

    1 classify · 2 authenticate · 3 authorize · 4 charge · 5 inspect · 6 forward · 7 harden · 8 audit

(0 listen is `proxy.listener`.) The numbers are those of docs/request-path.md. A step cannot be left out: `_forward`
takes a `Cleared`, which takes a `Grant`, a `Charge` and a `Verdict`, and nobody else makes one. The gateway does no
I/O of its own and reads no clock; what it needs of the world stands in `proxy.ports`.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

from msgspec.structs import replace

from proxy.audit.describe import completion, decision
from proxy.audit.pseudonym import Pseudonyms
from proxy.audit.trace import client_span_id
from proxy.budget.fields import rate_limit_headers
from proxy.detection.golden import Golden
from proxy.detection.ladder import DELAY_SECONDS, due
from proxy.dialects import Dialect, StreamHardener
from proxy.dialects.coding import plain
from proxy.errors import (
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
    Cost,
    Degraded,
    Denial,
    DetectorUse,
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
    Streamed,
    Suspicion,
    Target,
    Upstream,
    Verdict,
)
from proxy.identity.authenticator import Authenticator
from proxy.policy.decide import authorize
from proxy.policy.model import Policy
from proxy.policy.route import Place, Routes, nowhere
from proxy.ports import Clock, Detector, Ledger, Observer, Places, Sequences, Sources, Trail, UpstreamClient
from proxy.problem import public_answer
from proxy.reasons import Reason
from proxy.record import Position

RETRY_NEVER = 86_400  # seconds of Retry-After for a request that no window can ever cover


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A policy with everything that was loaded for it. A request sees one snapshot, whatever is reloaded meanwhile."""

    policy: Policy
    routes: Routes
    detectors: Mapping[str, Detector]
    golden: Mapping[str, Golden] = field(default_factory=dict)  # the baselines of the probes, by their digests


@dataclass(frozen=True, slots=True)
class World:
    """What the gateway needs of the world: the ports, and two facts about this process."""

    snapshot: Callable[[], Snapshot]
    authenticator: Authenticator
    sources: Sources
    ledger: Ledger
    upstreams: UpstreamClient
    sequences: Sequences
    trail: Trail
    observers: Sequence[Observer]
    pseudonyms: Pseudonyms
    clock: Clock
    new_id: Callable[[], str]  # 32 random hexadecimal digits: event, incident and trace id in one
    via: bytes  # how we sign the Via header, and know our own loop
    quarantined: Collection[str] = frozenset()  # the models that are closed now
    places: Places | None = None  # None: a principal may have as many requests under way as its address


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
            story.schemes = self._world.authenticator.schemes(call)
            answer = _problem(story, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours still answers, and still leaves its record
            answer = _problem(story, InternalFault(detail=f"{type(error).__name__} in the gateway"))
        except BaseException:  # cancelled: nobody reads the answer, the auditor still reads the record
            await self._conclude(story, _problem(story, Overloaded(Reason.SHUTTING_DOWN)))
            raise
        if not isinstance(answer.body, bytes):
            return answer  # its story ends when it does
        story.answer_bytes = len(answer.body)
        return await self._conclude(story, answer)

    async def _walk(self, snapshot: Snapshot, call: Call, story: Exchange) -> Answer:
        policy = snapshot.policy
        place, dialect, target, upstream = self._classify(snapshot, call, story)  # 1
        principal = await self._authenticate(policy, call, story)  # 2
        body = await call.read_body() if target.complete else None  # names the model; an upload before 2 is not read
        if upstream is None:
            target, upstream = self._locate(place, dialect, target, body, story)
        grant = self._authorize(policy, principal, target, upstream, story)  # 3
        target, body = grant.target, await call.read_body() if body is None else body
        query = story.query = dialect.read(target, call.headers, body, grant.parameters)
        del body  # `query` has what is forwarded: two of a large one would wait for the answer
        charge = await self._charge(grant, query, story)  # 4
        verdict = await self._inspect(snapshot, grant, query, story)  # 5
        cleared = Cleared(grant, charge, verdict, query)
        if target.action is _STREAM:
            return await self._stream(dialect, cleared, story)  # 6, then 7 and 8 piece by piece
        reply = await self._forward(cleared, story)  # 6
        shown = dialect.harden(target, query, plain(reply, upstream.max_reply_bytes), cleared.output)  # 7
        await self._settle(charge, shown.cost, story)
        return Answer(200, (*shown.headers, *rate_limit_headers(charge)), shown.body)

    # ── 1 classify ──────────────────────────────────────────────────────────────────────────────────────────────

    def _classify(
        self, snapshot: Snapshot, call: Call, story: Exchange
    ) -> tuple[Place, Dialect, Target, Upstream | None]:
        """Name the action and the model, as far as host and path say them; what nobody names does not exist."""
        for value in call.values(b"via"):
            if self._world.via in value:
                raise ProxyLoop
        place = snapshot.routes.find(call.headers, call.path)
        named = None if place is None else place.name(call.method, call.path, call.query)
        if place is None or named is None:
            raise UnknownRoute
        dialect, target, upstream = named
        story.dialect, story.target = dialect.name, target
        if upstream is None and target.complete is None:
            raise nowhere(target)
        return place, dialect, target, upstream

    @staticmethod
    def _locate(
        place: Place, dialect: Dialect, target: Target, body: bytes | None, story: Exchange
    ) -> tuple[Target, Upstream]:
        """Complete the target with what its body says, and name the upstream."""
        if target.complete is not None and body is not None:
            target = story.target = target.complete(target, body)
        found = place.locate(dialect, target)
        if found is None:
            raise nowhere(target)
        story.target = found[0]
        return found

    # ── 2 authenticate ──────────────────────────────────────────────────────────────────────────────────────────

    async def _authenticate(self, policy: Policy, call: Call, story: Exchange) -> Principal:
        """Return who is calling; an address that fails too often is no longer listened to."""
        authenticator = self._world.authenticator
        wait = self._world.sources.blocked(call.peer.address)
        if wait is not None:
            raise BudgetExhausted(Reason.SOURCE_LIMIT, retry_after=wait)
        try:
            story.principal = await authenticator.authenticate(call, policy.issuers, policy.digest, policy.workloads)
        except Unauthenticated:
            self._world.sources.failed(call.peer.address)
            raise
        places = self._world.places
        if places is not None and not places.take(story.event, story.principal.account):
            raise Overloaded(detail="requests of this principal under way above the limit")
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
                if target.model in self._world.quarantined and target.action in _JUDGED:
                    raise DependencyFault(Reason.MODEL_QUARANTINED)
                return grant
            case Denial(reason, challenge=challenge) as denial:
                story.denial = denial
                if challenge is not None:
                    raise StepUpRequired(reason, challenge=challenge)
                raise Forbidden(reason, scope=denial.scope)

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

    async def _settle(self, charge: Charge, actual: Cost | None, story: Exchange) -> None:
        """Correct an estimate after the fact. A ledger that is away keeps the estimate: nothing becomes cheaper."""
        if actual is not None and actual != charge.cost:
            with suppress(DependencyFault):
                await self._world.ledger.settle(charge, actual)
                story.settled = actual

    async def _give_back(self, charge: Charge, story: Exchange) -> None:
        """Undo a charge for which nothing was sent: the model was not asked, and who waits for it pays nothing."""
        with suppress(DependencyFault):
            await self._world.ledger.settle(charge, _NOTHING)
            story.given_back = True

    # ── 5 inspect ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _inspect(self, snapshot: Snapshot, grant: Grant, query: Query, story: Exchange) -> Verdict:
        """Ask the detector and the query sequences, and climb the rule's ladder as high as they say."""
        use, world, score = grant.detector, self._world, None
        verdict: Verdict = Passed()
        if use is not None and use.mode is not _OFF and grant.target.action in _JUDGED:
            begun = world.clock.monotonic()
            try:
                score = await self._examine(snapshot.detectors[use.name], use, grant, query, story)
            except Malformed:
                if use.enforced:
                    raise
            story.judge_seconds = world.clock.monotonic() - begun
        if use is not None and score is not None:
            verdict = Passed(score)
            if (rung := due(use, score, story.finding)) is not None:
                if (refusal := rung.refusal(grant.principal, world.clock.now())) is not None:
                    raise refusal
                if rung.rung is Suspicion.DELAY:
                    await world.clock.sleep(DELAY_SECONDS)
                verdict = Degraded(score, replace(grant.output, label_only=True), rung.rung)
        story.verdict = verdict
        return verdict

    async def _examine(
        self, detector: Detector, use: DetectorUse, grant: Grant, query: Query, story: Exchange
    ) -> Score:
        """Note what the detector says of the rows, and what they show together with those before."""
        if query.features is None:
            raise Malformed(Reason.SCHEMA_MISMATCH, "no single numeric row for the detector to judge")
        if use.sequences is None:
            story.score = await detector.judge(query.features)
            return story.score
        story.score, sightings = await detector.examine(query.features)
        account, now = grant.principal.account, self._world.clock.now()
        story.finding = await self._world.sequences.observe(account, use.digest, sightings, use.sequences, now)
        return story.score

    # ── 6 forward ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _forward(self, cleared: Cleared, story: Exchange) -> Reply:
        """Record the decision, then send."""
        outbound = await self._outbound(cleared, story, b"application/json")
        begun = self._world.clock.monotonic()
        try:
            story.reply = await self._world.upstreams.send(cleared.grant.upstream, outbound)
        except RequestError as error:
            if error.unsent:
                await self._give_back(cleared.charge, story)
            raise
        finally:
            story.upstream_seconds = self._world.clock.monotonic() - begun
        return _accepted(story.reply)

    async def _outbound(self, cleared: Cleared, story: Exchange, accept: bytes) -> Outbound:
        """Record the decision, and return what may be sent: every header was chosen here or by the dialect."""
        world, call = self._world, story.call
        try:
            story.decision_record = await world.trail.append(decision(story, world.pseudonyms))
        except Exception:  # refused: nothing is in line
            raise
        except BaseException:  # cancelled: the record is in line all the same, and must not come twice
            story.decision_in_line = True
            raise
        headers: Headers = (
            *cleared.query.headers,
            (b"accept", accept),
            (b"accept-encoding", b"identity"),
            (b"via", b"1.1 " + world.via),
            (b"traceparent", f"00-{story.trace_id}-{client_span_id(story.trace_id)}-01".encode()),
        )
        path = call.path[len(cleared.grant.upstream.prefix) :]
        target = f"{path}?{call.query}" if call.query else path
        story.forwarded = world.clock.now()
        return Outbound(call.method, target, headers, cleared.query.body, cleared.query.behind)

    # ── 6 to 8 of a stream ──────────────────────────────────────────────────────────────────────────────────────

    async def _stream(self, dialect: Dialect, cleared: Cleared, story: Exchange) -> Answer:
        """Return as soon as the upstream has begun; what fails until then has an answer of its own."""
        grant = cleared.grant
        outbound = await self._outbound(cleared, story, b"text/event-stream")
        begun = self._world.clock.monotonic()
        async with AsyncExitStack() as stack:
            try:
                streamed = await stack.enter_async_context(self._world.upstreams.stream(grant.upstream, outbound))
            except RequestError as error:
                if error.unsent:
                    await self._give_back(cleared.charge, story)
                raise
            finally:
                story.upstream_seconds = self._world.clock.monotonic() - begun
            fine = 200 <= streamed.status < 300
            words = b"" if fine else b"".join([piece async for piece in streamed.pieces])
            story.reply = Reply(streamed.status, streamed.headers, words, streamed.replica)
            hardener = dialect.stream(grant.target, cleared.query, _accepted(story.reply), cleared.output)
            opened = stack.pop_all()
        flow = self._flow(streamed, hardener, cleared.charge, story, opened)
        await anext(flow)  # begun: whoever closes it reaches its record
        return Answer(200, (*hardener.headers, *rate_limit_headers(cleared.charge)), flow)

    def _believe(self, story: Exchange) -> int:
        """Return which revocations were looked at. Raise Unauthenticated: the caller was revoked after step 2."""
        authenticator = self._world.authenticator
        if story.principal is not None:
            authenticator.believe(story.principal, story.call.peer.certificate)
        return authenticator.revocations.generation

    async def _flow(
        self, streamed: Streamed, hardener: StreamHardener, charge: Charge, story: Exchange, opened: AsyncExitStack
    ) -> AsyncGenerator[bytes, None]:
        """Hand out what may leave, piece by piece. It ends well only when its completion is written."""
        story.answer_bytes = 0
        lists, asked = self._world.authenticator.revocations, -1
        try:
            async with opened:
                yield b""
                async for piece in streamed.pieces:
                    if lists.generation != asked:
                        asked = self._believe(story)
                    if shown := hardener.feed(piece):
                        story.answer_bytes += len(shown)
                        yield shown
                if lists.generation != asked:
                    self._believe(story)
                if shown := hardener.end():
                    story.answer_bytes += len(shown)
                    yield shown
        except RequestError as error:
            story.reason, story.detail = error.reason, error.detail
            raise
        except Exception as exc:
            story.reason, story.detail = Reason.INTERNAL, f"{type(exc).__name__} in a stream"
            raise InternalFault(detail=story.detail) from exc
        except BaseException as exc:  # closed or cancelled: nobody reads it any more
            story.reason = Reason.SHUTTING_DOWN if exc.args == (Reason.SHUTTING_DOWN,) else Reason.CLIENT_GONE
            raise
        finally:
            try:
                await self._settle(charge, hardener.cost, story)
            finally:  # also where that is cancelled
                concluded = await self._conclude(story, Answer(200, (), b""))
        if concluded.status != 200:
            raise DependencyFault(Reason.AUDIT_UNWRITABLE)

    # ── 8 audit ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _conclude(self, story: Exchange, answer: Answer) -> Answer:
        """Record what becomes of the request before the answer leaves. No record, no answer."""
        story.status, story.finished = answer.status, self._world.clock.now()
        completed: Position | None = None
        try:
            if story.decision_record is None and not story.decision_in_line:
                story.decision_record = await self._world.trail.append(decision(story, self._world.pseudonyms))
            else:
                completed = await self._world.trail.append(completion(story, self._world.pseudonyms))
        except DependencyFault as error:
            answer = _problem(story, error)
            story.status = answer.status
        finally:
            if self._world.places is not None:
                self._world.places.leave(story.event)
        for observer in self._world.observers:
            observer.finished(story, story.decision_record, completed)
        return answer


def _accepted(reply: Reply) -> Reply:
    if 200 <= reply.status < 300:
        return reply
    raise _UPSTREAM_ERRORS.get(reply.status, UpstreamFault)(_UPSTREAM_REASONS.get(reply.status))


_NOTHING = Cost(requests=0)  # what a request costs that was never sent
_STREAM, _OFF = Action.STREAM, Mode.OFF  # looking a member up costs as much as a call
_JUDGED = frozenset({Action.INFER, Action.STREAM})  # the actions whose input a detector sees

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
    return public_answer(error, story.event, rate_limit_headers(state) if state else (), story.schemes)
