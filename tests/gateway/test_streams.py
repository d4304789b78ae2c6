"""Streamed answers: the same way, then piece by piece; the record at the end, however that comes."""

import asyncio
import json

import pytest

from proxy.edge import SLICE, Edge
from proxy.errors import Unauthenticated, UpstreamFault, UpstreamTimeout
from proxy.exchange import Cost, Peer, Score
from proxy.reasons import Reason
from tests.gateway.simulators import (
    RAW,
    House,
    SimulatedDetector,
    SimulatedTrail,
    SimulatedUpstream,
    call,
    infer_body,
    infer_reply,
    principal,
    said,
)

PATH = "/v2/models/iris/infer_stream"
EVENTS = ((b"content-type", b"text/event-stream"),)
TENSOR = {"name": "p", "shape": [1, 3], "datatype": "FP64", "data": RAW}
EVENT = b"data: " + json.dumps({"model_name": "iris", "outputs": [TENSOR]}).encode() + b"\n\n"
HARDENED = [0.98, 0.02, 0.0]


def house(*pieces, reply=None, **changes):
    upstream = SimulatedUpstream(infer_reply(200, b"", EVENTS) if reply is None else reply, pieces=list(pieces))
    home = House(upstream=upstream, **changes)
    home.authenticator.who = principal("analyst", "streamer")
    return home


async def taken(answer):
    return [piece async for piece in answer.body]


def scores(piece):
    return json.loads(piece.removeprefix(b"data: "))["outputs"][0]["data"]


async def test_events_leave_one_by_one_and_the_completion_comes_last():
    more = asyncio.Event()
    home = house(EVENT, more, EVENT)
    answer = await home.gateway.handle(call(path=PATH))
    assert answer.status == 200
    assert scores(await anext(answer.body)) == HARDENED
    assert home.reasons == [Reason.ALLOWED], "the completion is not written while it flows"
    assert home.upstream.taken == 1
    more.set()
    (last,) = await taken(answer)
    assert scores(last) == HARDENED
    decision, completion = home.trail.records
    assert (decision.action, completion.reason, completion.status) == ("stream", Reason.ALLOWED, 200)
    assert completion.answer_bytes == 2 * len(last)
    assert home.upstream.open == 0
    assert len(home.observer.seen) == 1
    assert dict(home.upstream.sent[0].headers)[b"accept"] == b"text/event-stream"


async def test_nothing_is_taken_before_it_is_asked_for():
    """Back-pressure: the upstream is read at the pace of the reader."""
    home = house(*[EVENT] * 50)
    answer = await home.gateway.handle(call(path=PATH))
    assert home.upstream.taken == 0
    await anext(answer.body)
    assert home.upstream.taken == 1
    await answer.body.aclose()
    assert home.upstream.taken == 1


async def test_whoever_leaves_ends_the_upstream_and_leaves_a_record():
    home = house(EVENT, asyncio.Event())
    answer = await home.gateway.handle(call(path=PATH))
    first = await anext(answer.body)
    await answer.body.aclose()
    assert home.upstream.open == 0
    assert home.reasons == [Reason.ALLOWED, Reason.CLIENT_GONE]
    assert home.trail.records[1].answer_bytes == len(first)


async def test_a_stream_that_nobody_began_to_read_leaves_its_record_too():
    home = house(EVENT)
    answer = await home.gateway.handle(call(path=PATH))
    await answer.body.aclose()
    assert home.upstream.open == 0
    assert home.reasons == [Reason.ALLOWED, Reason.CLIENT_GONE]


async def test_a_cancelled_reader_leaves_its_record():
    home = house(asyncio.Event())
    answer = await home.gateway.handle(call(path=PATH))
    reading = asyncio.ensure_future(anext(answer.body))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert home.upstream.open == 0
    assert home.reasons == [Reason.ALLOWED, Reason.CLIENT_GONE]


CUT = [
    ("an event that cannot be read", b"data: {}\n\n", Reason.UPSTREAM_UNREADABLE),
    ("no event at all", b"Traceback at model.py\n\n", Reason.UPSTREAM_UNREADABLE),
    ("a torn connection", UpstreamFault(Reason.UPSTREAM_PROTOCOL), Reason.UPSTREAM_PROTOCOL),
    ("a stall", UpstreamTimeout(), Reason.UPSTREAM_TIMEOUT),
    ("a bug of ours", ZeroDivisionError(), Reason.INTERNAL),
]


@pytest.mark.parametrize(("piece", "reason"), [case[1:] for case in CUT], ids=[case[0] for case in CUT])
async def test_a_stream_that_fails_is_cut_and_says_so(piece, reason):
    home = house(EVENT, piece)
    answer = await home.gateway.handle(call(path=PATH))
    assert scores(await anext(answer.body)) == HARDENED
    with pytest.raises(Exception, match=reason):
        await anext(answer.body)
    assert home.reasons == [Reason.ALLOWED, reason]
    assert home.upstream.open == 0


async def test_a_stream_ends_when_its_caller_is_revoked():
    """Before the next event leaves; and as long as the list is the same one, nobody looks into it."""
    home = house(*[EVENT] * 9)
    revocations = home.authenticator.revocations
    answer = await home.gateway.handle(call(path=PATH))
    for _ in range(3):
        assert scores(await anext(answer.body)) == HARDENED
    assert revocations.looks == 1, "the first event asks: it may have been long in coming"
    revocations.generation += 1  # somebody else
    assert scores(await anext(answer.body)) == HARDENED
    assert revocations.looks == 2
    revocations.generation, revocations.reason = 2, Reason.TOKEN_REVOKED
    with pytest.raises(Unauthenticated):
        await anext(answer.body)
    assert home.reasons == [Reason.ALLOWED, Reason.TOKEN_REVOKED]
    assert home.upstream.open == 0
    assert home.ledger.left == 2, "what has flowed is paid for"


async def test_an_event_that_only_the_end_completes_is_not_for_the_revoked():
    ending = asyncio.Event()
    home = house(EVENT, EVENT.rstrip(b"\n"), ending)
    answer = await home.gateway.handle(call(path=PATH))
    assert scores(await anext(answer.body)) == HARDENED
    last = asyncio.ensure_future(anext(answer.body))
    while home.upstream.taken < 2:
        await asyncio.sleep(0)
    home.authenticator.revocations.generation, home.authenticator.revocations.reason = 1, Reason.TOKEN_REVOKED
    ending.set()
    with pytest.raises(Unauthenticated):
        await last
    assert home.reasons == [Reason.ALLOWED, Reason.TOKEN_REVOKED]


async def test_who_is_revoked_before_the_first_event_sees_none():
    home = house(EVENT)
    answer = await home.gateway.handle(call(path=PATH))
    home.authenticator.revocations.reason = Reason.CERTIFICATE_REVOKED
    with pytest.raises(Unauthenticated):
        await anext(answer.body)
    assert home.reasons == [Reason.ALLOWED, Reason.CERTIFICATE_REVOKED]


BEFORE = [
    ("down", UpstreamFault(Reason.UPSTREAM_UNREACHABLE), 502, Reason.UPSTREAM_UNREACHABLE),
    ("503", infer_reply(503, b"busy", EVENTS), 503, Reason.UPSTREAM_OVERLOADED),
    ("400 with a traceback", infer_reply(400, b"File model.py, line 7"), 400, Reason.UPSTREAM_REJECTED),
    ("no event stream", infer_reply(200, b"{}"), 502, Reason.UPSTREAM_UNREADABLE),
    ("coded", infer_reply(200, b"", (*EVENTS, (b"content-encoding", b"br"))), 502, Reason.UPSTREAM_UNREADABLE),
]


@pytest.mark.parametrize(("reply", "status", "reason"), [case[1:] for case in BEFORE], ids=[case[0] for case in BEFORE])
async def test_what_fails_before_the_first_byte_has_an_answer_of_its_own(reply, status, reason):
    home = house(reply=reply)
    answer = await home.ask(path=PATH)
    assert (answer.status, said(answer)["status"]) == (status, status)
    assert home.reasons == [Reason.ALLOWED, reason]
    assert home.upstream.open == 0


async def test_the_detector_sees_what_is_asked_of_a_stream():
    home = house(EVENT, detector=SimulatedDetector(Score(0.001, 0.01, 99.0, 9.0, 0)))
    answer = await home.gateway.handle(call(path=PATH))
    (piece,) = await taken(answer)
    assert scores(piece) == [1.0, 0.0, 0.0]


async def test_no_completion_no_end():
    """The journal fails while the events flow: the stream is cut, not ended."""
    home = house(EVENT, trail=SimulatedTrail(1))
    answer = await home.gateway.handle(call(path=PATH))
    await anext(answer.body)
    with pytest.raises(Exception, match=Reason.AUDIT_UNWRITABLE):
        await anext(answer.body)


async def test_text_that_flowed_is_settled_also_when_the_caller_hangs_up():
    text = b'data: {"text_output": "one two three"}\n\n'
    home = house(text, asyncio.Event(), mode="off")
    body = json.dumps({"text_input": "what"}).encode()
    answer = await home.gateway.handle(call(path="/v2/models/iris/generate_stream", body=body))
    await anext(answer.body)
    await answer.body.aclose()
    assert home.ledger.charges == [Cost(rows=1, tokens=1)]
    (settled,) = home.ledger.settled
    assert settled.tokens > 5
    assert home.trail.records[1].settled_tokens == settled.tokens


async def test_a_settlement_that_is_cancelled_costs_no_record():
    home = house(b'data: {"text_output": "one two three"}\n\n', asyncio.Event(), mode="off")
    home.ledger.settling = asyncio.CancelledError()
    body = json.dumps({"text_input": "what"}).encode()
    answer = await home.gateway.handle(call(path="/v2/models/iris/generate_stream", body=body))
    await anext(answer.body)
    with pytest.raises(asyncio.CancelledError):
        await answer.body.aclose()
    assert home.reasons == [Reason.ALLOWED, Reason.CLIENT_GONE]


# ── the edge ────────────────────────────────────────────────────────────────────────────────────────────────────


class Connection:
    """An ASGI server with one request: `gone` is the client's hang-up."""

    def __init__(self, path=PATH):
        self.path = path
        self.gone = asyncio.Event()
        self.sent = []
        self.first = asyncio.Event()
        self._body = [{"type": "http.request", "body": infer_body(), "more_body": False}]

    async def receive(self):
        if self._body:
            return self._body.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        if message.get("body"):
            self.first.set()

    def serve(self, home):
        scope = {
            "type": "http",
            "method": "POST",
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "state": {"peer": Peer("192.0.2.7")},
        }
        return asyncio.ensure_future(Edge(home.gateway, 1 << 20)(scope, self.receive, self.send))


async def test_a_stream_over_the_edge_ends_with_its_last_chunk():
    home, connection = house(EVENT, EVENT), Connection()
    await connection.serve(home)
    start, *pieces, last = connection.sent
    assert start["status"] == 200
    assert b"content-length" not in dict(start["headers"])
    assert [scores(piece["body"]) for piece in pieces] == [HARDENED] * 2
    assert last == {"type": "http.response.body", "body": b""}


async def test_a_hang_up_ends_a_silent_upstream():
    """The upstream says nothing, so only the connection can tell that nobody listens."""
    home, connection = house(EVENT, asyncio.Event()), Connection()
    serving = connection.serve(home)
    await connection.first.wait()
    connection.gone.set()
    await serving
    assert home.upstream.open == 0
    assert home.reasons == [Reason.ALLOWED, Reason.CLIENT_GONE]


async def test_a_cut_stream_has_no_last_chunk():
    home, connection = house(EVENT, b"data: {}\n\n"), Connection()
    await connection.serve(home)
    assert connection.sent[-1]["more_body"] is True
    assert home.reasons == [Reason.ALLOWED, Reason.UPSTREAM_UNREADABLE]


@pytest.mark.parametrize("pieces", [(EVENT,), (EVENT, b"data: {}\n\n")], ids=["whole", "cut"])
async def test_nothing_of_a_stream_is_left_running(pieces):
    """Nor is the connection asked once more whether its client has gone."""
    others = asyncio.all_tasks()
    home, connection = house(*pieces), Connection()
    await connection.serve(home)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == others


async def test_a_connection_that_fails_ends_its_stream_and_says_why():
    home, connection = house(EVENT, asyncio.Event()), Connection()

    async def broken(message):
        if message.get("body"):
            raise RuntimeError("the application out of turn")

    connection.send = broken
    with pytest.raises(RuntimeError, match="out of turn"):
        await connection.serve(home)
    assert home.upstream.open == 0
    assert home.reasons == [Reason.ALLOWED, Reason.CLIENT_GONE]


async def test_a_server_that_stops_ends_its_streams():
    home, connection = house(EVENT, asyncio.Event()), Connection()
    serving = connection.serve(home)
    await connection.first.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert home.upstream.open == 0
    assert home.reasons == [Reason.ALLOWED, Reason.SHUTTING_DOWN]


async def test_a_server_that_stops_ends_a_stream_that_waits_for_its_reader():
    """The piece is handed to a connection that does not take it: the generator is not the one that is cancelled."""
    home, connection = house(EVENT, EVENT), Connection()
    full = asyncio.Event()

    async def stuck(message):
        if message.get("body"):
            full.set()
            await asyncio.Event().wait()

    connection.send = stuck
    serving = connection.serve(home)
    await full.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert home.upstream.open == 0
    assert home.reasons == [Reason.ALLOWED, Reason.SHUTTING_DOWN]


@pytest.mark.parametrize("rows", [1, 3000])
async def test_a_whole_answer_leaves_whole_in_slices_that_tls_can_hold(rows):
    """Small answers in one piece, large ones at the reader's pace; together they are what the head announced."""
    data = [round(n / (3 * rows), 6) for n in range(3 * rows)]
    outputs = [TENSOR | {"name": name, "shape": [rows, 3], "data": data} for name in "abcdefghij"]
    home = house(reply=infer_reply(200, json.dumps({"model_name": "iris", "outputs": outputs}).encode()))
    connection = Connection("/v2/models/iris/infer")
    await connection.serve(home)
    start, *pieces = connection.sent
    assert int(dict(start["headers"])[b"content-length"]) == sum(len(piece["body"]) for piece in pieces)
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert max(len(piece["body"]) for piece in pieces) <= SLICE
    assert (len(pieces) > 1) is (rows > 1)
    assert json.loads(b"".join(piece["body"] for piece in pieces))["model_name"] == "iris"
