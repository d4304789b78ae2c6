"""Attacks that move an input until the answer changes, and move it as little as they can.

Reduced to their query pattern: who asks like that is what a defence sees. Each returns how far its best input lies
from the one it began with (L2); with no answer at all that is another ordinary input of another label.
"""

from collections.abc import AsyncIterator

import numpy as np

from proxy.simulate.knowledge import Knowledge
from proxy.simulate.session import Rows, Session, StoppedError

HALVINGS = 10
DIRECTIONS = 20  # of the first gradient estimate in HopSkipJump
TURNS = 5
COORDINATES = 16  # asked for one step of ZOO
DIFFERENCE = 1e-2  # of the range: two decimals do not hide it
CLIMB = 0.4  # of the range: a step of ZOO
WALK = 0.1  # of the distance: the first step of the boundary attack, sideways and inwards
SHRINK = 0.8  # of a step of it that failed


async def hop_skip_jump(session: Session, known: Knowledge, rng: np.random.Generator) -> float:
    """Halve to the boundary, estimate its normal from signs, jump (Chen, Jordan, Wainwright 2020)."""
    return await _nearest(session, known, rng, _hop_skip_jump)


async def boundary(session: Session, known: Knowledge, rng: np.random.Generator) -> float:
    """A random walk along the boundary, always on the other side of it (Brendel, Rauber, Bethge 2018)."""
    return await _nearest(session, known, rng, _boundary)


async def zoo(session: Session, known: Knowledge, rng: np.random.Generator) -> float:
    """Finite differences of the scores, coordinate by coordinate (Chen et al. 2017), then back to the boundary."""
    return await _nearest(session, known, rng, _zoo)


async def _nearest(session: Session, known: Knowledge, rng: np.random.Generator, attack) -> float:  # type: ignore[no-untyped-def]
    """Run an attack on a random input, until it is stopped, and return the distance that it came to."""
    number = int(rng.integers(len(known.own)))
    start = known.own[number]
    order = np.linalg.norm(known.own - start, axis=1).argsort()
    if known.own_labels is not None:
        order = order[known.own_labels[order] != known.own_labels[number]]
    best = float("nan")
    try:
        label = int((await session.ask(start[None]))[0].argmax())
        other = None
        for candidate in known.own[order[len(order) // 4 :]]:
            if int((await session.ask(candidate[None]))[0].argmax()) != label:
                other = candidate
                break
        if other is None:
            return best
        best = float(np.linalg.norm(other - start))
        async for found in attack(session, known, rng, start, other, label):
            best = min(best, float(np.linalg.norm(found - start)))
    except StoppedError:
        pass
    return best


async def _hop_skip_jump(
    session: Session, known: Knowledge, rng: np.random.Generator, start: Rows, other: Rows, label: int
) -> AsyncIterator[Rows]:
    low, high = known.own.min(axis=0), known.own.max(axis=0)
    for turn in range(1, TURNS + 1):
        near, far = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            if await _is(session, start * (1 - middle) + other * middle, label):
                near = middle
            else:
                far = middle
        other = start * (1 - far) + other * far
        yield other
        apart = float(np.linalg.norm(start - other))
        directions = rng.normal(size=(int(DIRECTIONS * turn**0.5), len(start)))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        probes = np.clip(other + apart / len(start) * directions, low, high)
        signs = np.where((await session.ask(probes)).argmax(axis=1) == label, -1.0, 1.0)
        normal = ((signs - signs.mean())[:, None] * directions).mean(axis=0)
        normal /= np.linalg.norm(normal) + 1e-12
        jump = apart / turn**0.5
        while jump > 1e-3 * apart:
            probe = np.clip(other + jump * normal, low, high)
            if not await _is(session, probe, label):
                other = probe
                break
            jump /= 2


async def _boundary(
    session: Session, known: Knowledge, rng: np.random.Generator, start: Rows, other: Rows, label: int
) -> AsyncIterator[Rows]:
    """Sideways and inwards are two questions with a step size each, adapted to how often they succeed."""
    low, high, sideways, inwards = known.own.min(axis=0), known.own.max(axis=0), WALK, WALK
    while True:
        apart = float(np.linalg.norm(start - other))
        side = rng.normal(size=len(start))
        side -= (side @ (start - other)) / apart**2 * (start - other)
        side *= sideways * apart / np.linalg.norm(side)
        probe = other + side
        probe = np.clip(start + (probe - start) * apart / np.linalg.norm(probe - start), low, high)  # onto the sphere
        if await _is(session, probe, label):
            sideways *= SHRINK
            continue
        other, sideways = probe, min(sideways / SHRINK, 1.0)
        yield other
        probe = other + inwards * (start - other)
        if await _is(session, probe, label):
            inwards *= SHRINK
        else:
            other, inwards = probe, min(inwards / SHRINK, 0.5)
            yield other


async def _zoo(
    session: Session, known: Knowledge, rng: np.random.Generator, start: Rows, _: Rows, label: int
) -> AsyncIterator[Rows]:
    low, high = known.own.min(axis=0), known.own.max(axis=0)
    reach, row = np.where(high > low, high - low, 1.0), start
    while True:
        chosen = rng.permutation(len(start))[:COORDINATES]
        steps = np.zeros((len(chosen), len(start)))
        steps[np.arange(len(chosen)), chosen] = DIFFERENCE * reach[chosen]
        scores = await session.ask(np.vstack([row + steps, row - steps]))
        margin = scores[:, label] - np.delete(scores, label, axis=1).max(axis=1)
        slope = np.zeros(len(start))
        slope[chosen] = margin[: len(chosen)] - margin[len(chosen) :]
        length = float(np.linalg.norm(slope))
        if length:
            row = np.clip(row - CLIMB * reach * slope / length, low, high)
        if not await _is(session, row, label):
            yield row
            break
    near, far = 0.0, 1.0
    for _turn in range(HALVINGS):  # the climb went past the boundary: back to it
        middle = (near + far) / 2
        if await _is(session, start * (1 - middle) + row * middle, label):
            near = middle
        else:
            far = middle
    yield start * (1 - far) + row * far


async def _is(session: Session, row: Rows, label: int) -> bool:
    return int((await session.ask(row[None]))[0].argmax()) == label
