"""Requests of one turn share a run of the detector, and nothing else."""

import asyncio

import numpy as np
import pytest

from proxy.adapters.batching import Batching, Results
from proxy.adapters.detector import OnnxDetector
from proxy.demo.digits import load_digits, scaled
from proxy.detection.fit import Subject, fit
from proxy.errors import DependencyFault
from proxy.exchange import Features
from proxy.reasons import Reason


class Runs:
    """A run whose statistic is the first number of a row; it remembers how many rows each had."""

    def __init__(self, fault: DependencyFault | None = None) -> None:
        self.rows: list[int] = []
        self._fault = fault

    def __call__(self, rows: Features) -> Results:
        self.rows.append(len(rows))
        if self._fault is not None:
            raise self._fault
        return rows[:, 0], rows


def row(*first: float) -> Features:
    return np.array([[one, 0.0] for one in first], np.float32)


async def test_a_turn_is_one_run_and_each_gets_its_own_rows() -> None:
    runs = Runs()
    batching = Batching(runs)
    found = await asyncio.gather(*(batching.run(rows) for rows in (row(1), row(2, 3), row(4))))
    assert runs.rows == [4]
    assert [statistics.tolist() for statistics, _ in found] == [[1], [2, 3], [4]]
    assert [sketches.tolist() for _, sketches in found] == [[[1, 0]], [[2, 0], [3, 0]], [[4, 0]]]
    await batching.run(row(5))
    assert runs.rows == [4, 1]


async def test_a_fault_is_everybodys() -> None:
    batching = Batching(Runs(DependencyFault(Reason.DETECTOR_FAILED)))
    found = await asyncio.gather(*(batching.run(row(one)) for one in (1, 2)), return_exceptions=True)
    assert [type(one) for one in found] == [DependencyFault, DependencyFault]


async def test_a_fault_of_any_kind_reaches_whoever_waits() -> None:
    def fails(rows: Features) -> Results:
        raise MemoryError

    async with asyncio.timeout(20):
        found = await asyncio.gather(*(Batching(fails).run(row(one)) for one in (1, 2)), return_exceptions=True)
    assert [type(one) for one in found] == [MemoryError, MemoryError]


async def test_who_left_disturbs_nobody() -> None:
    batching = Batching(Runs())
    gone, stays = (asyncio.ensure_future(batching.run(row(one))) for one in (1, 2))
    await asyncio.sleep(0)  # both wait now; the run comes at the end of this turn
    gone.cancel()
    statistics, _ = await stays
    assert statistics.tolist() == [2]
    assert gone.cancelled()


@pytest.fixture(scope="module")
def detector() -> OnnxDetector:
    return OnnxDetector(fit(scaled(load_digits().training), Subject("digits", ("digits",)), 0.01))


async def test_company_does_not_change_a_score(detector: OnnxDetector) -> None:
    digits = [scaled(load_digits().heldout[at : at + 1]) for at in range(16)]
    alone = [await detector.judge(digit) for digit in digits]
    together = await asyncio.gather(*map(detector.judge, digits))
    assert [score.p_value for score in together] == pytest.approx([score.p_value for score in alone])
    assert [score.statistic for score in together] == pytest.approx([score.statistic for score in alone], rel=1e-4)


async def test_a_statistic_that_is_no_number_fails_its_own_request(
    detector: OnnxDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(rows: Features) -> Results:
        statistics, sketches = detector._run(rows)
        statistics[0] = np.nan
        return statistics, sketches

    monkeypatch.setattr(detector, "_batching", Batching(broken))
    digits = [scaled(load_digits().heldout[at : at + 1]) for at in range(3)]
    first, *others = await asyncio.gather(*map(detector.judge, digits), return_exceptions=True)
    assert isinstance(first, DependencyFault)
    assert not any(isinstance(other, BaseException) for other in others)
