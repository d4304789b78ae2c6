"""Plots as inline SVG: stacked bars over time, falling budgets, histograms against a threshold.

Each has a title and a description for those who do not see it; the numbers stand in a table beside it.
"""

from datetime import UTC, datetime

from proxy.audit.report.markup import Child, Html, join, tag
from proxy.audit.report.style import SERIES

WIDTH, HEIGHT = 860, 240  # of a wide plot, in units of its own
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34  # margins
TICKS = 4  # on the upright axis
WIDEST = 44  # of a bar: few bars do not become walls
MOST_SHAPES = 60  # in a row of a strip; more of them are ticks
BRIEF = 600  # seconds: a shorter axis names seconds
LABELS = 6  # on the time axis


def definitions() -> Html:
    """Return the fills: each colour with a pattern of its own."""
    marks: tuple[tuple[Html, ...], ...] = (
        (),
        (tag("path", d="M-2 8L8 -2M4 14L14 4", class_="mark"),),
        (tag("circle", cx=5, cy=5, r=1.8, class_="dot"),),
        (tag("path", d="M0 5H10", class_="mark"),),
        (tag("path", d="M0 0L10 10M10 0L0 10", class_="mark"),),
        (tag("path", d="M5 0V10", class_="mark"),),
        (tag("path", d="M0 5H10M5 0V10", class_="mark"),),
    )
    patterns = [
        tag(
            "pattern",
            tag("rect", width=10, height=10, class_=f"s{at}"),
            *shapes,
            id=f"p{at}",
            width=10,
            height=10,
            patternUnits="userSpaceOnUse",
        )
        for at, shapes in enumerate(marks)
    ]
    return tag("svg", tag("defs", *patterns), class_="defs", aria_hidden="true")


def legend(names: list[str]) -> Html:
    """Return the key to the fills."""
    return tag("ul", *[tag("li", _swatch(at), name) for at, name in enumerate(names)], class_="legend")


def _swatch(at: int) -> Html:
    box = tag("rect", width=32, height=20, fill=f"url(#p{at % SERIES})")
    return tag("svg", box, class_="key", viewBox="0 0 32 20", aria_hidden="true")


def bars(title: str, names: list[str], steps: list[tuple[int, dict[str, int]]], step: int) -> Html:
    """Return stacked bars; `steps` are UNIX seconds with a number for each name."""
    top = _nice(max((sum(values.values()) for _, values in steps), default=1))
    room = WIDTH - LEFT - RIGHT
    width = room / max(1, len(steps))
    bar = min(width * 0.84, WIDEST)
    parts = [_frame(top, WIDTH, HEIGHT)]
    for at, (start, values) in enumerate(steps):
        y = float(HEIGHT - BOTTOM)
        for index, name in enumerate(names):
            number = values.get(name, 0)
            if not number:
                continue
            height = number / top * (HEIGHT - TOP - BOTTOM)
            y -= height
            parts.append(
                tag(
                    "rect",
                    tag("title", f"{name}: {number:,} from {moment(start)}"),
                    x=LEFT + (at + 0.5) * width - bar / 2,
                    y=y,
                    width=max(0.8, bar),
                    height=max(0.8, height),
                    fill=f"url(#p{index % SERIES})",
                )
            )
    parts.append(_times([start for start, _ in steps], step, LEFT, room))
    return _plot(title, f"Stacked bars, one for each {span(step)}; the highest axis mark is {top:,}.", parts)


def courses(budget: str, client: str, lines: list[tuple[str, list[tuple[int, int]], int]]) -> Html:
    """Return what was left of a budget's windows: (name, points of UNIX seconds and value, greatest value)."""
    title, (width, height) = f"{budget}, {client}", (420, 190)
    starts = [at for _, points, _ in lines for at, _ in points]
    first, last = min(starts, default=0), max(starts, default=1)
    room, tall = width - LEFT - RIGHT, height - TOP - BOTTOM
    parts = [_frame(100, width, height, "%")]
    for index, (name, points, greatest) in enumerate(lines[:3]):
        path: list[str] = []
        ends = (float(LEFT), float(TOP))
        for at, left in points:
            x = LEFT + (at - first) / max(1, last - first) * room
            y = TOP + (1 - left / max(1, greatest)) * tall
            path.append(f"{'L' if path else 'M'}{x:.1f} {y:.1f}")
            ends = (x, y)
        dashes = (None, "7 4", "2 4")[index]
        parts += [
            tag("path", tag("title", name), d="".join(path), class_=f"course l{index}", stroke_dasharray=dashes),
            _shape(index, *ends),
        ]
    words = _ends(first, last, LEFT, width - RIGHT, height - 12)
    shapes = ("●", "■", "▲")
    names = " ".join(f"{shapes[index]} {name}" for index, (name, _, _) in enumerate(lines[:3]))
    figure = _plot(
        title,
        "What was left of each window, in per cent of the most that was ever left.",
        [*parts, *words],
        (width, height),
    )
    return tag("figure", tag("figcaption", tag("b", budget), tag("code", client), names), figure)


def _shape(index: int, x: float, y: float) -> Html:
    kind = f"s{(0, 3, 2)[index]}"
    if index == 0:
        return tag("circle", cx=x, cy=y, r=5, class_=kind)
    if index == 1:
        return tag("rect", x=x - 5, y=y - 5, width=10, height=10, class_=kind)
    return tag("path", d=f"M{x:.1f} {y - 6:.1f}l6 11h-12z", class_=kind)


def histogram(title: str, bins: list[int], bin_width: float) -> Html:
    """Return a histogram of statistic ÷ threshold; what reaches the threshold at 1 has the other fill."""
    width, height = 420, 190
    top = _nice(max(bins))
    room, tall = width - LEFT - RIGHT, height - TOP - BOTTOM
    each = room / len(bins)
    parts = [_frame(top, width, height)]
    for at, number in enumerate(bins):
        if number:
            high = max(1.0, number / top * tall)
            low, over = at * bin_width, round(at * bin_width, 6) >= 1
            words = f"{number:,} from {low:.1f}" + ("" if at == len(bins) - 1 else f" to {low + bin_width:.1f}")
            parts.append(
                tag(
                    "rect",
                    tag("title", words),
                    x=LEFT + at * each,
                    y=height - BOTTOM - high,
                    width=each * 0.9,
                    height=high,
                    class_="s3" if over else "s0",  # the threshold's line tells them apart without colours
                )
            )
    line = LEFT + room / (len(bins) * bin_width)
    parts += [
        tag("line", x1=line, x2=line, y1=TOP, y2=height - BOTTOM, class_="limit"),
        tag("text", "threshold", x=line + 5, y=TOP + 12, class_="strong"),
        *[
            tag("text", text, x=x, y=height - 12, text_anchor=anchor)
            for text, x, anchor in (
                ("0", LEFT, "middle"),
                ("1", line, "middle"),
                (f"≥ {(len(bins) - 1) * bin_width:.1f}", width - RIGHT, "end"),
            )
        ],
    ]
    return _plot(title, "How often each ratio of score to threshold occurred.", parts, (width, height))


def strip(title: str, kinds: list[str], events: list[tuple[int, str]]) -> Html:
    """Return marks on a time axis, one row for each kind."""
    height = 30 + 26 * len(kinds)
    first, last = min(at for at, _ in events), max(at for at, _ in events)
    room, left = WIDTH - 110 - RIGHT, 110
    parts: list[Html] = []
    for row, kind in enumerate(kinds):
        y = 18 + 26 * row
        parts += [
            tag("text", kind, x=12, y=y + 4, class_="strong"),
            tag("line", x1=left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"),
        ]
        places = sorted({round(left + (at - first) / max(1, last - first) * room) for at, one in events if one == kind})
        if len(places) > MOST_SHAPES:
            parts.append(tag("path", d="".join(f"M{x} {y - 6}v12" for x in places), class_=f"tick l{row % 3}"))
        else:
            parts += [_shape(row % 3, float(x), float(y)) for x in places]
    parts += _ends(first, last, left, WIDTH - RIGHT, height - 6)
    return _plot(title, "When each kind of change took place.", parts, (WIDTH, height))


def _plot(title: str, words: str, parts: list[Html], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Html:
    return tag(
        "svg",
        tag("title", title),
        tag("desc", words),
        join(parts),
        class_="plot",
        viewBox=f"0 0 {size[0]} {size[1]}",
        role="img",
        aria_label=f"{title}. {words}",
    )


def _frame(top: int, width: int, height: int, unit: str = "") -> Html:
    parts: list[Html] = []
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        y = height - BOTTOM - tick / TICKS * (height - TOP - BOTTOM)
        label: Child = f"{value:,.0f}{unit}" if value == int(value) else None
        parts.append(tag("line", x1=LEFT, x2=width - RIGHT, y1=y, y2=y, class_="grid"))
        if label is not None:
            parts.append(tag("text", label, x=LEFT - 6, y=y + 4, text_anchor="end"))
    return join(parts)


def _times(starts: list[int], step: int, left: float, room: float) -> Html:
    every = max(1, len(starts) // LABELS)
    each = room / max(1, len(starts))
    days = bool(starts) and starts[-1] - starts[0] >= 2 * 86_400
    return join(
        [
            tag(
                "text",
                moment(start, day=days or step >= 86_400),
                x=left + (at + 0.5) * each,
                y=HEIGHT - 12,
                text_anchor="middle",
            )
            for at, start in enumerate(starts)
            if at % every == every // 2
        ]
    )


def _ends(first: int, last: int, left: float, right: float, y: float) -> list[Html]:
    """Return the first and the last moment of an axis, once where they are the same."""
    brief = last - first < BRIEF
    words = [(first, left, "start"), (last, right, "end")][: 1 if first == last else 2]
    return [tag("text", moment(at, second=brief), x=x, y=y, text_anchor=anchor) for at, x, anchor in words]


def _nice(greatest: int) -> int:
    """Return the end of an axis: one, two or five times a power of ten, and divisible by the ticks where it can be."""
    power = 1
    while True:
        for factor in (1, 2, 4, 8):
            if factor * power >= greatest:
                return factor * power
        power *= 10


def moment(seconds: int, *, day: bool = False, second: bool = False) -> str:
    """Return a time as people write it, UTC."""
    words = "%Y-%m-%d" if day else "%m-%d %H:%M:%S" if second else "%m-%d %H:%M"
    return datetime.fromtimestamp(seconds, UTC).strftime(words)


def span(seconds: int) -> str:
    """Return a length of time in words."""
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= unit:
            number = seconds // unit
            return name if number == 1 else f"{number} {name}s"
    return f"{seconds} seconds"
