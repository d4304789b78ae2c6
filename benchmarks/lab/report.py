"""The result as a table in Markdown, as JSON, and between the markers of docs/performance.md."""

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab.cases import Case, Load
from benchmarks.lab.contenders import CONTENDERS, HIP
from benchmarks.lab.measure import BUSY, Cell, Table, quietness, ratios
from benchmarks.lab.targets import Outcome

BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured, where and when."""

    table: Table
    stages: Mapping[str, Mapping[str, float]]
    outcomes: Sequence[Outcome]
    command: str
    rounds: int
    seconds: float
    load_before: float

    def shape(self) -> dict[str, object]:
        """Return the machine and the day."""
        disturbed, measured = quietness(self.table)
        return {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load_before": round(self.load_before, 2),
            "measurements": measured,
            "disturbed": disturbed,
        }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def as_json(run: Run) -> dict[str, object]:
    """Return everything, samples included."""
    return {
        **run.shape(),
        "command": run.command,
        "rounds": run.rounds,
        "seconds": run.seconds,
        "cases": {
            case: {
                name: {"missing": cell.missing} if cell.missing else [sample.row() for sample in cell.samples]
                for name, cell in cells.items()
            }
            for case, cells in run.table.items()
        },
        "stages": run.stages,
        "targets": [{"target": each.target, "wanted": each.wanted, "reached": each.figure} for each in run.outcomes],
    }


def markdown(run: Run, cases: Sequence[Case], plot: str) -> str:
    """Return the whole result for people."""
    shape = run.shape()
    where = f"{shape['cores']} cores of {shape['processor']} ({shape['machine']}), Python {shape['python']}"
    how = f"{run.rounds} rounds of {run.seconds:g} s a measurement, load average {shape['load_before']} before the run"
    lines = [f"`{run.command}` on {shape['date']}: {where}, {how}.", ""]
    if shape["disturbed"]:
        share = f"in {shape['disturbed']} of {shape['measurements']} measurements somebody else used over {BUSY} cores"
        lines += [f"**Not a quiet machine**: {share}. Trust the CPU column and the ratios more than the rates.", ""]
    lines += [f"![Requests per second beside the peers]({plot})", "", "### Targets", "", *_targets(run.outcomes), ""]
    lines += ["### Cases", ""]
    for case in cases:
        lines += [f"#### {case.name}", "", *_case(case, run.table[case.name]), ""]
    if run.stages:
        lines += ["### Where the time goes", "", *_stages(run.stages), ""]
    return "\n".join(lines)


def _targets(outcomes: Sequence[Outcome]) -> list[str]:
    rows = [f"| {each.target} | {each.wanted} | {each.figure} | {each.verdict} |" for each in outcomes]
    return ["| target | wanted | measured | |", "|---|---|---|---|", *rows]


def _case(case: Case, cells: Mapping[str, Cell]) -> list[str]:
    events = case.load is Load.EVENTS
    rate, times = ("events/s", "event p50 / p99") if events else ("requests/s", "p50 / p99")
    head = f"| | does | {rate} | ratio to hip (spread) | {times} ms | CPU us | memory MiB |"
    rows = [head, "|---|---|--:|--:|--:|--:|--:|"]
    for name, cell in cells.items():
        does = CONTENDERS[name].does if name in CONTENDERS else "no gateway"
        if not cell.samples:
            rows.append(f"| {name} | {does} | not yet: {cell.missing} | | | | |")
            continue
        ratio = ratios(cells, name, lambda sample: sample.heard.rate)
        shown = "" if ratio is None or name == HIP else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
        times = f"{cell.median(lambda s: s.heard.p50_ms):.3f} / {cell.median(lambda s: s.heard.p99_ms):.3f}"
        if events:
            times += f", first {cell.median(lambda s: s.heard.first_ms or 0.0):.3f}"
        rows.append(
            f"| {name} | {does} | {cell.rate:,.0f} | {shown} | {times} | "
            f"{cell.median(lambda s: s.cpu_us):,.0f} | {cell.median(lambda s: s.resident_mib):,.0f} |"
        )
    return rows


def _stages(stages: Mapping[str, Mapping[str, float]]) -> list[str]:
    rows = ["| stage | p50 us | p99 us |", "|---|--:|--:|"]
    return rows + [f"| {name} | {found['p50']:.1f} | {found['p99']:.1f} |" for name, found in stages.items()]


def between_markers(path: Path, text: str) -> None:
    """Put the result where the last one stood."""
    page = path.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        print(f"{path} has no markers {BEGIN} … {END}", file=sys.stderr)
        raise SystemExit(1)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
