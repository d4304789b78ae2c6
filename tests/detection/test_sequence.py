"""Query sequences: who is flagged, how soon, and who never is."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from attacks import Rows, bisection, hop_skip_jump, jacobian, natural, uniform, world

from proxy.detection.facts import DetectorFacts
from proxy.detection.fit import Subject, fit, sketches, statistics
from proxy.detection.sequence import (
    MAX_CLIENTS,
    NEAR_WINDOW,
    Pattern,
    SequenceFinding,
    SequenceWatch,
    identities,
)
from proxy.exchange import Sightings

NAMES = ["digits", "breast_cancer"]
STREAMS = 12  # attack streams for a median
LENGTH = 120  # rows of a stream


@cache
def detector(name: str) -> DetectorFacts:
    return fit(world(name).train, Subject("rows", ("m",)), 0.01)


def seen(facts: DetectorFacts, rows: Rows) -> Sightings:
    numbers = rows.astype(np.float32)
    return Sightings(identities(numbers), sketches(facts, numbers), statistics(facts, numbers) > facts.threshold)


def one_by_one(sightings: Sightings) -> Iterator[Sightings]:
    for at in range(len(sightings.identities)):
        part = slice(at, at + 1)
        yield Sightings(sightings.identities[part], sightings.sketches[part], sightings.suspicious[part])


def plain(sketch: Rows, suspicious: bool = False) -> Sightings:
    """Rows whose sketch begins with the given numbers."""
    rows = np.zeros((len(sketch), 64), np.float32)
    rows[:, : sketch.shape[1]] = sketch
    return Sightings(identities(rows), rows, np.full(len(rows), suspicious))


# ── attackers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("stream", "pattern", "latest"),
    [
        (hop_skip_jump, Pattern.NEAR_DUPLICATES, 12),
        (bisection, Pattern.NEAR_DUPLICATES, 10),
        (uniform, Pattern.OUT_OF_DISTRIBUTION, 8),
        (jacobian, Pattern.OUT_OF_DISTRIBUTION, 63),
    ],
    ids=["hop_skip_jump", "bisection", "uniform", "jacobian"],
)
def test_attackers_are_flagged_at_a_median_query(name, stream, pattern, latest) -> None:
    facts = detector(name)
    first, patterns = [], set()
    for seed in range(STREAMS):
        finding = SequenceWatch(facts.tau).observe("mallory", seen(facts, stream(world(name), LENGTH, seed)))
        assert finding is not None
        first.append(finding.row + 1)
        patterns.add(finding.pattern)
    assert np.median(first) <= latest
    assert patterns == {pattern}


@pytest.mark.parametrize("name", NAMES)
def test_a_diluted_attacker_is_flagged_within_few_attack_queries(name) -> None:
    """One attack row after nine ordinary ones."""
    facts, needed = detector(name), []
    for seed in range(STREAMS):
        watch = SequenceWatch(facts.tau)
        attack = one_by_one(seen(facts, bisection(world(name), 30, seed)))
        cover = one_by_one(seen(facts, natural(world(name), 270, seed)))
        for count, row in enumerate(attack, 1):
            for _ in range(9):
                watch.observe("mallory", next(cover))
            if watch.observe("mallory", row):
                needed.append(count)
                break
    assert len(needed) == STREAMS
    assert np.median(needed) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_twenty_colluding_clients_are_flagged(name) -> None:
    facts = detector(name)
    watch, flagged, answered = SequenceWatch(facts.tau), set(), 0
    for number, row in enumerate(one_by_one(seen(facts, bisection(world(name), 1080)))):
        client = number % 20
        finding = watch.observe(str(client), row)
        answered += finding is None
        if finding:
            flagged.add(client)
    assert len(flagged) >= 19
    assert answered <= 150


def test_a_natural_data_attacker_is_never_flagged() -> None:
    """The honest limit of all of this."""
    for name in NAMES:
        facts = detector(name)
        assert SequenceWatch(facts.tau).observe("mallory", seen(facts, natural(world(name), 2000))) is None


def test_a_tau_spaced_attacker_is_not_flagged() -> None:
    """The other honest limit: who keeps its rows apart is not seen."""
    steps = np.arange(300.0)[:, None]
    assert SequenceWatch(0.99).observe("mallory", plain(steps)) is None


# ── ordinary clients ────────────────────────────────────────────────────────────────────────────────────────────


def flagged_clients(name: str, clients: int, seed: int = 0) -> list[SequenceFinding]:
    """Ordinary clients of one service: retries, one class only, small batches, several users behind one id."""
    of, facts, generator = world(name), detector(name), np.random.default_rng(seed)
    known, found = seen(facts, of.test), []
    watch = SequenceWatch(facts.tau)
    for client in range(clients):
        if client % 40 == 0:
            watch = SequenceWatch(facts.tau)  # all rows of the small data set would soon be known, and excused
        pool = np.arange(len(of.test))
        if client % 3 == 0:
            pool = np.flatnonzero(of.test_labels == generator.integers(of.test_labels.max() + 1))
        chosen = generator.choice(pool, generator.integers(20, 250))
        if client % 5 == 0:
            chosen = np.repeat(chosen, 3)  # retries
        batch = int(generator.integers(1, 20))
        for at in range(0, len(chosen), batch):
            part = chosen[at : at + batch]
            finding = watch.observe(
                str(client), Sightings(known.identities[part], known.sketches[part], known.suspicious[part])
            )
            if finding:
                found.append(finding)
                break
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_ordinary_client_of_three_thousand_is_flagged(name) -> None:
    assert flagged_clients(name, 3000) == []


# ── the rules ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_three_near_duplicates_are_a_finding_and_two_are_not() -> None:
    watch = SequenceWatch(1.0)
    assert watch.observe("a", plain(np.array([[0.0], [0.5], [0.9]]))) is None
    assert watch.observe("a", plain(np.array([[50.0], [1.2]]))) == SequenceFinding(Pattern.NEAR_DUPLICATES, 3, 5, 1)


def test_tau_itself_is_near() -> None:
    assert SequenceWatch(1.0).observe("a", plain(np.arange(4.0)[:, None])) is not None


def test_exact_repeats_are_excused_and_minus_zero_is_zero() -> None:
    watch = SequenceWatch(1.0)
    row = np.array([[3.0, 0.0]])
    for _ in range(20):
        assert watch.observe("a", plain(row, suspicious=True)) is None
        assert watch.observe("a", plain(row * [1, -1], suspicious=True)) is None


def test_a_finding_lasts_while_the_window_shows_it() -> None:
    watch = SequenceWatch(0.1)
    assert watch.observe("a", plain(np.linspace(0, 0.2, 4)[:, None])) is not None
    apart = np.arange(1.0, NEAR_WINDOW)[:, None]
    assert watch.observe("a", plain(apart)) is not None
    assert watch.observe("a", plain(apart + 500)) is None


def test_eight_of_fifty_suspicious_rows_are_a_finding() -> None:
    watch = SequenceWatch(0.1)
    rows = np.arange(60.0)[:, None] * 10
    assert watch.observe("a", plain(rows[:7], suspicious=True)) is None
    assert watch.observe("a", plain(rows[7:49])) is None
    assert watch.observe("a", plain(rows[49:50], suspicious=True)) == SequenceFinding(
        Pattern.OUT_OF_DISTRIBUTION, 8, 50, 0
    )
    assert watch.observe("a", plain(rows[50:51])) is None


def test_clients_that_share_an_attack_are_colluding_and_the_first_is_not() -> None:
    watch = SequenceWatch(1.0)
    rows = np.array([[0.0], [100.0], [200.0]])
    assert watch.observe("first", plain(rows)) is None
    finding = watch.observe("second", plain(rows + 0.5))
    assert finding == SequenceFinding(Pattern.COLLUDING, 3, 3, 2)


def test_popular_inputs_are_excused_for_everybody() -> None:
    watch = SequenceWatch(1.0)
    rows = plain(np.arange(0, 3, 0.5)[:, None])
    assert watch.observe("first", rows) is not None
    assert watch.observe("second", rows) is None


def test_the_least_recent_client_is_forgotten_and_counted() -> None:
    watch = SequenceWatch(1.0, clients=2)
    near = np.array([[0.0], [0.1], [0.2], [0.3]])
    assert watch.observe("a", plain(near)) is not None
    watch.observe("b", plain(near + 100))
    assert watch.observe("a", plain(near)) is not None
    watch.observe("c", plain(near + 200))
    assert watch.evicted == 1
    assert watch.observe("a", plain(near)) is not None
    assert watch.observe("b", plain(near)) is None
    assert watch.evicted == 2


def test_memory_is_bounded() -> None:
    """0.3 MB a client: the windows do not grow beyond their capacity, whatever is asked."""
    watch = SequenceWatch(1e-9)
    watch.observe("a", plain(np.arange(5000.0)[:, None]))
    window = watch._clients["a"].rows
    assert window._sketches.nbytes + window._squares.nbytes < 60_000
    assert len(window._known) == NEAR_WINDOW
    assert len(watch._shared._known) == 1024
    assert MAX_CLIENTS * 60_000 < 64 << 20


def test_two_workers_told_the_same_come_to_the_same() -> None:
    """The state is a fold over sightings: what a shared store has to carry."""
    facts = detector("digits")
    rows = list(one_by_one(seen(facts, hop_skip_jump(world("digits"), 60))))
    here, there = SequenceWatch(facts.tau), SequenceWatch(facts.tau)
    assert [here.observe("m", row) for row in rows] == [there.observe("m", row) for row in rows]


def test_no_rows_show_what_the_window_shows() -> None:
    assert SequenceWatch(1.0).observe("a", plain(np.zeros((0, 1)))) is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
def test_the_quick_distance_finds_what_the_exact_one_finds(scale) -> None:
    """Invariant: float32 cancellation in |a|² - 2ab + |b|² hides no near row, however far from zero rows lie."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=(100, 64)).astype(np.float32) * np.float32(scale)
    moved = base + generator.normal(size=base.shape).astype(np.float32) * np.float32(scale * 1e-3)
    tau = float(np.linalg.norm(moved - base, axis=1).max())
    watch = SequenceWatch(tau)
    none = np.zeros(100, np.bool_)
    watch.observe("first", Sightings(identities(base), base, none))
    finding = watch.observe("second", Sightings(identities(moved), moved, none))
    assert finding is not None
    assert finding.row == 2
