"""Horizontal bars on a logarithmic scale, as an SVG written by hand: readable in a browser and in a diff."""

from collections.abc import Mapping
from html import escape
from math import floor, log10

WIDTH, LABEL, RIGHT = 760, 190, 90  # pixels: all, left of the bars, right of them
ROW, BAR, TOP, BOTTOM = 26, 16, 44, 30
OURS, OTHERS = "#0b7a75", "#9aa5b1"


def bars(title: str, values: Mapping[str, float], mine: str) -> str:
    """Return a picture; `mine` is what the name of a highlighted bar begins with."""
    values = dict(sorted(values.items(), key=lambda item: -item[1]))
    low = floor(log10(min(values.values())))
    high = log10(max(values.values()))
    scale = (WIDTH - LABEL - RIGHT) / max(high - low, 1.0)
    height = TOP + ROW * len(values) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<style>text { font-size: 13px } .title { font-size: 15px; font-weight: bold }</style>",
        f'<title>{escape(title)}</title><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" class="title" fill="#1f2933">{escape(title)}</text>',
    ]
    for power in range(low, floor(high) + 1):
        x = LABEL + (power - low) * scale
        parts += [
            f'<line x1="{x:.0f}" y1="{TOP - 6}" x2="{x:.0f}" y2="{height - BOTTOM}" stroke="#e4e7eb"/>',
            f'<text x="{x:.0f}" y="{height - 10}" text-anchor="middle" fill="#52606d">{10**power:,}</text>',
        ]
    for number, (name, value) in enumerate(values.items()):
        y, length = TOP + number * ROW, max((log10(value) - low) * scale, 1.0)
        colour = OURS if name.startswith(mine) else OTHERS
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end" fill="#1f2933">{escape(name)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LABEL + length + 6:.0f}" y="{y + 13}" fill="#1f2933">{value:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
