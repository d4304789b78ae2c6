"""Interleaved rounds: every contender answers every case once a round, in a turning order.

What a table shows are medians over rounds; a ratio is taken within one round, where the machine was the same, and its
spread over the rounds stands beside it.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.lab.cases import Case, Load
from benchmarks.lab.contenders import HIP, Contender
from benchmarks.lab.load import Heard, NotYet, Plan, plan, probe, run
from benchmarks.lab.process import Others, Started, cpu_seconds, forget_peak, peak_resident_mib, resident_mib
from benchmarks.lab.setting import Setting

WARM_UP = 0.5  # seconds of the case before its first measurement
MAX_RATE = 2_000.0  # a second: what our own client asks without being late itself
BUSY = 0.15  # cores that others may use before a measurement is marked
IDLE, LOOK_SECONDS, IDLE_SECONDS = 0.05, 0.2, 30.0  # cores; between two looks; that nobody waits longer for


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement."""

    heard: Heard
    cpu_us: float  # of the contender, per request
    resident_mib: float
    peak_mib: float
    others: float  # cores that somebody else used meanwhile

    def row(self) -> dict[str, object]:
        """Return what goes into the JSON report."""
        return asdict(self)


@dataclass(slots=True)
class Cell:
    """A contender in a case: its samples, or why there are none."""

    samples: list[Sample] = field(default_factory=list)
    missing: str = ""

    def median(self, of: Callable[[Sample], float]) -> float:
        return statistics.median(map(of, self.samples))

    @property
    def rate(self) -> float:
        return self.median(lambda sample: sample.heard.rate)


Table = dict[str, dict[str, Cell]]  # case, contender


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender that runs."""

    contender: Contender
    server: Started


def measure(
    setting: Setting,
    entries: Sequence[Entry],
    cases: Sequence[Case],
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> Table:
    """Run every case against everyone who can be asked it."""
    table: Table = {case.name: {entry.contender.name: Cell() for entry in _asked(entries, case)} for case in cases}
    plans: dict[tuple[str, str], Plan] = {}
    for turn in range(rounds):
        for case in cases:
            asked = _asked(entries, case)
            if not asked:
                continue
            at = turn % len(asked)
            for entry in (*asked[at:], *asked[:at]):
                cell, key = table[case.name][entry.contender.name], (case.name, entry.contender.name)
                if cell.missing:
                    continue
                try:
                    if key not in plans:
                        plans[key] = plan(setting, entry.contender, entry.server.port, case)
                        probe(plans[key])
                    cell.samples.append(_sample(plans[key], entry, seconds, table, warm=not cell.samples))
                except NotYet as reason:
                    cell.missing, cell.samples = str(reason), []
                tell(_line(turn, case, entry, cell))
    return table


def _asked(entries: Sequence[Entry], case: Case) -> list[Entry]:
    found = []
    for entry in entries:
        contender = entry.contender
        variant = contender.name.startswith(f"{HIP},")
        if (
            case.family not in contender.families
            or (variant and not case.every_variant)
            or (case.needs_tokens and not contender.tokens)
            or (case.load is Load.HANDSHAKES and not contender.tls)
        ):
            continue
        found.append(entry)
    return found


def _sample(asked: Plan, entry: Entry, seconds: float, table: Table, *, warm: bool) -> Sample:
    case, pid = asked.case, entry.server.process.pid
    rate = 0.0
    if case.load is Load.PACED:
        rate = min(case.share * _capacity(table, entry), MAX_RATE)
    if warm:
        run(asked, WARM_UP if case.load is Load.PACED else 1, rate)
    forget_peak(pid)
    others, before = Others(), cpu_seconds(pid)
    heard = run(asked, seconds, rate)
    spent, by_others = cpu_seconds(pid) - before, others.cores()
    _settle(pid)
    if not heard.requests:
        raise NotYet("answers nothing within", seconds, "s")
    return Sample(heard, spent / heard.requests * 1e6, resident_mib(pid), peak_resident_mib(pid), by_others)


def _settle(pid: int) -> None:
    """Wait until a contender has done with what nobody waits for any more: the next one shares its core."""
    until = time.monotonic() + IDLE_SECONDS
    while time.monotonic() < until:
        before = cpu_seconds(pid)
        time.sleep(LOOK_SECONDS)
        if cpu_seconds(pid) - before <= IDLE * LOOK_SECONDS:
            return


def _capacity(table: Table, entry: Entry) -> float:
    """Return the contender's own throughput at 32 connections, measured before."""
    cell = next(
        (cells[entry.contender.name] for name, cells in table.items() if name == "small JSON, 32 connections"), None
    )
    if cell is None or not cell.samples:
        raise NotYet("needs the case `small JSON, 32 connections` in the same run")
    return cell.rate


def _line(turn: int, case: Case, entry: Entry, cell: Cell) -> str:
    head = f"round {turn + 1}  {case.name:<34} {entry.contender.name:<18}"
    if not cell.samples:
        return f"{head} not yet: {cell.missing}"
    last = cell.samples[-1]
    marked = f"  ! others used {last.others:.1f} cores" if last.others > BUSY else ""
    return f"{head} {last.heard.rate:>9.0f}/s  {last.heard.p50_ms:>8.3f} ms  {last.cpu_us:>7.0f} us CPU{marked}"


def ratios(cells: Mapping[str, Cell], name: str, of: Callable[[Sample], float]) -> tuple[float, float, float] | None:
    """Return median, least and greatest of `name` over hip, round by round."""
    ours, theirs = cells.get(HIP), cells.get(name)
    if ours is None or theirs is None or not ours.samples or not theirs.samples:
        return None
    found = sorted(of(their) / of(our) for our, their in zip(ours.samples, theirs.samples, strict=False) if of(our))
    return (statistics.median(found), found[0], found[-1]) if found else None


def quietness(table: Table) -> tuple[int, int]:
    """Return how many measurements somebody else disturbed, and how many there were."""
    samples = list(_samples(table))
    return sum(sample.others > BUSY for sample in samples), len(samples)


def _samples(table: Table) -> Iterator[Sample]:
    for cells in table.values():
        for cell in cells.values():
            yield from cell.samples
