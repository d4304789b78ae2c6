"""Who fails to authenticate too often is not listened to for a while, whatever the environment says."""

import threading
from pathlib import Path

import pytest

from proxy.adapters.source_limit import SourceLimit
from proxy.exchange import Unit, Window

THREE_A_MINUTE = Window(Unit.REQUESTS, 3, 60)


@pytest.fixture
def sources(clock) -> SourceLimit:
    return SourceLimit(THREE_A_MINUTE, clock)


def exhaust(sources: SourceLimit, address: str) -> None:
    for _ in range(3):
        assert sources.blocked(address) is None
        sources.failed(address)


def test_blocked_until_the_window_ends(sources: SourceLimit, clock) -> None:
    exhaust(sources, "192.0.2.1")
    assert sources.blocked("192.0.2.1") == 60
    clock.advance(59.5)
    assert sources.blocked("192.0.2.1") == 1
    clock.advance(0.5)
    assert sources.blocked("192.0.2.1") is None


def test_asking_costs_nothing(sources: SourceLimit) -> None:
    """Only failures count: a busy client with good tokens is never blocked."""
    for _ in range(1000):
        assert sources.blocked("192.0.2.1") is None


def test_failures_while_blocked_do_not_prolong_it(sources: SourceLimit, clock) -> None:
    exhaust(sources, "192.0.2.1")
    clock.advance(30)
    sources.failed("192.0.2.1")
    assert sources.blocked("192.0.2.1") == 30


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::1", "2001:0DB8:0:1::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("0.0.0.1", "::1", False),
        ("", "unix:", True),
        ("", "192.0.2.1/24", True),
        ("192.0.2.1", "192.0.2.01", False),
        ("", "192.0.2.01", True),
    ],
)
def test_which_addresses_are_one_source(sources: SourceLimit, one: str, other: str, same: bool) -> None:
    """No address goes uncounted; one that cannot be read shares a count with its like."""
    exhaust(sources, one)
    assert (sources.blocked(other) is not None) == same


def test_memory_is_bounded_and_the_oldest_goes_first(clock) -> None:
    sources = SourceLimit(THREE_A_MINUTE, clock, capacity=100)
    exhaust(sources, "10.0.0.0")
    for number in range(1, 100):
        sources.failed(f"10.0.0.{number}")
    assert sources.blocked("10.0.0.0") is not None
    sources.failed("10.0.1.1")
    assert sources.blocked("10.0.0.0") is None
    assert len(sources._engine.storage._windows) == 100


def test_what_has_ended_is_forgotten(sources: SourceLimit, clock) -> None:
    for number in range(200):
        sources.failed(f"10.0.0.{number}")
    clock.advance(60)
    sources.failed("10.0.1.1")
    assert len(sources._engine.storage._windows) == 1


def test_no_thread_is_started(sources: SourceLimit) -> None:
    """The memory storage of `limits` starts a timer thread again and again."""
    before = threading.active_count()
    exhaust(sources, "192.0.2.1")
    assert threading.active_count() == before


def test_the_environment_cannot_switch_it_off(clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """slowapi reads RATELIMIT_* and a `.env` in the working directory."""
    (tmp_path / ".env").write_text("RATELIMIT_ENABLED=false\nRATELIMIT_STRATEGY=moving-window\n")
    monkeypatch.chdir(tmp_path)
    for name, value in [
        ("ENABLED", "false"),
        ("STORAGE_URL", "memory://"),
        ("STRATEGY", "moving-window"),
        ("SWALLOW_ERRORS", "true"),
        ("IN_MEMORY_FALLBACK_ENABLED", "true"),
        ("KEY_PREFIX", "x"),
    ]:
        monkeypatch.setenv(f"RATELIMIT_{name}", value)
    sources = SourceLimit(THREE_A_MINUTE, clock)
    exhaust(sources, "192.0.2.1")
    assert sources.blocked("192.0.2.1") == 60


@pytest.mark.parametrize(
    ("window", "capacity"),
    [(Window(Unit.REQUESTS, 0, 60), 1), (Window(Unit.REQUESTS, 1, 0), 1), (THREE_A_MINUTE, 0)],
)
def test_a_limit_that_limits_nothing_is_refused(clock, window: Window, capacity: int) -> None:
    with pytest.raises(ValueError, match="not a limit"):
        SourceLimit(window, clock, capacity)
