"""What nobody holds any more goes within seconds, however few objects it is: its weight may be the C library's."""

import weakref
from collections.abc import Callable
from typing import Any

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


def test_a_cycle_of_one_is_found_and_the_next_look_is_due() -> None:
    loop, gone = Turn(), weakref.ref(Cycle())
    _collect(loop)  # type: ignore[arg-type]
    assert gone() is None
    assert loop.later == [(EVERY_SECONDS, _collect, (loop,))]
