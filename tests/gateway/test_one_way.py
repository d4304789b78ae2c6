"""The request's one way: every outcome with its public answer, its records, and what reached the upstream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import (
    BodyTimeout,
    BodyTooLarge,
    DependencyFault,
    Malformed,
    TokenMissing,
    Unauthenticated,
    UpstreamFault,
    UpstreamTimeout,
)
from proxy.exchange import Cost, Score
from proxy.reasons import Reason
from tests.gateway.simulators import (
    EVENT,
    RAW,
    House,
    SimulatedAuthenticator,
    SimulatedDetector,
    SimulatedLedger,
    SimulatedSequences,
    SimulatedSources,
    SimulatedTrail,
    SimulatedUpstream,
    header,
    infer_body,
    infer_reply,
    principal,
    said,
)

SUSPICIOUS = Score(0.001, 0.01, 99.0, 9.0, 0)


async def test_an_allowed_request_is_forwarded_hardened_and_recorded_twice():
    house = House()
    answer = await house.ask()
    assert answer.status == 200
    assert said(answer)["outputs"][0]["data"] == [0.98, 0.02, 0.0]
    assert header(answer, b"ratelimit") is not None
    assert [type(record).__name__ for record in house.trail.records] == ["Decision", "Completion"]
    assert {record.event for record in house.trail.records} == {EVENT}
    assert house.ledger.charges == [Cost(rows=1)]
    (sent,) = house.upstream.sent
    assert sent.target == "/v2/models/iris/infer"
    assert json.loads(sent.body) == json.loads(infer_body())
    names = {name for name, _ in sent.headers}
    assert names == {b"content-type", b"accept", b"accept-encoding", b"via", b"traceparent"}
    ((story, decision, completion),) = house.observer.seen
    assert (story.status, decision.seq, completion.seq) == (200, 0, 1)


async def test_nothing_of_the_callers_headers_reaches_the_upstream():
    house = House()
    secret = b"canary"
    names = [b"authorization", b"cookie", b"x-forwarded-for", b"x_forwarded_user", b"traceparent", b"baggage"]
    headers = ((b"content-type", b"application/json"), *((name, secret) for name in names))
    await house.ask(headers=headers)
    assert secret not in repr(house.upstream.sent).encode()


REFUSED = [
    # name, house, request, status, reason
    ("a path that no dialect names", {}, {"path": "/admin"}, 404, Reason.UNKNOWN_ROUTE),
    ("a closed path of the dialect", {}, {"path": "/v2/logging"}, 404, Reason.UNKNOWN_ROUTE),
    ("a model that no policy names", {}, {"path": "/v2/models/secret/infer"}, 404, Reason.UNKNOWN_MODEL),
    ("another method", {}, {"method": "DELETE"}, 405, Reason.METHOD_NOT_ALLOWED),
    ("a query that the dialect does not have", {}, {"query": "a=1"}, 400, Reason.MALFORMED_MESSAGE),
    ("our own loop", {}, {"headers": ((b"via", b"1.1 a, 1.1 hip-test"),)}, 508, Reason.PROXY_LOOP),
    ("no token", {"authenticator": SimulatedAuthenticator(TokenMissing())}, {}, 401, Reason.TOKEN_MISSING),
    (
        "a bad token",
        {"authenticator": SimulatedAuthenticator(Unauthenticated(Reason.TOKEN_SIGNATURE))},
        {},
        401,
        Reason.TOKEN_SIGNATURE,
    ),
    (
        "keys that cannot be had",
        {"authenticator": SimulatedAuthenticator(DependencyFault(Reason.KEYS_UNAVAILABLE))},
        {},
        503,
        Reason.KEYS_UNAVAILABLE,
    ),
    ("an address that failed too often", {"sources": SimulatedSources(9)}, {}, 429, Reason.SOURCE_LIMIT),
    ("no role", {"authenticator": SimulatedAuthenticator(principal())}, {}, 403, Reason.NO_RULE),
    (
        "a password only",
        {"authenticator": SimulatedAuthenticator(principal("analyst", factors=frozenset({"pwd"})))},
        {},
        401,
        Reason.MFA_MISSING,
    ),
    (
        "an old second factor",
        {"authenticator": SimulatedAuthenticator(principal("auditor", auth_time=1))},
        {},
        401,
        Reason.MFA_TOO_OLD,
    ),
    ("management", {}, {"path": "/v2/repository/index"}, 403, Reason.NO_RULE),
    ("configuration", {}, {"method": "GET", "path": "/v2/models/iris/config"}, 403, Reason.NO_RULE),
    ("not json", {}, {"body": b"{"}, 400, Reason.MALFORMED_BODY),
    ("another content type", {}, {"headers": ((b"content-type", b"text/csv"),)}, 415, Reason.UNSUPPORTED_MEDIA_TYPE),
    ("a body above the limit", {}, {"body": BodyTooLarge()}, 413, Reason.BODY_TOO_LARGE),
    ("a body that never ends", {}, {"body": BodyTimeout()}, 408, Reason.BODY_TIMEOUT),
    ("a client that leaves", {}, {"body": Malformed(Reason.CLIENT_GONE)}, 400, Reason.CLIENT_GONE),
    ("a spent budget", {"ledger": SimulatedLedger(0)}, {}, 429, Reason.BUDGET_EXHAUSTED),
    (
        "more than a whole window",
        {},
        {"body": infer_body(shape=[101, 4], data=[0] * 404)},
        429,
        Reason.COST_ABOVE_LIMIT,
    ),
    (
        "a ledger that is away",
        {"ledger": SimulatedLedger(fault=DependencyFault(Reason.LEDGER_UNAVAILABLE))},
        {},
        503,
        Reason.LEDGER_UNAVAILABLE,
    ),
    (
        "a suspicious input that the rule refuses",
        {"response": "refuse", "detector": SimulatedDetector(SUSPICIOUS)},
        {},
        403,
        Reason.ANOMALOUS_INPUT,
    ),
    (
        "an input of another shape",
        {"detector": SimulatedDetector(Malformed(Reason.SCHEMA_MISMATCH))},
        {},
        400,
        Reason.SCHEMA_MISMATCH,
    ),
    (
        "strings where the detector needs numbers",
        {},
        {"body": infer_body(datatype="BYTES", data=["a", "b", "c", "d"])},
        400,
        Reason.SCHEMA_MISMATCH,
    ),
    (
        "a detector that fails",
        {"detector": SimulatedDetector(DependencyFault(Reason.DETECTOR_FAILED))},
        {},
        503,
        Reason.DETECTOR_FAILED,
    ),
    (
        "sequences in a store that is away",
        {
            "more": ", sequences: enforce",
            "sequences": SimulatedSequences(DependencyFault(Reason.SEQUENCES_UNAVAILABLE)),
        },
        {},
        503,
        Reason.SEQUENCES_UNAVAILABLE,
    ),
    ("a journal that is full", {"trail": SimulatedTrail(0)}, {}, 503, None),
]


@pytest.mark.parametrize(
    ("house", "request_", "status", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
async def test_a_refused_request_has_one_record_and_never_reaches_the_upstream(house, request_, status, reason):
    home = House(**house)
    answer = await home.ask(**request_)
    assert answer.status == status
    assert said(answer) == {
        "type": "about:blank",
        "title": said(answer)["title"],
        "status": status,
        "instance": f"urn:hip:incident:{EVENT}",
    }
    assert home.upstream.sent == []
    assert len(home.observer.seen) == 1
    if reason is None:
        assert home.trail.records == []
        return
    (record,) = home.trail.records
    assert (record.reason, record.effect, record.status) == (reason, "deny", status)


def upstream(reply):
    return {"upstream": SimulatedUpstream(reply)}


TRACEBACK = b'Traceback (most recent call last):\n  File "/opt/conda/lib/python3.11/site-packages/x.py", line 7'
FAILED = [
    ("down", UpstreamFault(Reason.UPSTREAM_UNREACHABLE), 502, Reason.UPSTREAM_UNREACHABLE),
    ("slow", UpstreamTimeout(), 504, Reason.UPSTREAM_TIMEOUT),
    ("too large", UpstreamFault(Reason.UPSTREAM_TOO_LARGE), 502, Reason.UPSTREAM_TOO_LARGE),
    ("500 with a traceback", infer_reply(500, TRACEBACK), 502, Reason.UPSTREAM_ERROR),
    ("400 with a traceback", infer_reply(400, TRACEBACK), 400, Reason.UPSTREAM_REJECTED),
    ("404", infer_reply(404, TRACEBACK), 404, Reason.UPSTREAM_REJECTED),
    ("422", infer_reply(422, TRACEBACK), 400, Reason.UPSTREAM_REJECTED),
    ("429", infer_reply(429, TRACEBACK), 503, Reason.UPSTREAM_OVERLOADED),
    ("503", infer_reply(503, TRACEBACK), 503, Reason.UPSTREAM_OVERLOADED),
    ("302", infer_reply(302, b""), 502, Reason.UPSTREAM_ERROR),
    ("304", infer_reply(304, b""), 502, Reason.UPSTREAM_ERROR),
    ("not json", infer_reply(200, TRACEBACK), 502, Reason.UPSTREAM_UNREADABLE),
    (
        "another content type",
        infer_reply(200, headers=((b"content-type", b"text/plain"),)),
        502,
        Reason.UPSTREAM_UNREADABLE,
    ),
    ("a bug of ours", ZeroDivisionError("secret"), 500, Reason.INTERNAL),
]


@pytest.mark.parametrize(("reply", "status", "reason"), [c[1:] for c in FAILED], ids=[c[0] for c in FAILED])
async def test_a_failing_upstream_leaks_nothing_and_leaves_its_pair_of_records(reply, status, reason):
    home = House(**upstream(reply))
    answer = await home.ask()
    assert answer.status == status
    assert not any(word in answer.body for word in (b"Traceback", b"site-packages", b"secret", b"ZeroDivision"))
    decision, completion = home.trail.records
    assert (decision.effect, decision.reason) == ("allow", Reason.ALLOWED)
    assert (completion.reason, completion.status) == (reason, status)
    assert home.ledger.charges == [Cost(rows=1)], "a charge is not given back"


async def test_suspicion_makes_the_answer_coarser_and_the_shape_stays():
    home = House(detector=SimulatedDetector(SUSPICIOUS))
    answer = await home.ask()
    assert said(answer)["outputs"][0]["data"] == [1.0, 0.0, 0.0]
    assert home.trail.records[0].judged.verdict == "degrade"
    assert home.trail.records[1].applied.label_only is True


@pytest.mark.parametrize("score", [SUSPICIOUS, Malformed(Reason.SCHEMA_MISMATCH)])
async def test_a_shadow_detector_lets_pass(score):
    home = House(mode="shadow", detector=SimulatedDetector(score))
    answer = await home.ask()
    assert said(answer)["outputs"][0]["data"] == [0.98, 0.02, 0.0]
    if score is SUSPICIOUS:
        assert home.trail.records[0].judged.verdict == "shadow_degrade"


async def test_a_detector_that_is_off_is_not_asked():
    home = House(mode="off", detector=SimulatedDetector(DependencyFault(Reason.DETECTOR_FAILED)))
    assert (await home.ask()).status == 200


async def test_failed_authentication_counts_against_the_source():
    home = House(authenticator=SimulatedAuthenticator(TokenMissing()))
    await home.ask()
    assert home.sources.failures == ["192.0.2.7"]
    fine = House()
    await fine.ask()
    assert fine.sources.failures == []


async def test_no_completion_no_answer():
    """The upstream has answered, the journal fails: the caller gets nothing of the answer."""
    home = House(trail=SimulatedTrail(1))
    answer = await home.ask()
    assert answer.status == 503
    assert b"0.98" not in answer.body
    assert len(home.upstream.sent) == 1


async def test_challenges_say_what_is_missing():
    no_token = await House(authenticator=SimulatedAuthenticator(TokenMissing())).ask()
    assert header(no_token, b"www-authenticate") == b'Bearer realm="inference"'
    old = await House(authenticator=SimulatedAuthenticator(principal("auditor", auth_time=1))).ask()
    challenge = header(old, b"www-authenticate")
    assert b'error="insufficient_user_authentication"' in challenge
    assert b'max_age="3600"' in challenge
    spent = await House(ledger=SimulatedLedger(0)).ask()
    assert header(spent, b"retry-after") == b"7"


async def test_a_cancelled_request_leaves_its_record():
    import asyncio

    home = House()
    home.upstream.reply = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await home.ask()
    assert home.reasons == [Reason.ALLOWED, Reason.SHUTTING_DOWN]


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "TRACE"]),
    path=st.sampled_from(["/", "/v2", "/v2/models/iris/infer", "/v2/models/iris", "/v2/repository/index"])
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map(lambda text: "/" + text),
    body=st.binary(max_size=200) | st.just(infer_body()),
    reply=st.builds(infer_reply, st.integers(100, 599), st.binary(max_size=200) | st.none()),
)
async def test_whatever_is_asked_has_a_public_answer_and_its_records(method, path, body, reply):
    """Invariant: an answer from the table or a hardened one; one record, or a pair when something was forwarded."""
    home = House(**upstream(reply))
    answer = await home.ask(method, path, body=body)
    assert len(home.trail.records) == 1 + len(home.upstream.sent)
    for score in RAW:
        assert repr(score).encode() not in answer.body
    assert answer.status == 200 or said(answer)["instance"] == f"urn:hip:incident:{EVENT}"
