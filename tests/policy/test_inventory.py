"""`hip inventory`: what the cards say and do not say, who reaches a model, and what the files beside the policy are."""

import json
import os
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proxy.adapters.mint import mint
from proxy.cli import app
from proxy.policy.compile import compile_policy
from proxy.policy.inventory import CARD, Profile, items, missing

POLICY = """\
version: v1
issuers:
  corp: {issuer: https://idp.example.com, audience: a, jwks_file: keys.json, algorithms: [ES256], roles_claim: roles}
upstreams:
  lab: {url: "http://127.0.0.1:8080", dialect: oip-v2}
models:
  iris:
    upstream: lab
    labels: {team: botany}
    card:
      owner: <b>botany</b>@example.com
      purpose: tells species apart
      classification: internal
      processors: []
      datasheet: https://example.com/iris
      lineage: {weights: DIGEST}
  digits: {upstream: lab}
detectors:
  strange: {file: strange.onnx, sha256: DETECTOR}
budgets:
  few: [10 requests/minute]
outputs:
  coarse: {decimals: 2}
rules:
  - id: nobody-suspended
    deny: {roles: [suspended]}
  - id: analysts
    allow: {roles: [analyst], actions: [infer], models: [iris]}
    budget: few
    output: coarse
    detector: {use: strange}
  - id: operators
    allow: {roles: [operator], actions: [health], models: [iris], networks: [10.0.0.0/8]}
    budget: few
    output: coarse
"""
DETECTOR = b"not looked into here"
TEXT = POLICY.replace("DIGEST", "0" * 64).replace("DETECTOR", sha256(DETECTOR).hexdigest())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "policy.yaml").write_text(TEXT)
    (policy / "strange.onnx").write_bytes(DETECTOR)
    return policy


def run(*words: object, code: int) -> str:
    done = CliRunner().invoke(app, ["inventory", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def asked(*words: object, code: int):
    return json.loads(run(*words, "--json", code=code))


# ── what the policy says ────────────────────────────────────────────────────────────────────────────────────────


def test_who_reaches_a_model_and_how():
    digits, iris = items(compile_policy({"policy.yaml": TEXT.encode()}))
    assert [(one.rule, one.effect, one.who, one.actions) for one in iris.exposure] == [
        ("nobody-suspended", "deny", "suspended", "ANYTHING"),
        ("analysts", "allow", "analyst", "infer"),
        ("operators", "allow", "operator; networks 10.0.0.0/8", "health"),
    ]
    assert iris.exposure[1].under == ("MFA", "budget few", "2 decimals", "detector strange (enforce)")
    assert (iris.detectors, iris.enforced, iris.open) == (("strange",), True, True)
    assert not digits.open


@pytest.mark.parametrize("profile", list(Profile))
def test_what_a_profile_asks_for(profile):
    """A card that says nothing misses all of it; `processors: []` is an answer."""
    digits, iris = items(compile_policy({"policy.yaml": TEXT.encode()}))
    wanted = {Profile.NONE: (), Profile.BASIC: ("owner", "classification"), Profile.FULL: CARD}[profile]
    assert list(missing(digits, profile)) == [f"`card.{field}` is not said" for field in wanted]
    replaced = ["no golden probe: nobody would see that it was replaced"] if profile is Profile.FULL else []
    assert list(missing(iris, profile)) == replaced


def test_inputs_that_no_detector_judges():
    in_shadow = TEXT.replace("{use: strange}", "{use: strange, mode: shadow}")
    _, iris = items(compile_policy({"policy.yaml": in_shadow.encode()}))
    assert "a rule lets inputs in that no detector judges" in list(missing(iris, Profile.FULL))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("owner: ''", "owner"),
        ("lineage: {weights: 12}", "weights"),
        ("processors: [a, a]", "processors"),
        ("x: 1", "x"),
    ],
    ids=["empty", "no digest", "twice", "unknown"],
)
def test_a_card_is_held_to_its_form(directory, wrong, said):
    text = TEXT.replace("digits: {upstream: lab}", f"digits: {{upstream: lab, card: {{{wrong}}}}}")
    (directory / "policy.yaml").write_text(text)
    assert said in run(directory, code=2)


# ── what lies beside it ─────────────────────────────────────────────────────────────────────────────────────────


def test_findings_end_with_one_and_none_with_nought(directory):
    found = asked(directory, code=1)
    assert found["findings"] == [
        "model digits: `card.owner` is not said",
        "model digits: `card.classification` is not said",
    ]
    assert not found["complete"]
    assert asked(directory, "--profile", "none", code=0)["complete"]


def test_a_detector_that_is_another_file(directory):
    (detector,) = asked(directory, "--profile", "none", code=0)["detectors"]
    assert (detector["state"], detector["days"]) == ("as named", 0)
    os.utime(directory / "strange.onnx", (0, 0))
    assert asked(directory, "--profile", "none", code=0)["detectors"][0]["days"] > 20_000
    (directory / "strange.onnx").write_bytes(b"other")
    assert "detector strange" in asked(directory, "--profile", "none", code=1)["findings"][0]
    (directory / "strange.onnx").unlink()
    assert "is absent" in asked(directory, "--profile", "none", code=1)["findings"][0]


def test_certificates_of_the_configuration(directory, tmp_path):
    mint(tmp_path / "certs", ["localhost"], [])
    config = tmp_path / "hip.yaml"
    config.write_text(
        "version: v1\nlisten: {tls: {certificate: certs/server.crt, key: certs/server.key}}\npolicies: policy\n"
    )
    found = asked("--config", config, "--profile", "none", code=0)
    (certificate,) = found["certificates"]
    assert certificate["what"] == "listener"
    assert 80 < certificate["days_left"] <= 90
    assert found["serving"] is None
    (tmp_path / "certs" / "server.crt").unlink()
    assert "cannot be read" in asked("--config", config, "--profile", "none", code=1)["findings"][0]


def test_the_page_says_it_all_and_runs_nothing(directory, tmp_path):
    """What stands in a card is text there, whatever it looks like."""
    page = tmp_path / "inventory.html"
    run(directory, "--html", page, code=1)
    text = page.read_text()
    assert "&lt;b&gt;botany&lt;/b&gt;@example.com" in text
    assert "<b>botany" not in text

    class Tags(HTMLParser):
        seen: set[str] = set()  # noqa: RUF012 - one page, one parser

        def handle_starttag(self, tag, attrs):
            self.seen.add(tag)

    Tags().feed(text)
    assert {"table", "section"} <= Tags.seen
    assert Tags.seen.isdisjoint({"script", "img", "link", "iframe"})
    for word in ("iris", "digits", "analysts", "operator; networks 10.0.0.0/8", "0" * 64, sha256(DETECTOR).hexdigest()):
        assert word in text, word


def test_a_text_for_people(directory):
    told = run(directory, code=1)
    assert "digits (closed" in told
    assert "processors:     nobody else" in told
    assert (
        "allow: analyst: infer under MFA, budget few, 2 decimals, detector strange (enforce) (analysts, policy.yaml"
        in told
    )
    assert told.endswith("2 models, 2 findings (profile basic)\n")


@pytest.mark.parametrize("words", [["nowhere"], ["--config", "nowhere.yaml"], ["--html", "/nowhere/x.html"]], ids=str)
def test_wrong_use(words, directory, monkeypatch):
    monkeypatch.chdir(directory.parent)
    (directory.parent / "policies").symlink_to(directory)
    run(*words, code=2)
