"""docs/dialects.md tells the truth: what it calls open is open, what it calls closed is closed, its policy compiles."""

import re
from pathlib import Path

import pytest

from proxy.dialects import DIALECTS, spoken
from proxy.documents import parse, validate
from proxy.errors import MethodNotAllowed, UnknownRoute
from proxy.exchange import MANAGEMENT
from proxy.policy.compile import compile_policy
from proxy.policy.schema import PolicyFile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dialects.md").read_text()
(POLICY,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
REST = """
issuers:
  corp: {issuer: a, audience: b, jwks_file: keys.json, algorithms: [ES256], roles_claim: roles}
budgets: {few: [1 requests/minute]}
outputs: {coarse: {decimals: 2}}
rules:
  - {id: r, allow: {roles: any, actions: [infer], models: any}, budget: few, output: coarse}
"""
SPOKEN = {
    dialect.name: dialect for dialect in spoken(compile_policy({"p.yaml": (POLICY + REST).encode()}).upstreams.values())
}
LINES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| [^|]+ \| `[a-z0-9-]+` \|(?:[^|]*\|){4}$", line)
]
PARAMETERS = re.findall(r"^\| `([a-z0-9-]+)` \| `([a-z_]+)` \| ([^|]*) \|$", PAGE, re.MULTILINE)


def test_every_dialect_has_a_line_and_the_page_is_one_policy():
    assert {line[1].strip("`") for line in LINES} == set(DIALECTS) == set(SPOKEN)
    assert validate(parse("p", POLICY.encode()), PolicyFile).version == "v1"


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_what_is_open_is_open(line):
    dialect = SPOKEN[line[1].strip("`")]
    ways = re.findall(r"`(GET|POST|PUT) (/[^`]*)`", line[3])
    assert ways
    for method, path in ways:
        target = dialect.classify(method, path, "")
        assert target is not None, (method, path)
        assert target.action not in MANAGEMENT


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_what_is_closed_is_closed(line):
    """No dialect names it, or it is management: open only where a rule says so in words."""
    dialect = SPOKEN[line[1].strip("`")]
    paths = re.findall(r"`(/[^`]*)`", line[4])
    assert paths
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            try:
                target = dialect.classify(method, path, "")
            except (MethodNotAllowed, UnknownRoute):
                continue
            assert target is None or target.action in MANAGEMENT, (method, path)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_what_is_run_is_run(line):
    names = re.findall(r"`(test_[a-z_]+\.py)`", line[5])
    assert names
    for name in names:
        assert len(list((ROOT / "tests").glob(f"*/{name}"))) == 1


def test_the_table_of_parameters_is_what_the_dialects_know():
    told = {(dialect, word) for dialect, word, _ in PARAMETERS}
    known = {(name, word) for name, dialect in DIALECTS.items() if name != "oip-v2" for word in dialect.parameters}
    assert told - {one for one in told if one[0] == "oip-v2"} == known
    for dialect, word, says in PARAMETERS:
        default = DIALECTS[dialect].parameters[word].default
        if default is None:
            assert says.startswith("refused")
        elif default.most is None:
            assert says.startswith("allowed")
        else:
            assert says.startswith(f"at most {default.most}, larger is {'lowered' if default.cap else 'refused'}")
