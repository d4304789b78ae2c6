"""Shows findings as text: the place, the line, a mark under the fault, and what would mend it."""

import re
from collections.abc import Iterable, Mapping

from proxy.documents.reading import INVISIBLE
from proxy.errors import Finding

MAX_LINE = 160  # characters of a source line that are shown

_WORD = re.compile(r"[^\s,:\[\]{}]+|.")  # what gets the mark: the word that begins there


def render(findings: Iterable[Finding], sources: Mapping[str, bytes]) -> str:
    """Return the findings as text; `sources` are the files by the names that the findings use."""
    return "\n".join(_render(finding, sources.get(finding.file)) for finding in findings)


def _render(finding: Finding, source: bytes | None) -> str:
    place = f"{finding.file}:{finding.line}:{finding.column}" if finding.line else finding.file
    kind = "warning: " if finding.severity == "warning" else ""
    lines = [f"{place}: {kind}{finding.message}"]
    if finding.line and source is not None:
        lines += _excerpt(finding, source)
    if finding.hint:
        lines.append(f"    hint: {finding.hint}")
    return "\n".join(lines)


def _excerpt(finding: Finding, source: bytes) -> list[str]:
    """Return the line and its mark. A file may be hostile to a terminal: what is invisible is shown as `?`."""
    text = source.decode(errors="replace").split("\n")
    if finding.line > len(text):
        return []
    line = INVISIBLE.sub("?", text[finding.line - 1].rstrip("\r")).replace("\t", " ")
    start = max(0, finding.column - MAX_LINE // 2) if len(line) > MAX_LINE else 0
    column = finding.column - 1 - start
    shown = line[start : start + MAX_LINE]
    word = _WORD.match(shown, column)
    mark = "^" * (len(word[0]) if word else 1)
    number = f"{finding.line:>5} | "
    return [f"{number}{shown}", f"{'':>5} | {'':>{column}}{mark}" if column else f"{'':>5} | {mark}"]
