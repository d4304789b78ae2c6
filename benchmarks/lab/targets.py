"""The targets of the product, each as a figure of one run: reached, missed, or not measured."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.lab.contenders import HIP
from benchmarks.lab.measure import Cell, Sample, Table, ratios

SMALL_1, SMALL_32 = "small JSON, 1 connection", "small JSON, 32 connections"
HALF, CHAT = "small JSON, half of capacity", "chat completion, 32 connections"
LARGE, EVENTS = "10 MB binary tensor, 4 connections", "chat stream, 8 connections"
LARGE_MIB = 10.0  # MiB of the large body
LARGE_IN_FLIGHT = 4  # its connections


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target and what became of it."""

    target: str
    wanted: str
    figure: str
    verdict: str  # "reached", "missed", or empty


def outcomes(table: Table) -> list[Outcome]:
    """Return one line for each target."""
    return list(_outcomes(table))


def _outcomes(table: Table) -> Iterator[Outcome]:
    small, one = table.get(SMALL_32, {}), table.get(SMALL_1, {})
    yield _at_least("throughput against Envoy", 0.5, _over(small, small, "envoy"))
    chat = table.get(CHAT, {})
    ours = chat if _sampled(chat, HIP) else small
    yield _at_least("throughput against LiteLLM (its chat, ours)", 40, _over(ours, chat, "litellm"))
    yield _at_least("throughput against bare Starlette + httpx", 10, _over(small, small, "starlette+httpx"))
    added = _both(one, "nginx", lambda ours, theirs: ours - theirs, lambda sample: sample.heard.p50_ms)
    yield _at_most("median latency added to nginx's, 1 connection, ms", 0.5, added)
    yield _at_most("p99 at half of capacity over the median there", 3, _tail(table.get(HALF, {})))
    large = table.get(LARGE, {})
    yield _at_least("10 MB binary tensor, throughput against nginx", 0.3, _over(large, large, "nginx"))
    yield _at_most("10 MB binary tensor, memory over the bodies in flight", 3, _swell(large, small))
    events = table.get(EVENTS, {})
    first = _both(events, "direct", lambda ours, theirs: ours - theirs, lambda sample: sample.heard.first_ms or 0.0)
    yield _at_most("first event of a stream, ms later than direct", 1, first)
    each = _both(events, "direct", lambda ours, theirs: ours - theirs, lambda sample: sample.heard.p50_ms)
    yield _at_most("each event of a stream, ms later than direct", 0.1, each)
    memory = _at_rest(small) if _sampled(small, HIP) else None
    yield _at_most("memory of a worker with one detector, MiB", 160, memory)
    growth = ratios(small, "hip, 1000 rules", lambda sample: sample.cpu_us)
    yield _at_most("CPU per request with 1,000 rules over 2 rules", 1.1, growth[0] if growth else None)


def _sampled(cells: Mapping[str, Cell], name: str) -> bool:
    return name in cells and bool(cells[name].samples)


def _over(ours: Mapping[str, Cell], theirs: Mapping[str, Cell], name: str) -> float | None:
    if not (_sampled(ours, HIP) and _sampled(theirs, name)):
        return None
    return ours[HIP].rate / theirs[name].rate


def _both(
    cells: Mapping[str, Cell], name: str, act: Callable[[float, float], float], of: Callable[[Sample], float]
) -> float | None:
    if not (_sampled(cells, HIP) and _sampled(cells, name)):
        return None
    return act(cells[HIP].median(of), cells[name].median(of))


def _tail(cells: Mapping[str, Cell]) -> float | None:
    if not _sampled(cells, HIP):
        return None
    return cells[HIP].median(lambda sample: sample.heard.p99_ms / sample.heard.p50_ms)


def _swell(large: Mapping[str, Cell], small: Mapping[str, Cell]) -> float | None:
    if not (_sampled(large, HIP) and _sampled(small, HIP)):
        return None
    most = max(sample.peak_mib for sample in large[HIP].samples)
    return (most - _at_rest(small)) / (LARGE_MIB * LARGE_IN_FLIGHT)


def _at_rest(small: Mapping[str, Cell]) -> float:
    """Return the memory before anything large was asked: a heap that has grown stays, and is used again."""
    return small[HIP].samples[0].resident_mib


def _at_least(target: str, bound: float, figure: float | None) -> Outcome:
    return _outcome(target, f"at least {bound:g}", figure, reached=figure is not None and figure >= bound)


def _at_most(target: str, bound: float, figure: float | None) -> Outcome:
    return _outcome(target, f"at most {bound:g}", figure, reached=figure is not None and figure <= bound)


def _outcome(target: str, wanted: str, figure: float | None, *, reached: bool) -> Outcome:
    if figure is None:
        return Outcome(target, wanted, "not measured", "")
    return Outcome(target, wanted, f"{figure:.2f}", "reached" if reached else "missed")
