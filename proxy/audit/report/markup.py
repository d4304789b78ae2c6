"""Markup by construction: what is not markup already is escaped, so that no record can speak HTML.

Decides names, escaping and nothing else. Elements without children close themselves, which HTML allows for SVG and for
the void elements that we use.
"""

from html import escape

Value = str | int | float | bool | None


class Html(str):
    """Text that is markup already; made here only."""

    __slots__ = ()


Child = Html | str | int | None


def tag(name: str, /, *children: Child, **attributes: Value) -> Html:
    """Return an element. `class_` and `aria_label` become `class` and `aria-label`; None is left out."""
    words = [name, *(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))]
    inner = "".join(_child(child) for child in children)
    opened = " ".join(words)
    return Html(f"<{opened}/>" if not children else f"<{opened}>{inner}</{name}>")


def join(children: list[Html]) -> Html:
    """Return several elements as one."""
    return Html("".join(children))


def _child(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Html) else escape(str(child), quote=False)


def _attribute(key: str, value: Value) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return name
    text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
    return f'{name}="{escape(text, quote=True)}"'


def table(caption: str, heads: tuple[str, ...], rows: list[tuple[Child, ...]], numbers: frozenset[int]) -> Html:
    """Return a table; the columns in `numbers` are set as numbers."""
    head = tag("tr", *[tag("th", text, scope="col", class_=_kind(at, numbers)) for at, text in enumerate(heads)])
    body = [
        tag("tr", *[tag("td", "" if cell is None else cell, class_=_kind(at, numbers)) for at, cell in enumerate(row)])
        for row in rows
    ]
    grid = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", grid, class_="wide", tabindex="0", role="region", aria_label=caption)


def _kind(at: int, numbers: frozenset[int]) -> str | None:
    return "number" if at in numbers else None


def details(summary: str, *children: Child) -> Html:
    """Return what opens on demand."""
    return tag("details", tag("summary", summary), *children)
