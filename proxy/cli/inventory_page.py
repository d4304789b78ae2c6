"""The inventory as a page: one file, no script, nothing loaded; it looks like the audit report.

Whatever stands in a policy or a file name is escaped by `markup`.
"""

from proxy.audit.report.markup import Child, Html, table, tag
from proxy.audit.report.style import POLICY, STYLE
from proxy.cli.inventory_facts import Facts
from proxy.policy.inventory import Item


def page(facts: Facts, findings: list[str], profile: str) -> str:
    """Return the whole file."""
    verdict = (
        tag("p", f"{len(findings)} findings, profile {profile}.", class_="verdict warn")
        if findings
        else tag("p", f"Nothing is missing, profile {profile}.", class_="verdict good")
    )
    body = [
        tag("h1", "Model inventory"),
        tag("p", f"{facts.directory}, made {facts.made}. Policy ", tag("code", facts.policy), "."),
        verdict,
        tag("ul", *[tag("li", finding) for finding in findings]) if findings else None,
        *[_model(item) for item in facts.models],
        tag("section", tag("h2", "Files and certificates"), *_files(facts)),
        tag("section", tag("h2", "Versions"), _versions(facts)),
        tag(
            "p", "Cards are their authors' words. The journal was read, not verified: hip audit verify.", class_="soft"
        ),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("title", "Model inventory"),
        tag("style", Html(STYLE)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def _model(item: Item) -> Html:
    from proxy.cli.inventory import told

    rows: list[tuple[Child, ...]] = [(title, words) for title, words in told(item)]
    rules: list[tuple[Child, ...]] = [
        (one.rule, one.place, one.effect, one.who, one.actions, ", ".join(one.under)) for one in item.exposure
    ]
    heads = ("rule", "place", "effect", "who", "actions", "under")
    return tag(
        "section",
        tag("h2", item.name),
        table("What is said of it", ("", ""), rows, frozenset()),
        table("Who reaches it", heads, rules, frozenset()) if rules else tag("p", "No rule is about it: closed."),
    )


def _files(facts: Facts) -> list[Html]:
    named: list[tuple[Child, ...]] = [
        ("detector", one.name, one.file, one.state, one.days, "", tag("code", one.sha256)) for one in facts.detectors
    ]
    named += [
        ("probe", one.name, one.file, one.state, one.days, f"{one.outcome or 'not known'} {one.asked or ''}",
         tag("code", one.sha256))
        for one in facts.probes
    ]  # fmt: skip
    certificates: list[tuple[Child, ...]] = [
        (one.what, one.file, one.subject, one.fault or one.ends, one.days_left) for one in facts.certificates
    ]
    heads = ("kind", "name", "file", "state", "days old", "last answer", "sha256")
    found = []
    if named:
        found.append(table("Files that the policy names", heads, named, frozenset({4})))
    if certificates:
        titles = ("what", "file", "subject", "ends", "days left")
        found.append(table("Certificates", titles, certificates, frozenset({4})))
    return found or [tag("p", "None.")]


def _versions(facts: Facts) -> Html:
    rows: list[tuple[Child, ...]] = list(facts.versions.items())
    if facts.serving:
        rows.append(("serves, by the journal", f"hip {facts.serving.version} since {facts.serving.since}"))
    return table("What runs here", ("what", "version"), rows, frozenset())
