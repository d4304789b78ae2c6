"""Does the journal tell the same story as others do: spans, metrics, upstreams?"""

from proxy.audit.reconcile import Verdict
from proxy.audit.report.markup import Child, Html, table, tag
from proxy.audit.report.wording import Facts


def reconciliation(facts: Facts) -> list[Html]:
    """Answer: what do the others know, and where do they differ from the journal?"""
    if not facts.reconciled:
        return [
            tag(
                "p",
                "Not reconciled: nothing was given to compare with. Repeat the report with exported spans (",
                tag("code", "--spans"),
                "), a kept page of metrics (",
                tag("code", "--metrics"),
                ") or the model server's own count (",
                tag("code", "--upstream"),
                ").",
            )
        ]
    rows: list[tuple[Child, ...]] = [
        (row.what, row.source, _number(row.journal), _number(row.other), tag("b", row.verdict.value), row.words)
        for row in facts.reconciled
    ]
    differ = sum(row.verdict is Verdict.DIFFERS for row in facts.reconciled)
    unknown = sum(row.verdict is Verdict.CANNOT_TELL for row in facts.reconciled)
    told = f"{len(rows)} comparisons: {differ} differ without an explanation, {unknown} could not be made."
    return [
        tag(
            "p",
            told,
            " Spans, metrics and upstreams are not signed: where they agree, a lie would have had to be told in each "
            "place; where they differ, look there first.",
        ),
        table("Comparisons", ("what", "source", "journal", "source says", "result", "why"), rows, frozenset({2, 3})),
    ]


def _number(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
