"""`hip check`: everything that is wrong with a policy directory, with its place, before the directory is live.

Exit codes: 0 good, 1 findings (a warning is one), 2 wrong use. Rules that no test touches are named, not counted.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from proxy.adapters.watch import TESTS, read_directory
from proxy.dialects import DIALECTS
from proxy.documents import json_schema, render
from proxy.errors import ConfigError, Finding
from proxy.policy import wording
from proxy.policy.compile import compile_policy
from proxy.policy.expectations import Outcome, run_expectations
from proxy.policy.model import AllowRule, Policy, Rule
from proxy.policy.schema import PolicyFile

GOOD, FINDINGS, WRONG_USE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Report:
    """What the check found. `policy` None: it did not compile."""

    findings: tuple[Finding, ...]
    sources: Mapping[str, bytes]
    policy: Policy | None = None
    outcome: Outcome | None = None


def check(directory: Path, *, as_json: bool) -> int:
    """Check a policy directory, print what was found, return the exit code."""
    if not directory.is_dir():
        typer.echo(f"{directory}: not a directory; name the one with the policy files", err=True)
        return WRONG_USE
    report = inspect(directory)
    if as_json:
        typer.echo(json.dumps(_as_json(report), indent=2))
    else:
        _print(directory, report)
    return FINDINGS if report.findings else GOOD


def inspect(directory: Path) -> Report:
    """Read, compile and test a policy directory."""
    sources: dict[str, bytes] = {}
    try:
        files = read_directory(directory)
        sources.update(files)
        policy = compile_policy(files, dialects=DIALECTS, root=str(directory))
    except ConfigError as error:
        return _report(directory, error.findings, sources)
    findings = [*policy.warnings, *_absent_files(policy)]
    outcome = None
    try:
        tests = directory / TESTS
        found = read_directory(tests) if tests.is_dir() else {}
        named = {f"{TESTS}/{name}": content for name, content in found.items()}
        sources.update(named)
        outcome = run_expectations(policy, named)
        findings += outcome.failures
    except ConfigError as error:
        findings += error.findings
    return replace(_report(directory, findings, sources), policy=policy, outcome=outcome)


def _report(directory: Path, findings: Iterable[Finding], sources: Mapping[str, bytes]) -> Report:
    """Name the files as seen from where the user stands, so that a terminal and an editor find them."""
    names = {name: f"{directory}/{name}" for name in sources}
    return Report(
        tuple(replace(finding, file=names.get(finding.file, finding.file)) for finding in findings),
        {names[name]: content for name, content in sources.items()},
    )


def _absent_files(policy: Policy) -> Iterator[Finding]:
    """Yield a finding for each file that the policy names and the proxy would not find."""
    named = [(issuer.jwks_file, "key set") for issuer in policy.issuers.values()]
    named += [(issuer.ca_file, "CA") for issuer in policy.issuers.values()]
    for server in policy.upstreams.values():
        named += [(server.ca_file, "CA"), (server.client_cert_file, "certificate"), (server.client_key_file, "key")]
    for file, what in named:
        if file is not None and not Path(file).is_file():
            yield Finding(file, 0, 0, f"this {what} is not there", "the policy names it: put it there")
    for detector in policy.detectors.values():
        path = Path(detector.file)
        if not path.is_file():
            hint = "`hip detector fit` makes one"
            yield Finding(detector.file, 0, 0, f"the file of detector `{detector.name}` is not there", hint)
        elif (found := hashlib.sha256(path.read_bytes()).hexdigest()) != detector.sha256:
            hint = f"if you made the new one, write `sha256: {found}`"
            yield Finding(detector.file, 0, 0, f"not the file that detector `{detector.name}` names", hint)


# ── as text ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _print(directory: Path, report: Report) -> None:
    if report.findings:
        typer.echo(render(report.findings, report.sources) + "\n")
    policy, outcome = report.policy, report.outcome
    if policy is None:
        typer.echo(f"{directory}: {_count(len(report.findings), 'finding')}, not a policy")
        return
    if not report.findings:
        typer.echo("\n".join(map(_summary, policy.rules)) + "\n")
    facts = (
        _count(len(policy.rules), "rule"),
        _count(len(policy.models), "model"),
        _count(len(policy.issuers), "issuer"),
        "tests not run" if outcome is None else _count(outcome.total, "test"),
        _count(len(report.findings), "finding"),
    )
    typer.echo(f"{directory}: {', '.join(facts)}")
    typer.echo(f"digest {policy.digest}")
    if outcome is not None and outcome.untouched:
        typer.echo(f"no test touches: {', '.join(outcome.untouched)}; write one in {directory}/{TESTS}")
    elif not report.findings:
        typer.echo(f"next: hip diff SERVING {directory} says what it changes; a proxy reads it again by itself")


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _summary(rule: Rule) -> str:
    """Return a rule in two lines, what is wide open in capitals."""
    said = wording.conditions(rule.scope)
    who = [said["roles"]]
    who += [f"{word} {said[key]}" for key, word in _WHO if key in said]
    effect = ("allow" if isinstance(rule, AllowRule) else "deny") + (", in shadow" if rule.shadow else "")
    lines = [rule.id, f"    {effect}: {' '.join(who)}: {said['actions']} on {said['models']}"]
    if isinstance(rule, AllowRule):
        lines.append(f"    under: {', '.join(wording.obligations(rule))}")
    return "\n".join(lines)


_WHO = (("issuers", "of"), ("clients", "by"), ("networks", "from"), ("hours", "during"), ("claims", "with"))


# ── as JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _as_json(report: Report) -> Mapping[str, object]:
    policy, outcome = report.policy, report.outcome
    return {
        "good": not report.findings,
        "findings": [asdict(finding) for finding in report.findings],
        "digest": policy.digest if policy else None,
        "rules": [rule.id for rule in policy.rules] if policy else [],
        "tests": outcome.total if outcome else 0,
        "untouched": list(outcome.untouched) if outcome else [],
    }


def check_command(
    directory: Annotated[Path, typer.Argument(help="The policy directory.")] = Path("policies"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    page: Annotated[bool, typer.Option("--reference", help="Print every key as Markdown, and end.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of policy files, and end.")] = False,
) -> None:
    """Check a policy directory and run its tests.

    Example: hip check policies
    """
    if schema:
        typer.echo(json.dumps(json_schema(PolicyFile), indent=2))
        raise typer.Exit(GOOD)
    if page:
        from proxy.policy.reference import reference  # only here: a check does without its schemas

        typer.echo(reference(), nl=False)
        raise typer.Exit(GOOD)
    raise typer.Exit(check(directory, as_json=as_json))
