"""Reproduce the targets of the defences, and write them into docs/defence.md: `make bench-defence`, about two minutes.

The target is a logistic regression on scikit-learn's digits and breast_cancer, features in [0, 1], behind the
product's own parts in one process: detector, query sequences, ladder and output hardening as the gateway calls them,
without the network. Attacks are those of `hip simulate`; medians over SEEDS.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "detection")]

from attacks import World, natural, uniform, world  # noqa: E402
from test_sequence import flagged_clients  # noqa: E402

from proxy.adapters.detector import OnnxDetector  # noqa: E402
from proxy.detection.facts import DetectorFacts  # noqa: E402
from proxy.detection.fit import Subject, fit  # noqa: E402
from proxy.detection.ladder import due  # noqa: E402
from proxy.detection.sequence import (  # noqa: E402
    STRANGE_LIMIT,
    STRANGE_WINDOW,
    SUDDEN_LIMIT,
    SUDDEN_WINDOW,
    SequenceWatch,
)
from proxy.exchange import DetectorUse, Mode, Output, Pattern, SequenceUse, Suspicion  # noqa: E402
from proxy.hardening.matrix import harden_rows  # noqa: E402
from proxy.simulate import evasion, extraction  # noqa: E402
from proxy.simulate.copying import copy_of, fidelity  # noqa: E402
from proxy.simulate.knowledge import Knowledge  # noqa: E402
from proxy.simulate.session import Rows, Scores, Session, Stop, StoppedError  # noqa: E402

DOCUMENT = HERE.parent / "docs" / "defence.md"
BEGIN, END = "<!-- begin: make bench-defence -->", "<!-- end: make bench-defence -->"
SEEDS = 20
BENIGN = 3_000
RUNGS = {
    Pattern.NEAR_DUPLICATES: (Suspicion.REFUSE,),
    Pattern.OUT_OF_DISTRIBUTION: (Suspicion.REFUSE,),
    Pattern.COLLUDING: (Suspicion.LABEL,),
}
SEQUENCES = SequenceUse(Mode.ENFORCE, near=True, decay=86_400.0, rungs=RUNGS)
SERIES = SequenceUse(Mode.ENFORCE, near=False, decay=86_400.0, rungs=RUNGS)
USE = DetectorUse("d", "", "", Mode.ENFORCE, Suspicion.LABEL, SEQUENCES)
COARSE, LABEL = Output("coarse", decimals=2), Output("label", label_only=True)


@dataclass
class Lab:
    """A target with the default policy of docs/defence.md, or, without a detector, with none."""

    of: World
    detector: OnnxDetector | None = None
    batch: int = 1
    watch: SequenceWatch | None = None
    tokens: dict[int, int] = field(default_factory=dict)

    async def ask(self, caller: int, rows: Rows) -> Scores | Stop:
        scores = self.of.target.predict_proba(rows)
        if self.detector is None or self.watch is None:
            return scores
        score, sightings = await self.detector.examine(rows.astype(np.float32))
        rung = due(USE, score, self.watch.observe(str(caller), sightings, SEQUENCES, 0.0))
        if rung is not None and rung.rung is Suspicion.REFUSE:
            return Stop.REFUSED
        return harden_rows(scores, COARSE if rung is None else LABEL)


def facts_of(name: str) -> DetectorFacts:
    return fit(world(name).train, Subject("rows", (name,)), 0.01)


def knowledge(of: World) -> Knowledge:
    half = len(of.test) // 2
    judged = of.test[half:]
    truth = of.target.predict(judged)
    return Knowledge(of.test[:half], of.test_labels[:half], judged, truth, len(of.target.classes_))


@dataclass(frozen=True)
class Outcome:
    answers: int
    stopped_at: float
    result: float


def attack(name: str, run: Callable[..., object], limit: int, callers: int = 1, *, defended: bool) -> Outcome:
    """Return the medians over SEEDS; nobody was ever asked before."""
    of, facts = world(name), facts_of(name)
    known, detector, outcomes = knowledge(of), OnnxDetector(facts), []
    for seed in range(SEEDS):
        lab = Lab(of, detector, 1, SequenceWatch(facts.tau)) if defended else Lab(of, batch=64)
        session = Session(lab, list(range(callers)), limit)

        async def once(session: Session = session, seed: int = seed) -> float | None:
            try:
                return await run(session, known, np.random.default_rng(seed))  # type: ignore[misc]
            except StoppedError:
                return None

        result = asyncio.run(once())
        if result is None:
            result = fidelity(copy_of(*session.received()), known.judged, known.truth) if session.answers else 0.0
        outcomes.append(Outcome(session.answers, session.stopped_at or float("inf"), result))
    return Outcome(
        int(statistics.median(one.answers for one in outcomes)),
        statistics.median(one.stopped_at for one in outcomes),
        float(np.nanmedian([one.result for one in outcomes])),
    )


def extracted() -> list[tuple[str, str, str, bool]]:
    rows = []
    before = attack("digits", extraction.equation_solving, 65, defended=False)
    after = attack("digits", extraction.equation_solving, 65, defended=True)
    rows.append(
        (
            "data-free equation solving, digits",
            "≤ .20, ≤ 10 answers",
            f"{before.result:.3f} → {after.result:.2f}, {after.answers} answers",
            after.result <= 0.20 and after.answers <= 10,
        )
    )
    together = attack("digits", extraction.random_noise, 650, 20, defended=True)
    shown = f"{together.result:.2f}, {together.answers} answers"
    rows.append(("the same by 20 colluding clients", "≤ .50", shown, together.result <= 0.50))
    before = attack("breast_cancer", extraction.bisection, 1_080, defended=False)
    after = attack("breast_cancer", extraction.bisection, 1_080, defended=True)
    rows.append(
        (
            "bisection, breast_cancer",
            "≤ .40, ≤ 10 answers",
            f"{before.result:.3f} → {after.result:.2f}, {after.answers} answers",
            after.result <= 0.40 and after.answers <= 10,
        )
    )
    together = attack("breast_cancer", extraction.bisection, 1_080, 20, defended=True)
    shown = f"{together.answers} answered, of which a copy of {together.result:.2f}"
    rows.append(("the same by 20 colluding clients", "≤ 150 of 1,080 answered", shown, together.answers <= 150))
    for name in ("digits", "breast_cancer"):
        own = attack(name, extraction.natural, 500, defended=True)
        spaced = attack(name, extraction.adaptive, 500, defended=True)
        rows.append((f"natural data, {name}", "not prevented", f"{own.result:.2f}, {_stopped(own)}", True))
        shown = f"{spaced.result:.2f} of {spaced.answers} answers, {_stopped(spaced)}"
        rows.append((f"adaptive, spaced, {name}", "not prevented", shown, True))
    return rows


def evaded() -> list[tuple[str, str, str, bool]]:
    rows = []
    for name in ("digits", "breast_cancer"):
        for title, run in (
            ("HopSkipJump", evasion.hop_skip_jump),
            ("boundary", evasion.boundary),
            ("ZOO", evasion.zoo),
        ):
            before, after = attack(name, run, 2_000, defended=False), attack(name, run, 2_000, defended=True)
            ratio = after.result / before.result
            shown = f"query {after.stopped_at:.0f}, L2 {before.result:.2f} → {after.result:.2f} ({ratio:.2f} times)"
            good = after.stopped_at <= 12 and ratio >= 2
            rows.append((f"{title}, {name}", "query ≤ 12, L2 ≥ 2 times", shown, good))
        hidden = attack(name, extraction.diluted, 1_000, defended=True)
        queries = hidden.stopped_at / (extraction.COVER + 1)
        rows.append((f"bisection diluted 1:9, {name}", "≤ 10 attack queries", f"{queries:.1f}", queries <= 10))
    return rows


def benign() -> list[tuple[str, str, str, bool]]:
    rows = []
    for name in ("digits", "breast_cancer"):
        flagged = len(flagged_clients(name, BENIGN))
        rows.append((f"benign clients, {name}", f"0 of {BENIGN:,}", f"{flagged} of {BENIGN:,}", flagged == 0))
    for name in ("digits", "breast_cancer"):
        facts, of = facts_of(name), world(name)
        series = fit(_walks(of, range(300), 10), Subject("rows", (name,)), 0.01)
        for title, learned, moved, use in (
            ("a time series", series, _walk, SEQUENCES),
            ("the same, `traffic: time_series`", series, _walk, SERIES),
            ("drift of .05", facts, _drifted, SEQUENCES),
        ):
            found = sum(_flagged(learned, moved(of, 1_000 + seed), use) for seed in range(40))
            rows.append((f"clients of {title}, {name}", "reported", f"{found} of 40 flagged", True))
    for rate in (0.01, 0.02, 0.05, 0.1):
        long, either = _strange(rate)
        shown = f"{either:.2%}; by 8 of 50 alone {long:.2%}"
        rows.append((f"clients of whose 200 rows {rate:.0%} are suspicious, by chance", "reported", shown, True))
    return rows


def _strange(rate: float, clients: int = 100_000, length: int = 200) -> tuple[float, float]:
    """Return the share of clients flagged as out of distribution by the long rule, and by either."""
    marks = np.random.default_rng(0).random((clients, length)) < rate
    sums = np.hstack([np.zeros((clients, 1), np.int64), marks.cumsum(axis=1)])
    long, sudden = np.zeros(clients, np.bool_), np.zeros(clients, np.bool_)
    for end in range(1, length + 1):
        long |= sums[:, end] - sums[:, max(0, end - STRANGE_WINDOW)] >= STRANGE_LIMIT
        sudden |= sums[:, end] - sums[:, max(0, end - SUDDEN_WINDOW)] >= SUDDEN_LIMIT
    return float(long.mean()), float((long | sudden).mean())


def _walk(of: World, seed: int) -> Rows:
    return _walks(of, [seed], 200)


def _walks(of: World, seeds: Iterable[int], length: int) -> Rows:
    """Each begins at an ordinary row and goes in small steps; the detector has learned from others of them."""
    walks = []
    for seed in seeds:
        steps = np.random.default_rng(seed).normal(scale=0.002, size=(length, of.test.shape[1])).cumsum(axis=0)
        walks.append(np.clip(natural(of, 1, seed) + steps, 0, 1))
    return np.vstack(walks)


def _drifted(of: World, seed: int) -> Rows:
    return np.clip(of.test[np.random.default_rng(seed).permutation(len(of.test))[:200]] + 0.05, 0, 1)


def _flagged(facts: DetectorFacts, rows: Rows, use: SequenceUse) -> bool:
    _, sightings = asyncio.run(OnnxDetector(facts).examine(rows.astype(np.float32)))
    return SequenceWatch(facts.tau).observe("a", sightings, use, 0.0) is not None


def hardened() -> list[tuple[str, str, str, bool]]:
    changed = total = 0
    for name in ("digits", "breast_cancer"):
        of = world(name)
        scores = of.target.predict_proba(np.vstack([of.test, uniform(of, 20_000)]))
        for output in (*(Output("o", decimals=places) for places in range(5)), Output("o", top_k=1), LABEL):
            shown = np.vstack([harden_rows(part, output) for part in np.array_split(scores, 20)])
            changed += int((shown.argmax(axis=1) != scores.argmax(axis=1)).sum())
            total += len(scores)
    return [("top-1 changes by hardening", "0", f"{changed} of {total:,}", changed == 0)]


def timed() -> list[tuple[str, str, str, bool]]:
    rows = []
    for features, limit in ((64, 100), (784, 100), (10_000, 300)):
        rng = np.random.default_rng(0)
        data = (rng.normal(size=(400, 40)) @ rng.normal(size=(40, features))).astype(np.float32)
        detector = OnnxDetector(fit(data, Subject("rows", ("m",)), 0.01))
        watch, taken = SequenceWatch(detector.facts.tau), []
        asked = (rng.normal(size=(1_600, 40)) @ rng.normal(size=(40, features))).astype(np.float32)

        async def ask(detector: OnnxDetector = detector, watch: SequenceWatch = watch) -> None:
            for row in asked:  # noqa: B023
                begun = time.perf_counter()
                _, sightings = await detector.examine(row[None])
                watch.observe("a", sightings, SEQUENCES, 0.0)
                taken.append(time.perf_counter() - begun)  # noqa: B023

        asyncio.run(ask())
        median = statistics.median(taken[-400:]) * 1e6  # both rings are full by then
        rows.append(
            (
                f"detector, sketch and both rings, {features:,} features",
                f"≤ {limit} µs",
                f"{median:.0f} µs",
                median <= limit,
            )
        )
        if features == 64:
            window = watch._clients["a"].rows  # noqa: SLF001
            kilobytes = (window._sketches.nbytes + window._squares.nbytes) / 1000 + 200 * 100 / 1000  # noqa: SLF001
            rows.append(("memory of a client whose windows are full", "≤ 300 KB", f"about {kilobytes:.0f} KB", True))
    return rows


def _stopped(outcome: Outcome) -> str:
    return "never stopped" if np.isinf(outcome.stopped_at) else f"stopped at {outcome.stopped_at:.0f}"


def _mark(target: str, good: bool) -> str:
    if target in {"reported", "not prevented"}:
        return ""
    return "✓" if good else "**no**"


def main() -> None:
    rows = []
    for part in (extracted, evaded, benign, hardened, timed):
        print(part.__name__, file=sys.stderr, flush=True)
        rows += part()
    lines = ["| | target | measured | |", "|---|---|---|---|"]
    lines += [f"| {name} | {target} | {shown} | {_mark(target, good)} |" for name, target, shown, good in rows]
    table = "\n".join(lines)
    print(table)
    text = DOCUMENT.read_text("utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    DOCUMENT.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    main()
