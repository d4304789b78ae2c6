"""Every attack against both sides, one row each. What an attacker comes to is compared with what it had without asking.

`lift` is the fidelity beyond the no-query baseline: the copy that the attacker trains on its own labelled inputs, or,
without any, the best constant guess. The three rows that look bad (natural data, adaptive, colluding) always run.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from proxy.simulate import evasion, extraction, privacy
from proxy.simulate.copying import copy_of, fidelity
from proxy.simulate.knowledge import Knowledge
from proxy.simulate.session import Session, Stop, StoppedError, Target

COLLUDERS = 20
SEED = 7

Extract = Callable[[Session, Knowledge, np.random.Generator], Awaitable[None]]
Measure = Callable[[Session, Knowledge, np.random.Generator], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Attack:
    """`metric` says what `result` is. `queries`: how many, at most, in a full run and in a quick one."""

    name: str
    metric: str
    run: Extract | Measure
    queries: tuple[int, int]
    callers: int = 1
    data: bool = True  # the attacker has ordinary inputs of its own
    bad: bool = False  # a row that defences do little about: shown however it looks


# Ordinary-looking attacks first: they leave nothing behind that others could lie near to.
ATTACKS: tuple[Attack, ...] = (
    Attack("natural data", "fidelity", extraction.natural, (500, 200), bad=True),
    Attack("averaging of repeats", "fidelity", extraction.averaging, (400, 100)),
    Attack("membership inference", "AUC", privacy.membership, (500, 200)),
    Attack("adaptive, spaced", "fidelity", extraction.adaptive, (500, 150), bad=True),
    Attack("mixup", "fidelity", extraction.mixup, (500, 150)),
    Attack("equation solving", "fidelity", extraction.equation_solving, (1_000, 500), data=False),
    Attack("random noise", "fidelity", extraction.random_noise, (3_000, 650), data=False),
    Attack("Jacobian augmentation", "fidelity", extraction.jacobian, (500, 160)),
    Attack("bisection", "fidelity", extraction.bisection, (1_000, 300)),
    Attack("bisection, diluted 1:9", "fidelity", extraction.diluted, (1_000, 500)),
    Attack("20 colluding clients", "fidelity", extraction.bisection, (1_080, 400), callers=COLLUDERS, bad=True),
    Attack("20 colluding, no data", "fidelity", extraction.random_noise, (3_000, 650), callers=COLLUDERS, data=False),
    Attack("HopSkipJump", "L2", evasion.hop_skip_jump, (500, 200)),
    Attack("boundary", "L2", evasion.boundary, (500, 200)),
    Attack("ZOO", "L2", evasion.zoo, (1_000, 300)),
    Attack("inversion", "likeness", privacy.inversion, (3_000, 700), data=False),
)


@dataclass(frozen=True, slots=True)
class Side:
    """What an attack came to. `result` None: nothing was answered that it could use."""

    answers: int
    asked: int
    result: float | None
    lift: float | None
    stopped_at: int | None
    stopped_by: Stop | None


@dataclass(frozen=True, slots=True)
class Row:
    """One attack, without the defences (None: nobody could ask there) and with them."""

    attack: Attack
    baseline: float | None
    undefended: Side | None
    defended: Side


async def campaign(
    defended: Target,
    undefended: Target | None,
    known: Knowledge,
    *,
    quick: bool,
    attacks: Sequence[Attack] = ATTACKS,
    step: Callable[[str], None] = lambda _: None,
    first_caller: int = 0,
) -> list[Row]:
    """Run the attacks one after the other; each has callers of its own, that never asked before."""
    rows = []
    own, constant = _baselines(known)
    for number, attack in enumerate(attacks):
        baseline = None if attack.metric != "fidelity" else own if attack.data else constant
        sides = []
        for target in (undefended, defended):
            step(f"{attack.name}, {'defended' if target is defended else 'undefended'}")
            first = first_caller + number * COLLUDERS
            callers = list(range(first, first + attack.callers))
            session = Session(target, callers, attack.queries[quick]) if target is not None else None
            sides.append(await _side(session, attack, known, baseline) if session is not None else None)
        before, after = sides
        if after is not None:
            rows.append(Row(attack, baseline, before, after))
    return rows


async def _side(session: Session, attack: Attack, known: Knowledge, baseline: float | None) -> Side:
    rng = np.random.default_rng(SEED)
    result: float | None = None
    with contextlib.suppress(StoppedError):
        result = await attack.run(session, known, rng)
    if attack.metric == "fidelity":
        result = fidelity(copy_of(*session.received()), known.judged, known.truth) if session.answers else None
    if result is not None and np.isnan(result):
        result = None
    lift = None if result is None or baseline is None else result - baseline
    return Side(session.answers, session.asked, result, lift, session.stopped_at, session.stopped_by)


def _baselines(known: Knowledge) -> tuple[float, float]:
    constant = float(np.bincount(known.truth, minlength=known.classes).max() / len(known.truth))
    if known.own_labels is None:
        return constant, constant
    copied = copy_of(known.own, np.eye(known.classes)[known.own_labels])
    return fidelity(copied, known.judged, known.truth), constant
