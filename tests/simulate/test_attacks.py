"""The attacks against targets of which everything is known."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from proxy.simulate import extraction
from proxy.simulate.campaign import ATTACKS, campaign
from proxy.simulate.copying import copy_of, fidelity
from proxy.simulate.knowledge import Knowledge
from proxy.simulate.report import as_json, page
from proxy.simulate.session import Rows, Scores, Session, Stop, StoppedError

FEATURES, CLASSES = 6, 3
RNG = np.random.default_rng(1)
WEIGHTS = RNG.normal(size=(FEATURES + 1, CLASSES)) * 3
OWN = np.round(RNG.uniform(size=(400, FEATURES)), 2)


def scores(rows: Rows) -> Scores:
    logits = np.hstack([rows, np.ones((len(rows), 1))]) @ WEIGHTS
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass
class Simulated:
    """Answers `patience` rows of each caller."""

    patience: int = 1_000_000
    batch: int = 1
    label_only: bool = False
    asked: dict[int, int] = field(default_factory=dict)

    async def ask(self, caller: int, rows: Rows) -> Scores | Stop:
        self.asked[caller] = self.asked.get(caller, 0) + len(rows)
        if self.asked[caller] > self.patience:
            return Stop.REFUSED
        full = scores(rows)
        return np.eye(CLASSES)[full.argmax(axis=1)] if self.label_only else full


def known() -> Knowledge:
    own, judged = OWN[:200], OWN[200:]
    truth = scores(judged).argmax(axis=1)
    return Knowledge(own, scores(own).argmax(axis=1), judged, truth, CLASSES, members=OWN[:50])


async def test_equations_are_solved_exactly_from_full_scores() -> None:
    session, facts = Session(Simulated(), [0], 100), known()
    await extraction.equation_solving(session, facts, np.random.default_rng(0))
    assert session.answers == FEATURES + 1
    assert fidelity(copy_of(*session.received()), facts.judged, facts.truth) == 1.0


async def test_labels_alone_teach_less_but_teach() -> None:
    session, facts = Session(Simulated(label_only=True), [0], 1000), known()
    await extraction.random_noise(session, facts, np.random.default_rng(0))
    assert 0.6 < fidelity(copy_of(*session.received()), facts.judged, facts.truth) < 1.0


async def test_callers_take_turns_and_leave_when_they_are_stopped() -> None:
    target = Simulated(patience=3)
    session = Session(target, [10, 11], 100)
    with pytest.raises(StoppedError):
        await session.ask(OWN[:20])
    assert target.asked == {10: 4, 11: 4}
    assert (session.answers, session.stopped_at, session.stopped_by) == (6, 7, Stop.REFUSED)


async def test_the_limit_is_the_attackers_own_and_no_stop() -> None:
    session = Session(Simulated(batch=8), [0], 20)
    with pytest.raises(StoppedError):
        await session.ask(OWN[:30])
    assert (session.answers, session.stopped_at) == (20, None)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_every_attack_ends_whatever_the_target_does(attack) -> None:
    """It has a row for a target that answers all, one that stops soon, and one that never answers."""
    for patience in (1_000_000, 5, 0):
        (row,) = await campaign(Simulated(patience), Simulated(batch=64), known(), quick=True, attacks=[attack])
        assert row.undefended is not None
        assert row.undefended.answers <= attack.queries[1]
        assert row.defended.answers <= patience * attack.callers
        if patience == 0:
            assert row.defended.stopped_at == 1
            assert row.attack.metric != "fidelity" or row.defended.result is None


async def test_the_same_attack_asks_the_same_on_both_sides() -> None:
    """Undefended beside defended means nothing if luck differs."""
    for attack in ATTACKS:
        (row,) = await campaign(Simulated(), Simulated(), known(), quick=True, attacks=[attack])
        assert row.undefended == row.defended


async def test_reports_hold_every_row_and_nothing_that_a_browser_would_fetch() -> None:
    rows = await campaign(Simulated(5), None, known(), quick=True)
    told = as_json(rows, "<script>alert(1)</script>")
    assert [one["attack"] for one in told["attacks"]] == [attack.name for attack in ATTACKS]
    assert {one["attack"] for one in told["attacks"] if one["always_shown"]} == {
        "natural data",
        "adaptive, spaced",
        "20 colluding clients",
    }
    text = page(rows, "<script>alert(1)</script>")
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert all(attack.name in text for attack in ATTACKS)
