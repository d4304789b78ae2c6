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
    SequenceWatch,
    identities,
)
from proxy.exchange import Mode, Pattern, SequenceFinding, SequenceUse, Sightings, Suspicion

NAMES = ["digits", "breast_cancer"]
STREAMS = 12  # attack streams for a median
LENGTH = 120  # rows of a stream


NOW = 1_800_000_000.0
DAY = 86_400.0
RUNGS = {
    Pattern.NEAR_DUPLICATES: (Suspicion.LABEL, Suspicion.DELAY, Suspicion.REFUSE),
    Pattern.OUT_OF_DISTRIBUTION: (Suspicion.REFUSE,),
    Pattern.COLLUDING: (Suspicion.LABEL,),
}
USE = SequenceUse(Mode.ENFORCE, near=True, decay=DAY, rungs=RUNGS)
FLAT = SequenceUse(Mode.ENFORCE, near=True, decay=DAY, rungs=dict.fromkeys(Pattern, (Suspicion.LABEL,)))


def observe(
    watch: SequenceWatch, account: str, sightings: Sightings, now: float = NOW, use: SequenceUse = USE
) -> SequenceFinding | None:
    return watch.observe(account, sightings, use, now)


@cache
def detector(name: str) -> DetectorFacts:
    return fit(world(name).train, Subject("rows", ("m",)), 0.01)


def seen(facts: DetectorFacts, rows: Rows) -> Sightings:
    numbers = rows.astype(np.float32)
    return Sightings(
        identities(numbers), sketches(facts, numbers), statistics(facts, numbers) > facts.threshold, facts.tau
    )


def one_by_one(sightings: Sightings) -> Iterator[Sightings]:
    for at in range(len(sightings.identities)):
        yield sightings.part(at, at + 1)


def plain(sketch: Rows, suspicious: bool = False) -> Sightings:
    """Rows whose sketch begins with the given numbers."""
    rows = np.zeros((len(sketch), 64), np.float32)
    rows[:, : sketch.shape[1]] = sketch
    return Sightings(identities(rows), rows, np.full(len(rows), suspicious), 1.0)


# ── attackers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("stream", "expected", "latest"),
    [
        (hop_skip_jump, {Pattern.NEAR_DUPLICATES, Pattern.OUT_OF_DISTRIBUTION}, 12),
        (bisection, {Pattern.NEAR_DUPLICATES, Pattern.OUT_OF_DISTRIBUTION}, 10),
        (uniform, {Pattern.OUT_OF_DISTRIBUTION}, 5),
        (jacobian, {Pattern.OUT_OF_DISTRIBUTION}, 63),
    ],
    ids=["hop_skip_jump", "bisection", "uniform", "jacobian"],
)
def test_attackers_are_flagged_at_a_median_query(name, stream, expected, latest) -> None:
    facts = detector(name)
    first, patterns = [], set()
    for seed in range(STREAMS):
        finding = observe(SequenceWatch(facts.tau), "mallory", seen(facts, stream(world(name), LENGTH, seed)), use=FLAT)
        assert finding is not None
        first.append(finding.row + 1)
        patterns.add(finding.pattern)
    assert np.median(first) <= latest
    assert patterns <= expected


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
                observe(watch, "mallory", next(cover))
            if observe(watch, "mallory", row):
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
        finding = observe(watch, str(client), row)
        answered += finding is None
        if finding:
            flagged.add(client)
    assert len(flagged) >= 19
    assert answered <= 150


def test_a_natural_data_attacker_is_never_flagged() -> None:
    """The honest limit of all of this."""
    for name in NAMES:
        facts = detector(name)
        assert observe(SequenceWatch(facts.tau), "mallory", seen(facts, natural(world(name), 2000))) is None


def test_a_tau_spaced_attacker_is_not_flagged() -> None:
    """The other honest limit: who keeps its rows apart is not seen."""
    steps = np.arange(300.0)[:, None]
    assert observe(SequenceWatch(0.99), "mallory", plain(steps)) is None


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
            finding = observe(
                watch,
                str(client),
                Sightings(known.identities[part], known.sketches[part], known.suspicious[part], known.tau),
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
    assert observe(watch, "a", plain(np.array([[0.0], [0.5], [0.9]]))) is None
    assert observe(watch, "a", plain(np.array([[50.0], [1.2]]))) == SequenceFinding(
        Pattern.NEAR_DUPLICATES, 3, 3, 5, 1, NOW, pytest.approx(0.3)
    )


def test_tau_itself_is_near() -> None:
    assert observe(SequenceWatch(1.0), "a", plain(np.arange(4.0)[:, None])) is not None


def test_exact_repeats_are_excused_and_minus_zero_is_zero() -> None:
    watch = SequenceWatch(1.0)
    row = np.array([[3.0, 0.0]])
    for _ in range(20):
        assert observe(watch, "a", plain(row, suspicious=True)) is None
        assert observe(watch, "a", plain(row * [1, -1], suspicious=True)) is None


def test_a_finding_lasts_while_the_window_shows_it() -> None:
    watch = SequenceWatch(0.1)
    assert observe(watch, "a", plain(np.linspace(0, 0.2, 4)[:, None])) is not None
    apart = np.arange(1.0, NEAR_WINDOW)[:, None]
    assert observe(watch, "a", plain(apart)) is not None
    assert observe(watch, "a", plain(apart + 500)) is None


def test_eight_of_fifty_suspicious_rows_are_a_finding() -> None:
    """One in seven, so that no eight in a row have five."""
    watch = SequenceWatch(0.1)
    rows = np.arange(60.0)[:, None] * 10
    for at in range(49):
        assert observe(watch, "a", plain(rows[at : at + 1], suspicious=at % 7 == 0)) is None
    assert observe(watch, "a", plain(rows[49:50], suspicious=True)) == SequenceFinding(
        Pattern.OUT_OF_DISTRIBUTION, 8, 8, 50, 0, NOW
    )
    assert observe(watch, "a", plain(rows[50:51])) is None


def test_five_of_eight_suspicious_rows_are_a_finding_at_once() -> None:
    watch = SequenceWatch(0.1)
    rows = np.arange(60.0)[:, None] * 10
    assert observe(watch, "a", plain(rows[:3])) is None
    assert observe(watch, "a", plain(rows[3:7], suspicious=True)) is None
    assert observe(watch, "a", plain(rows[7:8], suspicious=True)) == SequenceFinding(
        Pattern.OUT_OF_DISTRIBUTION, 5, 5, 8, 0, NOW
    )
    assert observe(watch, "a", plain(rows[8:11])) is not None
    assert observe(watch, "a", plain(rows[11:12])) is None, "four of the last eight"


def test_clients_that_share_an_attack_are_colluding_and_the_first_is_not() -> None:
    watch = SequenceWatch(1.0)
    rows = np.array([[0.0], [100.0], [200.0]])
    assert observe(watch, "first", plain(rows)) is None
    finding = observe(watch, "second", plain(rows + 0.5))
    assert finding == SequenceFinding(Pattern.COLLUDING, 3, 3, 3, 2, NOW, 0.5)


def test_each_doubling_of_the_evidence_is_one_rung() -> None:
    watch, rungs = SequenceWatch(1.0), []
    for number in range(15):
        finding = observe(watch, "a", plain(np.array([[number * 0.5]])), now=NOW + number)
        rungs.append(finding and (USE.rung(finding), finding.since - NOW))
    assert rungs[:3] == [None, None, None]
    assert rungs[3:6] == [(Suspicion.LABEL, 3.0)] * 3
    assert rungs[6:12] == [(Suspicion.DELAY, 6.0)] * 6
    assert rungs[12:] == [(Suspicion.REFUSE, 12.0)] * 3


def test_what_is_older_than_the_decay_no_longer_counts() -> None:
    watch = SequenceWatch(1.0)
    assert observe(watch, "a", plain(np.arange(0, 2, 0.5)[:, None])) is not None
    far = plain(np.array([[500.0]]))
    assert observe(watch, "a", far, now=NOW + DAY) is not None
    assert observe(watch, "a", far, now=NOW + DAY + 1) is None


def test_a_time_series_may_come_in_small_steps() -> None:
    """Near rows mean nothing where the rule says so, to this caller and to the others; strange ones still do."""
    series = SequenceUse(Mode.ENFORCE, near=False, decay=DAY, rungs=RUNGS)
    watch, steps = SequenceWatch(1.0), np.arange(0, 30, 0.5)[:, None]
    assert observe(watch, "meter", plain(steps), use=series) is None
    assert observe(watch, "other", plain(steps + 0.1), use=series) is None
    finding = observe(watch, "meter", plain(steps + 1000, suspicious=True), use=series)
    assert finding is not None
    assert finding.pattern is Pattern.OUT_OF_DISTRIBUTION


def test_of_two_findings_the_higher_rung_counts() -> None:
    watch = SequenceWatch(1.0)
    finding = observe(watch, "a", plain(np.arange(0, 5, 0.5)[:, None], suspicious=True))
    assert finding is not None
    assert finding.pattern is Pattern.OUT_OF_DISTRIBUTION


def test_popular_inputs_are_excused_for_everybody() -> None:
    watch = SequenceWatch(1.0)
    rows = plain(np.arange(0, 3, 0.5)[:, None])
    assert observe(watch, "first", rows) is not None
    assert observe(watch, "second", rows) is None


def test_the_least_recent_client_is_forgotten_and_counted() -> None:
    watch = SequenceWatch(1.0, clients=2)
    near = np.array([[0.0], [0.1], [0.2], [0.3]])
    assert observe(watch, "a", plain(near)) is not None
    observe(watch, "b", plain(near + 100))
    assert observe(watch, "a", plain(near)) is not None
    observe(watch, "c", plain(near + 200))
    assert watch.evicted == 1
    assert observe(watch, "a", plain(near)) is not None
    assert observe(watch, "b", plain(near)) is None
    assert watch.evicted == 2


def test_memory_is_bounded() -> None:
    """0.3 MB a client: the windows do not grow beyond their capacity, whatever is asked."""
    watch = SequenceWatch(1e-9)
    observe(watch, "a", plain(np.arange(5000.0)[:, None]))
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
    assert [observe(here, "m", row) for row in rows] == [observe(there, "m", row) for row in rows]


def test_no_rows_show_what_the_window_shows() -> None:
    assert observe(SequenceWatch(1.0), "a", plain(np.zeros((0, 1)))) is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
def test_the_quick_distance_finds_what_the_exact_one_finds(scale) -> None:
    """Invariant: float32 cancellation in |a|² - 2ab + |b|² hides no near row, however far from zero rows lie."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=(100, 64)).astype(np.float32) * np.float32(scale)
    moved = base + generator.normal(size=base.shape).astype(np.float32) * np.float32(scale * 1e-3)
    tau = float(np.linalg.norm(moved - base, axis=1).max())
    watch = SequenceWatch(tau)
    none = np.zeros(100, np.bool_)
    observe(watch, "first", Sightings(identities(base), base, none, tau))
    finding = observe(watch, "second", Sightings(identities(moved), moved, none, tau))
    assert finding is not None
    assert finding.row == 2
