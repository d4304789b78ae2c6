"""`hip explain`: each step of the one way for one request, which rule decides and why each nearer rule does not.

Exit codes: 0 allow, 1 deny, 2 wrong use. Nothing is sent, charged or recorded. A token is read, never believed: its
signature is not looked at, so this says what would be decided if it held.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from proxy.cli.directory import WRONG_USE, good_policy
from proxy.cli.incident import explain_event
from proxy.documents import suggestion
from proxy.documents.quantities import whole_seconds
from proxy.errors import Malformed, RequestError, Unauthenticated, UnknownRoute
from proxy.exchange import Action, Headers, Issuer, Principal, Target, Upstream
from proxy.identity.claims import principal as read_claims
from proxy.identity.token import check_header, peek
from proxy.identity.workload import MTLS, Workload
from proxy.listener.message import clean_target
from proxy.listener.rejection import Rejected
from proxy.policy.explanation import Asked, explain
from proxy.policy.model import Policy
from proxy.policy.route import nowhere, routes
from proxy.policy.telling import Step, Story, authenticated, classified, told
from proxy.reasons import Reason

ALLOW, DENY = 0, 1

LIFETIME = 300  # seconds that claims without times are taken to be valid
MAX_INPUT = 1 << 20  # bytes of a token, claims or a body


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, as the command line says it."""

    method: str | None
    path: str | None
    body: str | None
    host: str | None
    action: Action | None
    model: str | None
    upstream: str | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the command line says it: a token, claims, a workload, or single facts."""

    token: str | None
    claims: str | None
    workload: str | None
    facts: dict[str, Any]  # claims
    roles: tuple[str, ...]
    issuer: str | None


def explain_command(
    method: Annotated[str | None, typer.Argument(help="The request's method: GET, POST.", show_default=False)] = None,
    path: Annotated[str | None, typer.Argument(help="Its path, with the query.", show_default=False)] = None,
    policy: Annotated[Path, typer.Option("--policy", help="The policy directory.")] = Path("policies"),
    action: Annotated[Action | None, typer.Option(help="Instead of method and path.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="The model, with --action.", show_default=False)] = None,
    upstream: Annotated[str | None, typer.Option(help="With --action: the server, where no model is asked.")] = None,
    host: Annotated[str | None, typer.Option(help="Its Host, where the policy names hosts.")] = None,
    body: Annotated[str | None, typer.Option(help="The body (a file, or -), where it names the model.")] = None,
    token: Annotated[str | None, typer.Option(help="The caller's token (a file, or -).", show_default=False)] = None,
    claims: Annotated[str | None, typer.Option(help="Or claims as JSON (a file, or -).", show_default=False)] = None,
    workload: Annotated[str | None, typer.Option(help="Or a workload's name in the policy.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="Or a role; again for more.", show_default=False)] = None,
    amr: Annotated[list[str] | None, typer.Option(help="A method of authentication; again for more.")] = None,
    acr: Annotated[str | None, typer.Option(help="The authentication context.", show_default=False)] = None,
    auth_age: Annotated[str | None, typer.Option(help="How long ago the caller signed in: 10m.")] = None,
    client: Annotated[str | None, typer.Option(help="The client of the token.", show_default=False)] = None,
    issuer: Annotated[str | None, typer.Option(help="The issuer's name, where there are several.")] = None,
    address: Annotated[str, typer.Option(help="Where the connection comes from.")] = "127.0.0.1",
    at: Annotated[str | None, typer.Option(help="When: 2026-11-21T10:00:00+00:00; without it, now.")] = None,
    event: Annotated[str | None, typer.Option(help="Instead of all that: an event or incident id …")] = None,
    journal: Annotated[Path | None, typer.Option(help="… and the journal's directory.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain a decision: 0 allow, 1 deny.

    Example: hip explain POST /v2/models/iris/infer --role analyst --amr pwd --amr otp --auth-age 3h
    """
    compiled = good_policy(policy)
    if event is not None:
        story = _of_event(compiled, event, journal)
    else:
        now = _moment(at)
        facts = {
            "amr": amr or None,
            "acr": acr,
            "client_id": client,
            "auth_time": None if auth_age is None else int(now) - _age(auth_age),
        }
        said = {name: value for name, value in facts.items() if value is not None}
        caller = Caller(token, claims, workload, said, tuple(role or ()), issuer)
        request = Request(method, path, body, host, action, model, upstream)
        story = explained(compiled, request, caller, address, now)
    typer.echo(json.dumps(story.as_json(), indent=2) if as_json else story.text())
    if not as_json and (hint := _NEXT.get(story.reason)) is not None:
        typer.echo(f"next: {hint.format(policy=policy)}")
    raise typer.Exit(ALLOW if story.allowed else DENY)


_NEXT: Mapping[str, str] = {
    Reason.NO_RULE: "to let it in, give the nearest rule what it lacks, or write one, in a copy; then hip check COPY, "
    "hip diff {policy} COPY",
    Reason.DENIED_BY_RULE: "to let it in, narrow that rule, in a copy; then hip check COPY, hip diff {policy} COPY",
    Reason.MFA_MISSING: "the caller signs in again as asked; --amr, --acr and --auth-age try here what is enough",
    Reason.MFA_TOO_OLD: "the caller signs in again; --auth-age tries here what is enough",
    Reason.BUDGET_EXHAUSTED: "the caller waits; a larger budget is a change of the policy, hip replay says for whom",
}


def explained(policy: Policy, request: Request, caller: Caller, address: str, now: float) -> Story:
    """Walk the way as far as it goes."""
    steps: list[Step] = []
    try:
        dialect, target, upstream = _asked(policy, request)
        steps.append(classified(dialect, target, upstream))
        principal, believed = _who(policy, caller, now)
        steps.append(authenticated(principal, now, believed=believed))
    except RequestError as error:
        stopped = Step(len(steps) + 1, tuple(filter(None, (f"refused: {error.reason}", error.detail))))
        return Story(False, error.reason, None, policy.digest, (*steps, stopped))
    return told(policy, tuple(steps), explain(policy, Asked(principal, target, upstream, address, now)))


def _of_event(policy: Policy, event: str, journal: Path | None) -> Story:
    if journal is None or not journal.is_dir():
        _wrong("say where the journal is: --journal DIRECTORY")
    story = explain_event(policy, journal, event)
    if story is None:
        _wrong(f"{journal}: no decision has this id; `hip audit show {journal}` prints what there is")
    return story


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────


def _asked(policy: Policy, request: Request) -> tuple[str, Target, Upstream]:
    """Return dialect, target and server. Raise what the gateway would."""
    if request.action is not None and request.method is None:
        return _named(policy, request.action, request)
    if request.method is None or request.path is None or request.action is not None:
        _wrong(
            "say METHOD and PATH (`POST /v2/models/iris/infer`), or --action and --model, or --event ID and --journal"
        )
    try:
        path, query = clean_target(request.path.encode("utf-8", "surrogateescape"))
    except Rejected as rejected:
        raise Malformed(rejected.rejection.reason, rejected.detail) from rejected
    headers: Headers = () if request.host is None else ((b"host", request.host.encode("utf-8", "surrogateescape")),)
    place = routes(policy).find(headers, path)
    named = None if place is None else place.name(request.method.upper(), path, query)
    if place is None or named is None:
        raise UnknownRoute(detail=_nobody(policy, request))
    dialect, target, upstream = named
    if target.complete is not None:
        if request.body is None:
            _wrong("the body of this request names the model: --body FILE")
        target = target.complete(target, _read(request.body))
        found = place.locate(dialect, target)
        target, upstream = (target, None) if found is None else found
    if upstream is None:
        error = nowhere(target)
        raise UnknownRoute(error.reason, error.detail or f"models: {', '.join(sorted(place.models))}")
    return dialect.name, target, upstream


def _nobody(policy: Policy, request: Request) -> str:
    detail = f"no dialect of this policy ({', '.join(policy.dialects)}) names it"
    hosts = sorted({one.public_host for one in policy.upstreams.values() if one.public_host is not None})
    if not hosts:
        return detail
    return f"{detail} under {'this host' if request.host else 'no host'}; --host may be {', '.join(hosts)}"


def _named(policy: Policy, action: Action, request: Request) -> tuple[str, Target, Upstream]:
    if (request.model is None) == (request.upstream is None):
        _wrong("with --action, name either --model or --upstream")
    if request.model is not None:
        model = policy.models.get(request.model) or _unknown("model", request.model, policy.models)
        return model.upstream.dialect, Target(action, model.name), model.upstream
    server = policy.upstreams.get(str(request.upstream)) or _unknown(
        "upstream", str(request.upstream), policy.upstreams
    )
    return server.dialect, Target(action, None), server


# ── who asks ────────────────────────────────────────────────────────────────────────────────────────────────────


def _who(policy: Policy, caller: Caller, now: float) -> tuple[Principal, str]:
    """Return the caller, and why that is believed. Raise what the authenticator would."""
    facts = bool(caller.facts or caller.roles)
    given = [caller.token is not None, caller.claims is not None, caller.workload is not None, facts]
    if sum(given) != 1:
        _wrong("say who asks, in one way: --token FILE, --claims FILE, --workload NAME, or --role, --amr and so on")
    if caller.token is not None:
        return _of_token(policy, _read(caller.token), now)
    if caller.workload is not None:
        return _of_workload(policy, caller.workload), "taken as given: nobody has seen its certificate"
    claims = _json(caller.claims) if caller.claims is not None else dict(caller.facts)
    issuer = _issuer(policy, caller.issuer, claims)
    if not caller.claims:
        _put(claims, issuer.roles_claim, list(caller.roles))
    whole = {
        "iss": issuer.issuer,
        "aud": issuer.audience,
        "sub": "somebody",
        "jti": "explain",
        "iat": int(now),
        "exp": int(now) + LIFETIME,
    } | claims
    return read_claims(whole, issuer, key_id="", digest=b"", now=now), "taken as given: no token was read"


def _of_token(policy: Policy, data: bytes, now: float) -> tuple[Principal, str]:
    text = data.decode("ascii", "replace").strip().removeprefix("Bearer ").removeprefix("DPoP ")
    token = peek(text)
    issuer = policy.issuers.get(token.issuer)
    if issuer is None:
        known = ", ".join(policy.issuers)
        raise Unauthenticated(Reason.TOKEN_ISSUER, f"`{token.issuer}` is no issuer of this policy ({known})")
    check_header(token, issuer)
    principal = read_claims(token.claims, issuer, key_id=token.key_id, digest=token.digest, now=now)
    return principal, "NOT VERIFIED: the token was read, its signature, binding and revocation were not looked at"


def _of_workload(policy: Policy, name: str) -> Principal:
    listed: dict[str, Workload] = {
        one.name: one for names in (policy.workloads.by_uri, policy.workloads.by_dns) for one in names.values()
    }
    one = listed.get(name) or _unknown("workload", name, listed)
    return Principal(
        issuer=MTLS,
        subject=one.name,
        roles=one.roles,
        factors=frozenset(),
        acr=None,
        auth_time=None,
        issued_at=0,
        expires_at=0,
        token_id="",
        token_digest=b"",
        key_id="",
    )


def _issuer(policy: Policy, name: str | None, claims: dict[str, Any]) -> Issuer:
    by_name = {one.name: one for one in policy.issuers.values()}
    if name is not None:
        return by_name.get(name) or _unknown("issuer", name, by_name)
    if "iss" in claims:
        found = policy.issuers.get(str(claims["iss"]))
        if found is None:
            raise Unauthenticated(Reason.TOKEN_ISSUER, f"`{claims['iss']}` is no issuer of this policy")
        return found
    if len(by_name) != 1:
        _wrong(f"say which issuer: --issuer {' or '.join(sorted(by_name))}")
    return next(iter(by_name.values()))


def _put(claims: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *outer, last = path
    for name in outer:
        claims = claims.setdefault(name, {})
    claims[last] = value


# ── the command line's own words ────────────────────────────────────────────────────────────────────────────────


def _read(name: str) -> bytes:
    try:
        data = sys.stdin.buffer.read(MAX_INPUT + 1) if name == "-" else Path(name).read_bytes()
    except OSError as exc:
        _wrong(f"{name}: {(exc.strerror or 'cannot be read').lower()}")
    return data if len(data) <= MAX_INPUT else _wrong(f"{name}: more than {MAX_INPUT >> 20} MiB")


def _json(name: str) -> dict[str, Any]:
    try:
        claims = json.loads(_read(name))
    except ValueError as exc:
        _wrong(f"{name}: not JSON ({exc})")
    return claims if isinstance(claims, dict) else _wrong(f"{name}: claims are a JSON object")


def _age(text: str) -> int:
    try:
        return whole_seconds(text)
    except ValueError:
        _wrong(f"--auth-age {text}: a number and its unit, like 10m or 3h")


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        _wrong(f"--at {text}: a time with its zone, like 2026-11-21T10:00:00+00:00")
    return moment.timestamp()


def _unknown(kind: str, name: str, known: Any) -> NoReturn:
    _wrong(f"unknown {kind} `{name}`{suggestion(name, known)} (known: {', '.join(sorted(known))})")


def _wrong(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(WRONG_USE)
