"""What is counted of a finished exchange, and that no label is a caller's word."""

from dataclasses import replace

import pytest

from proxy.adapters.metrics import Metrics
from proxy.exchange import (
    Action,
    Budget,
    Call,
    Charge,
    Cost,
    Exchange,
    Exhausted,
    Peer,
    Score,
    Target,
    Unit,
    Window,
)
from proxy.reasons import Reason
from proxy.record import Position

BUDGET = Budget("trial", (Window(Unit.ROWS, 10, 60),))


async def _no_body() -> bytes:
    return b""


def exchange() -> Exchange:
    call = Call("POST", "/v2/models/x/infer", "", (), Peer("192.0.2.1"), _no_body)
    story = Exchange("e" * 32, call, 100.0, "digest", "t" * 32, "s" * 16)
    story.dialect, story.target = "oip-v2", Target(Action.INFER, "x")
    story.status, story.finished = 200, 100.004
    return story


def page(metrics: Metrics) -> list[str]:
    return metrics.exposition().decode().splitlines()


def test_the_journals_place_never_goes_back() -> None:
    """A request's second record may stand in another stream than its first, or nowhere."""
    metrics, story = Metrics(["oip-v2"]), exchange()
    metrics.finished(story, Position("a", 9, ""), Position("a", 10, ""))
    metrics.finished(story, Position("a", 3, ""), Position("b", 1, ""))
    metrics.finished(story, Position("b", 0, ""), None)
    lines = page(metrics)
    assert 'hip_journal_sequence{stream="a"} 10.0' in lines
    assert 'hip_journal_sequence{stream="b"} 1.0' in lines


def test_an_allowed_request() -> None:
    metrics, story = Metrics(["oip-v2"]), exchange()
    story.charge = Charge("a", BUDGET, Cost(rows=3), (), 1)
    story.upstream_seconds = 0.003
    metrics.finished(story, Position("s", 7, ""), Position("s", 8, ""))
    metrics.finished(story, Position("s", 9, ""), Position("s", 10, ""))
    lines = page(metrics)
    labels = 'action="infer",dialect="oip-v2",reason="allowed",status="200"'
    assert f"hip_requests_total{{{labels}}} 2.0" in lines
    assert "hip_rows_total 6.0" in lines
    assert 'hip_request_seconds_bucket{le="0.005"} 2.0' in lines
    assert 'hip_upstream_seconds_bucket{le="0.0025"} 0.0' in lines
    assert "hip_journal_records_total 4.0" in lines
    assert 'hip_journal_sequence{stream="s"} 10.0' in lines
    assert not any("_created" in line for line in lines)


def test_refusals() -> None:
    metrics, story = Metrics(["oip-v2"]), exchange()
    story.status, story.reason = 429, Reason.BUDGET_EXHAUSTED
    story.exhausted = Exhausted(BUDGET, Cost(rows=11), (), BUDGET.windows[0], None)
    story.score = Score(0.001, 0.01, 9.0, 3.0, 0)
    metrics.finished(story, Position("s", 1, ""), None)
    story.exhausted = story.score = None
    story.status, story.reason = 503, Reason.AUDIT_UNWRITABLE
    metrics.finished(story, None, None)
    metrics.message_refused(Reason.MALFORMED_MESSAGE)
    lines = page(metrics)
    assert 'hip_budget_exhausted_total{unit="rows"} 1.0' in lines
    assert 'hip_detector_suspicious_total{mode="off"} 1.0' in lines
    assert "hip_journal_failures_total 1.0" in lines
    assert 'hip_refused_messages_total{reason="malformed_message"} 1.0' in lines


def test_labels_come_from_closed_sets() -> None:
    """A dialect that the composition root did not name, and a request without one, are both `none`."""
    metrics, story = Metrics(["oip-v2"]), exchange()
    story.dialect, story.target = "x" * 1000, None
    metrics.finished(story, None, None)
    metrics.finished(replace(story, dialect=None), None, None)
    labels = 'action="none",dialect="none",reason="allowed",status="200"'
    assert f"hip_requests_total{{{labels}}} 2.0" in page(metrics)


def test_process_facts() -> None:
    metrics = Metrics([])
    metrics.policy_loaded("aa")
    metrics.policy_loaded("bb")
    metrics.policy_rejected()
    metrics.certificate_expires(1.5e9)
    metrics.watch_connections(lambda: 5)
    lines = page(metrics)
    assert 'hip_policy_info{digest="bb"} 1.0' in lines
    assert not any('"aa"' in line for line in lines)
    assert "hip_policy_reload_failures_total 1.0" in lines
    assert "hip_certificate_expiry_seconds 1.5e+09" in lines
    assert "hip_connections 5.0" in lines


def test_two_processes_worth_of_metrics_share_nothing() -> None:
    """Own registry: a second instance neither collides nor adds up."""
    first, second = Metrics([]), Metrics([])
    first.message_refused(Reason.OVERLOADED)
    assert 'hip_refused_messages_total{reason="overloaded"} 0.0' in page(second)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_can_be_refused(reason: Reason) -> None:
    Metrics([]).message_refused(reason)
