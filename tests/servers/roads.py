"""A second policy file for the tests of every road: who may classify and stream, and who gets labels only."""

import re
from pathlib import Path

from tests.oracle.scanner import Profile, findings
from tests.servers.asking import Answer
from tests.servers.launch import MODEL, PAGE
from tests.servers.questions import QUESTIONS, Question
from tests.servers.through import DECIMALS, Through, ask_through

POLICY = f"""\
version: v1
outputs:
  two: {{decimals: {DECIMALS}, top_k: 2}}
  label: {{label_only: true}}
parameters:
  classes: {{classification: {{at_most: 5}}, tensors: {{at_most: 64}}}}
rules:
  - id: classifiers
    allow: {{roles: [classifier], actions: [infer, stream], models: [digits]}}
    budget: plenty
    output: two
    parameters: classes
  - id: labellers
    allow: {{roles: [labeller], actions: [infer, stream], models: [digits]}}
    budget: plenty
    output: label
    parameters: classes
  - id: operators
    allow: {{roles: [operator], actions: [repository, statistics, config], models: [digits]}}
    budget: plenty
    output: label
"""

PROFILES = {
    "analyst": Profile(decimals=DECIMALS),
    "classifier": Profile(decimals=DECIMALS, top_k=2),
    "labeller": Profile(label_only=True),
}


def open_roads(directory: Path) -> Path:
    """Write the file where `hip_before` will put its own, and return the directory."""
    (directory / "policy").mkdir()
    (directory / "policy" / "roads.yaml").write_text(POLICY)
    return directory


def seen(answer: Answer, role: str = "analyst") -> list[str]:
    """Return what the oracle sees beyond a role's profile."""
    return findings({name.lower(): value for name, value in answer.headers}, answer.body, PROFILES[role])


def walk(through: Through, server: str, role: str) -> None:
    """Ask for all that a server's line in docs/dialects.md names: its scores with this role, the rest as an analyst.

    What is open is answered by the server itself; what is closed is refused, and nothing was forwarded.
    """
    (line,) = re.findall(rf"^\| {server} \|.*$", PAGE.read_text(), re.MULTILINE)
    *_, is_open, is_closed, _, _ = line.split("|")
    asked = {(one.method, one.path): one for one in reversed(QUESTIONS[server.lower()].values())}
    for method, path in re.findall(r"`(GET|POST|PUT) (/[^`]*)`", is_open):
        at = re.sub(r"/m(?=/|$)", f"/{MODEL}", path)
        known = asked[method, at.removesuffix("_stream") if at.endswith("generate_stream") else at]
        with through.client(through.token("analyst" if method == "GET" else role)) as http:
            answer = ask_through(http, Question(method, at, known.body, known.headers))
        assert answer.status == 200, (method, at, answer.body)
    with through.client(through.token("analyst", role)) as http:
        for path in re.findall(r"`(/[^`]*)`", is_closed):
            for method in ("GET", "POST"):
                answer = ask_through(http, Question(method, re.sub(r"/m(?=/|$)", f"/{MODEL}", path)))
                assert answer.status in {403, 404, 405}, (method, path)
                incident = answer.json()["instance"].removeprefix("urn:hip:incident:")
                found = [one for one in through.hip.journal().splitlines() if incident in one]
                assert len(found) == 1, "a request that was forwarded has a pair of records"
