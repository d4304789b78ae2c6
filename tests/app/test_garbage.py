"""What nobody holds any more goes within seconds, however few objects it is: its weight may be the C library's."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest

from proxy.app.garbage import EVERY_SECONDS, _collect


class Turn:
    """A loop that only notes what should come later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, seconds: float, what: Callable[..., None], *arguments: Any) -> None:
        self.later.append((seconds, what, arguments))


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize(("seconds", "later"), [(0.001, EVERY_SECONDS), (0.25, 25.0)], ids=["short", "long"])
def test_a_cycle_of_one_is_found_and_the_next_look_is_due(seconds: float, later: float) -> None:
    """A look that takes long comes seldom: while it lasts, nobody is served."""
    loop, gone = Turn(), weakref.ref(Cycle())
    clock = iter((7.0, 7.0 + seconds)).__next__
    _collect(loop, clock)  # type: ignore[arg-type]
    assert gone() is None
    assert loop.later == [(later, _collect, (loop, clock))]
