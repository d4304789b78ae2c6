"""The campaign as a table of text, as JSON, and as one page of HTML that needs nothing else."""

import html
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from proxy.simulate.campaign import Row, Side

CAVEATS = (
    "`lift` is the fidelity beyond what the attacker has without asking: at 0 or below, asking was in vain.",
    "Natural data, a spaced adaptive attacker and colluding clients are what these defences stop least: ration them.",
    "The copies are linear. Membership is the training's to mend: no output profile is claimed to help.",
)


def table(rows: Sequence[Row]) -> Table:
    """Return the table: undefended beside defended."""
    shown = Table(
        "attack", "measure", "baseline", "answers", "result", "lift", "answers", "result", "lift", "stopped at"
    )
    shown.title = "without defences │ with them"
    for row in rows:
        name = Text(row.attack.name, "bold" if row.attack.bad else "")
        shown.add_row(
            name,
            row.attack.metric,
            _number(row.baseline),
            *_cells(row.undefended),
            *_cells(row.defended),
            _stop(row.defended),
        )
    return shown


def as_json(rows: Sequence[Row], target: str) -> dict[str, object]:
    """Return everything, for a program."""
    return {
        "target": target,
        "attacks": [
            {
                "attack": row.attack.name,
                "measure": row.attack.metric,
                "baseline": row.baseline,
                "always_shown": row.attack.bad,
                "undefended": _side(row.undefended),
                "defended": _side(row.defended),
            }
            for row in rows
        ],
        "caveats": CAVEATS,
    }


def page(rows: Sequence[Row], target: str) -> str:
    """Return the page."""
    body = "".join(_line(row) for row in rows)
    caveats = "".join(f"<li>{html.escape(text)}" for text in CAVEATS)
    return _PAGE.format(target=html.escape(target), rows=body, caveats=caveats)


def _side(side: Side | None) -> dict[str, object] | None:
    if side is None:
        return None
    return {
        "answers": side.answers,
        "asked": side.asked,
        "result": side.result,
        "lift": side.lift,
        "stopped_at": side.stopped_at,
        "stopped_by": side.stopped_by,
    }


def _cells(side: Side | None) -> tuple[str, str, str]:
    return ("-", "-", "-") if side is None else (str(side.answers), _number(side.result), _signed(side.lift))


def _stop(side: Side) -> str:
    return "never" if side.stopped_at is None else f"{side.stopped_at} ({side.stopped_by})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _line(row: Row) -> str:
    cells = [row.attack.name, row.attack.metric, _number(row.baseline)]
    cells += [*_cells(row.undefended), *_cells(row.defended), _stop(row.defended)]
    columns = "".join(f"<td>{html.escape(cell)}" for cell in cells)
    return f'<tr class="{"bad" if row.attack.bad else ""}">{columns}<td>{_bars(row)}'


def _bars(row: Row) -> str:
    """Draw what each side came to; the mark is the baseline. A distance is drawn against the longer of the two."""
    results = [side.result if side is not None else None for side in (row.undefended, row.defended)]
    full = max([1.0, *(value for value in results if value is not None)])
    label = f"without {_number(results[0])}, with {_number(results[1])}"
    parts = [f'<svg viewBox="0 0 200 26" role="img" aria-label="{label}">']
    for place, (kind, value) in enumerate(zip(("without", "with"), results, strict=True)):
        width = 200 * max(value or 0.0, 0.0) / full
        parts.append(f'<rect class="{kind}" x="0" y="{place * 13 + 1}" width="{width:.1f}" height="11"/>')
    if row.baseline is not None:
        mark = 200 * row.baseline / full
        parts.append(f'<line x1="{mark:.1f}" x2="{mark:.1f}" y1="0" y2="26"/>')
    return "".join([*parts, "</svg>"])


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>hip simulate</title>
<style>
:root {{ color-scheme: light dark; --without: #d55e00; --with: #0072b2 }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #8885; white-space: nowrap }}
th:first-child, td:first-child, td:nth-child(2) {{ text-align: left }}
.bad td:first-child {{ font-weight: bold }}
svg {{ width: 200px; height: 26px; vertical-align: middle }}
rect.without {{ fill: var(--without) }} rect.with {{ fill: var(--with) }}
line {{ stroke: currentColor; stroke-width: 2; stroke-dasharray: 3 2 }}
.without-word {{ color: var(--without) }} .with-word {{ color: var(--with) }}
@media print {{ body {{ margin: 0 }} }}
</style>
<h1>Attacks on {target}</h1>
<p>Each attack was run twice by the same attacker: <strong class="without-word">without the defences</strong> (upper
bar) and <strong class="with-word">with them</strong> (lower bar). The dashed line is what the attacker has without
asking anything. For L2, a distance, longer is better for the defender; for all others, shorter. Names in bold are the
attacks that these defences stop least; they are always here.</p>
<table><thead><tr><th rowspan="2">attack<th rowspan="2">measure<th rowspan="2">baseline<th colspan="3">without
<th colspan="4">with<th rowspan="2">
<tr><th>answers<th>result<th>lift<th>answers<th>result<th>lift<th>stopped at</thead>
<tbody>{rows}</tbody></table>
<ul>{caveats}</ul>
</html>
"""
