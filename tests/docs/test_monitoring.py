"""The alerts and the dashboard ask for metrics that exist, by labels and words that they can have."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from proxy.adapters.metrics import Metrics
from proxy.adapters.worker_metrics import WorkerMetrics
from proxy.exchange import Action, Mode, Unit
from proxy.reasons import Reason

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs" / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())

SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
WORDS = {"reason": set(Reason), "action": {*Action, "none"}, "mode": set(Mode), "unit": set(Unit)}
OF_PROMETHEUS = {"instance", "job", "worker"}


def _exposed() -> dict[str, set[str]]:
    """Every sample's name, with its own labels."""
    metrics, workers = Metrics(["oip-v2"]), WorkerMetrics(2)
    found = {}
    for registry, page in ((metrics._registry, metrics.exposition()), (workers._registry, workers.exposition([1]))):
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page.decode(), re.MULTILINE):
            collector = registry._names_to_collectors[name]
            labels = set(getattr(collector, "_labelnames", ())) | ({"le"} if kind == "histogram" else set())
            found.update({name + suffix: labels for suffix in SUFFIXES[kind]})
    return found


EXPOSED = _exposed()


def _expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in ALERTS)
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))


@pytest.mark.parametrize(("title", "expression"), [*_expressions()])
def test_what_is_asked_for_exists(title, expression):
    """Names, the labels in braces and after `by`, and for closed sets the words that a pattern means."""
    names = set(re.findall(r"\bhip_\w+", expression))
    assert names <= set(EXPOSED)
    assert names or title == "HipDown"
    labels = set().union(*(EXPOSED[name] for name in names)) | OF_PROMETHEUS
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= labels
    for name, braces in re.findall(r"\b(hip_\w+)\{([^}]*)\}", expression):
        for label, operator, value in re.findall(r"(\w+)(=~|=)\"([^\"]*)\"", braces):
            assert label in EXPOSED[name]
            if label in WORDS:
                patterns = value.split("|") if operator == "=~" else [re.escape(value)]
                assert all(any(re.fullmatch(pattern, word) for word in WORDS[label]) for pattern in patterns)


def test_every_alert_says_what_and_what_next():
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_a_panel_has_its_own_place():
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("verb", ["check", "test"])
def test_promtool_agrees(verb, tmp_path):
    """Prometheus's own tool: the rules are rules, and fire when they should."""
    promtool = shutil.which("promtool")
    if promtool is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("promtool is not installed: apt-get install prometheus")
    rules = tmp_path / "alerts.yaml"
    rules.write_bytes((MONITORING / "alerts.yaml").read_bytes())
    cases = tmp_path / "alerts.test.yaml"
    cases.write_bytes((ROOT / "tests" / "docs" / "alerts.test.yaml").read_bytes())
    done = subprocess.run(
        [promtool, verb, "rules", rules if verb == "check" else cases], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
