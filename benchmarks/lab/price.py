"""The price list: microseconds per stage, from `hip serve --trace-stages` itself, at one connection.

At one connection no other request runs in the middle of a stage, so what a stage takes is what it costs; only
`upstream` and the records contain waiting.
"""

import json
import urllib.request
from collections.abc import Mapping

from benchmarks.lab.cases import cases
from benchmarks.lab.contenders import CONTENDERS, HIP
from benchmarks.lab.hip import Variant, start_hip
from benchmarks.lab.load import plan, probe, run
from benchmarks.lab.process import free_port
from benchmarks.lab.setting import Setting
from benchmarks.lab.targets import SMALL_1

SECONDS = 3


def price_list(setting: Setting) -> Mapping[str, Mapping[str, float]]:
    """Return what each stage took, in the order of the one way."""
    admin = free_port()
    server = start_hip(setting, "stages", Variant(stages=True), admin)
    try:
        case = next(case for case in cases() if case.name == SMALL_1)
        asked = plan(setting, CONTENDERS[HIP], server.port, case)
        probe(asked)
        run(asked, SECONDS)
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/stages") as answer:
            found: Mapping[str, Mapping[str, float]] = json.load(answer)
    finally:
        server.stop()
    return found
