"""Attacks that copy a model. Each asks until it is stopped; the copy is made of whatever was answered."""

from collections.abc import Awaitable, Callable
from itertools import islice

import numpy as np

from proxy.simulate.copying import Copy, copy_of
from proxy.simulate.knowledge import Knowledge, own_detector
from proxy.simulate.session import Rows, Scores, Session

Ask = Callable[[Rows], Awaitable[Scores]]

HALVINGS = 16  # of one line between two inputs: the step is then smaller than a rounded score can tell
REPEATS = 5
COVER = 9  # ordinary queries for each of the attack, when it hides
SEEDS = 20
STEP = 0.1  # of the range, in Jacobian augmentation
LIGHT = 0.3  # of the second input, at most, in a mixture of the adaptive attacker
COVER_OF_MIXTURES = 2  # ordinary queries for each of them: fewer than 8 of 50 then look strange
TRIES = 200  # candidates in a row that fail, before the adaptive attacker gives up


async def equation_solving(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """Without any data: as many random inputs as the model has unknowns in a class (Tramèr et al. 2016)."""
    await session.ask(known.uniform(known.features + 1, rng))


async def random_noise(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """Without any data: ten times as many."""
    await session.ask(known.uniform(10 * (known.features + 1), rng))


async def natural(session: Session, known: Knowledge, _: np.random.Generator) -> None:
    """The attacker's own ordinary inputs, which nothing tells from a customer's."""
    await session.ask(known.own)


async def mixup(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """Mixtures of two of its own inputs."""
    share = rng.uniform(0.3, 0.7, (len(known.own), 1))
    await session.ask(known.own * share + known.natural(len(known.own), rng) * (1 - share))


async def averaging(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """The same inputs again and again, to average noise away: the same query has the same answer, so it is in vain."""
    await session.ask(np.repeat(known.natural(len(known.own) // REPEATS, rng), REPEATS, axis=0))


async def bisection(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """Halve the line between two inputs of different labels, again and again: the boundary needs no scores."""
    await _bisect(session.ask, known, rng)


async def diluted(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """Bisection, each query behind nine ordinary ones."""

    async def behind_cover(rows: Rows) -> Scores:
        await session.ask(known.natural(COVER * len(rows), rng))
        return await session.ask(rows)

    await _bisect(behind_cover, known, rng)


async def _bisect(ask: Ask, known: Knowledge, rng: np.random.Generator) -> None:
    while True:
        start, other = known.natural(2, rng)
        label, different = (await ask(np.stack([start, other]))).argmax(axis=1)
        if label == different:
            continue
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            said = (await ask((start * (1 - middle) + other * middle)[None])).argmax()
            low, high = (middle, high) if said == label else (low, middle)


async def jacobian(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """Inputs moved along the gradient of the copy so far (Papernot et al. 2017)."""
    await session.ask(known.natural(SEEDS, rng))
    reach = STEP * (known.own.max(axis=0) - known.own.min(axis=0))
    while True:
        rows, scores = session.received()
        copy = copy_of(rows, scores)
        base = rows[rng.integers(len(rows), size=SEEDS)]
        await session.ask(np.clip(base + reach * np.sign(_gradient(copy, base)), known.own.min(0), known.own.max(0)))


async def adaptive(session: Session, known: Knowledge, rng: np.random.Generator) -> None:
    """Knows our defences: light mixtures that its own detector passes, on the grid, apart, under cover."""
    detector = own_detector(known.own)
    if detector is None:
        return
    cover = iter(known.own[rng.permutation(len(known.own))])
    missed = 0
    while missed < TRIES:
        first, second = known.natural(2, rng)
        share = rng.uniform(0, LIGHT)
        row = detector.on_grid(first * (1 - share) + second * share)
        if not detector.passes(row):
            missed += 1
            continue
        missed = 0
        await session.ask(np.vstack([*islice(cover, COVER_OF_MIXTURES), row]))


def _gradient(copy: Copy, rows: Rows) -> Rows:
    """Return the direction in which the copy's answer to each row grows."""
    chosen: Rows = copy.weights[:-1, copy.labels(rows)].T * copy.scale
    return chosen
