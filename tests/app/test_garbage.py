"""What nobody holds any more goes within seconds, however few objects it is: its weight may be the C library's."""

import json
import platform
import subprocess
import sys
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


_LARGE_BODIES = """
import asyncio, json, resource
from pathlib import Path
from proxy.app import garbage

def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

def four_bodies():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        held = [bytearray(10 << 20) for _ in range(4)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

async def main():
    garbage.settle_garbage()
    four_bodies()
    made, held = four_bodies(), pages()
    garbage._collect(asyncio.get_running_loop())
    print(json.dumps({"made": made, "given_back": held - pages()}))

asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told when to keep memory")
def test_the_pages_of_large_bodies_are_used_again_and_given_back_with_the_next_look() -> None:
    """Four bodies of 10 MiB have 10,240 pages: three times four of them must not make 30,720."""
    said = subprocess.run([sys.executable, "-c", _LARGE_BODIES], capture_output=True, text=True, check=True).stdout
    found = json.loads(said)
    assert found["made"] < 500
    assert found["given_back"] > 5_000
