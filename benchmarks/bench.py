"""`make bench`: hip with all its protections beside its peers, in one run, on one pinned core each.

    python -m benchmarks.bench [--quick] [--only TEXT]... [--contender NAME]... [--json FILE] [--write]

One command sets up everything: an upstream with canned answers, nine variants of `hip serve`, nginx, Envoy, a bare
Starlette proxy, LiteLLM. Rounds are interleaved; the table gives medians, and ratios within a round. What a contender
cannot answer yet is in the table as such.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.lab.cases import Case, cases
from benchmarks.lab.contenders import CONTENDERS, HIP, Contender
from benchmarks.lab.measure import Entry, Table, measure
from benchmarks.lab.plot import bars
from benchmarks.lab.price import price_list
from benchmarks.lab.process import Started
from benchmarks.lab.report import Run, as_json, between_markers, markdown
from benchmarks.lab.setting import Setting, make_setting
from benchmarks.lab.targets import CHAT, SMALL_32, outcomes

ROOT = Path(__file__).resolve().parent.parent
PAGE, PLOT = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg"
FULL, QUICK = (5, 3), (3, 1)  # rounds, seconds of one measurement
QUICK_CONTENDERS = (HIP, "hip, bare", "nginx", "envoy", "starlette+httpx", "litellm")
DIRECT = Contender("direct", "no gateway", lambda setting: setting.upstream.streaming, tls=False, tokens=False)


def main() -> None:
    """Measure, and say it."""
    options = _options()
    rounds, seconds = QUICK if options.quick else FULL
    chosen = [case for case in cases() if (case.quick or not options.quick or options.only)]
    if options.only:
        chosen = [case for case in chosen if any(text in case.name for text in options.only)]
    names = options.contender or (QUICK_CONTENDERS if options.quick else tuple(CONTENDERS))
    load_before = os.getloadavg()[0]
    directory = Path(tempfile.mkdtemp(prefix="hip-bench-"))
    directory.chmod(0o711)  # nginx gives up root, and must reach its files
    try:
        with ExitStack() as stack:
            setting = make_setting(directory, ROOT)
            stack.callback(setting.upstream.stop)
            entries = _start(setting, names, stack)
            table = measure(setting, entries, chosen, rounds, seconds, _tell)
            table |= _direct(setting, chosen, rounds, seconds, table)
            stages = {} if options.only else price_list(setting)
    finally:
        shutil.rmtree(directory)
    command = " ".join(["make bench-quick" if options.quick else "make bench", *(f"ONLY={o!r}" for o in options.only)])
    run = Run(table, stages, outcomes(table), command, rounds, seconds, load_before)
    text = markdown(run, chosen, PLOT.name)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(as_json(run), indent=1))
    if options.write:
        between_markers(PAGE, text)
        PLOT.write_text(_plot(table))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two minutes: fewer cases, contenders and rounds")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="cases whose name holds this")
    parser.add_argument("--contender", action="append", choices=list(CONTENDERS), help="only these")
    parser.add_argument("--json", type=Path, help="write every sample here")
    parser.add_argument("--write", action="store_true", help=f"put the result into {PAGE.name}, and the plot beside it")
    return parser.parse_args()


def _start(setting: Setting, names: Sequence[str], stack: ExitStack) -> list[Entry]:
    entries = []
    for name in names:
        _tell(f"starting {name}")
        server: Started = CONTENDERS[name].start(setting)
        stack.callback(server.stop)
        entries.append(Entry(CONTENDERS[name], server))
    return entries


def _direct(setting: Setting, chosen: Sequence[Case], rounds: int, seconds: float, table: Table) -> Table:
    """Streams have a row without any gateway: what the laboratory itself costs."""
    streams = [case for case in chosen if case.headers.get("accept") == "text/event-stream"]
    found = measure(setting, [Entry(DIRECT, setting.upstream.streaming)], streams, rounds, seconds, _tell)
    return {name: table[name] | cells for name, cells in found.items()}


def _plot(table: Table) -> str:
    found = {name: cell.rate for name, cell in table.get(SMALL_32, {}).items() if cell.samples}
    found |= {
        f"{name} (chat)": cell.rate for name, cell in table.get(CHAT, {}).items() if name == "litellm" and cell.samples
    }
    return bars("Requests per second on one core, small JSON, 32 connections", found, HIP)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
