"""hip diff: the difference in access, not in text."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from policy_building import BASE, READERS, policy
from typer.testing import CliRunner, Result

from proxy.cli import app
from proxy.exchange import DetectorUse
from proxy.policy.access import OTHERWISE
from proxy.policy.difference import Cell, Kind, difference
from proxy.policy.model import AllowRule

OLD = BASE + READERS


def found(new: str, old: str = OLD) -> list[tuple[Kind, str, str]]:
    return [(change.kind, change.before, change.after) for change, _ in difference(policy(old), policy(new)).access]


MFA = "`mfa` or two kinds of factor"
WAY = f"{MFA}; 2 decimals; 60 requests/minute, 1000 rows/day"
SAFE = "models: [iris]"

VECTORS = [
    ("nothing", OLD, []),
    ("other words", OLD.replace("readers", "others").replace("coarse", "two-digits").replace("trial", "some"), []),
    ("a rule in shadow", OLD + "    shadow: true\n", [(Kind.CLOSED, WAY, "")]),
    ("an action more", OLD.replace("[infer]", "[infer, metadata]"), [(Kind.OPENED, "", WAY)]),
    ("a role less", OLD.replace("[reader]", "[writer]"), [(Kind.OPENED, "", WAY), (Kind.CLOSED, WAY, "")]),
    ("any role", OLD.replace("roles: [reader]", "roles: any"), [(Kind.OPENED, "", WAY)]),
    ("finer", OLD.replace("decimals: 2", "decimals: 4"), [(Kind.FINER, "2 decimals", "4 decimals")]),
    ("coarser", OLD.replace("decimals: 2", "label_only: true"), [(Kind.COARSER, "2 decimals", "label only")]),
    ("by the floor", OLD + "floor: {output: {decimals: 1}}\n", [(Kind.COARSER, "2 decimals", "1 decimal")]),
    ("no MFA", OLD + "    mfa: not_required\n", [(Kind.MFA, MFA, "NO MFA")]),
    ("fresher", OLD + "    mfa: {max_age: 8h}\n", [(Kind.MFA, MFA, f"{MFA}, at most 8h ago")]),
    (
        "the issuer's terms",
        OLD.replace("roles_claim:", "mfa: {any_amr: [hwk]}\n    roles_claim:"),
        [(Kind.MFA, MFA, "hwk")],
    ),
    (
        "a budget",
        OLD.replace("60 requests", "90 requests"),
        [(Kind.BUDGET, "60 requests/minute, 1000 rows/day", "90 requests/minute, 1000 rows/day")],
    ),
    (
        "hours",
        OLD.replace(SAFE, SAFE + ", hours: [daily 08:00-18:00 UTC]"),
        [(Kind.CONDITIONS, "whenever", "hours: daily 08:00-18:00 UTC")],
    ),
    (
        "networks",
        OLD.replace(SAFE, SAFE + ", networks: [10.0.0.0/8]"),
        [(Kind.CONDITIONS, "whenever", "networks: 10.0.0.0/8")],
    ),
    (
        "a deny rule",
        OLD + "  - id: d\n    deny: {roles: [reader], actions: [infer], networks: [10.0.0.0/8]}\n",
        [(Kind.CONDITIONS, "no exceptions", "unless networks: 10.0.0.0/8")],
    ),
    (
        "a second way",
        OLD + "    mfa: {max_age: 8h}\n" + READERS.removeprefix("rules:\n").replace("readers", "stale"),
        [(Kind.WAYS, WAY, f"{WAY.replace(MFA, MFA + ', at most 8h ago')}, else {WAY}")],
    ),
]


@pytest.mark.parametrize(("new", "changes"), [vector[1:] for vector in VECTORS], ids=[vector[0] for vector in VECTORS])
def test_what_changes(new: str, changes: list[tuple[Kind, str, str]]) -> None:
    assert found(new) == changes


def test_opened_first_closed_last() -> None:
    assert [kind for kind, _, _ in found(OLD.replace("[reader]", "[writer]"))] == [Kind.OPENED, Kind.CLOSED]


def test_whom_it_happens_to_is_told_together() -> None:
    wide = OLD.replace("[reader]", "[reader, writer, clerk]").replace("[infer]", "[infer, health]")
    ((change, cells), *rest) = difference(policy(OLD), policy(wide)).access
    assert not rest
    assert change.kind is Kind.OPENED
    assert cells == (
        Cell(frozenset({"corp"}), frozenset({"clerk", "reader", "writer"}), frozenset({"health"}), frozenset({"iris"})),
        Cell(frozenset({"corp"}), frozenset({"clerk", "writer"}), frozenset({"infer"}), frozenset({"iris"})),
    )


def test_a_role_that_nobody_names_stands_for_all_others() -> None:
    ((_, cells),) = difference(policy(OLD), policy(OLD.replace("roles: [reader]", "roles: any"))).access
    assert cells[0].roles == {OTHERWISE}


def test_who_is_believed_and_asked_is_told() -> None:
    new = OLD.replace("[ES256]", "[ES256, EdDSA]").replace("127.0.0.1:8080", "127.0.0.1:9090")
    new = new.replace("upstreams:", "workloads:\n  nightly: {dns: a.internal, roles: [x]}\nupstreams:")
    assert difference(policy(OLD), policy(new)).parties == (
        "issuer corp: algorithms: ES256 → ES256, EdDSA",
        "workload nightly: added",
        "upstream main: port: 8080 → 9090",
    )


def test_a_floor_about_parameters_is_a_difference_for_rules_that_say_nothing_of_them() -> None:
    old = OLD.replace("dialect: oip-v2", "dialect: openai")
    ((change, _),) = difference(policy(old), policy(old + "floor: {parameters: {n: {at_most: 0}}}\n")).access
    assert (change.kind, change.before) == (Kind.PARAMETERS, "those that are always safe")
    assert "n up to 0" in change.after


def test_a_large_policy_is_compared_by_its_kinds() -> None:
    """200 models and 100 roles that no rule tells apart are few comparisons."""
    models = "".join(f"  m{n}: {{upstream: main}}\n" for n in range(200))
    roles = ", ".join(f"r{n}" for n in range(100))
    old = (
        OLD.replace("  iris:", models + "  iris:")
        .replace("[reader]", f"[{roles}]")
        .replace("models: [iris]", "models: any")
    )
    ((change, cells),) = difference(policy(old), policy(old.replace("decimals: 2", "decimals: 3"))).access
    assert change.kind is Kind.FINER
    assert [(len(cell.roles), len(cell.models)) for cell in cells] == [(100, 201)]


def test_every_part_of_a_rule_is_compared() -> None:
    """A new field of a rule or a detector's use is a new way to differ: teach `proxy.policy.access`, then this test."""
    ways = {"scope", "shadow", "mfa", "budget", "output", "detector", "asks", "parameters", "terms", "lowered"}
    assert {field.name for field in fields(AllowRule)} == ways | {"id", "place"}
    uses = {"name", "file", "digest", "mode", "on_suspicion", "sequences"}
    assert {field.name for field in fields(DetectorUse)} == uses


def test_a_detector_that_judges_otherwise_is_told() -> None:
    kept = f"detectors:\n  d: {{file: d.onnx, sha256: {'a' * 64}}}\n"
    with_one = BASE + kept + READERS + "    detector: {use: d}\n"
    assert [kind for kind, _, _ in found(with_one)] == [Kind.DETECTOR]
    for old, new in (
        ("a" * 64, "b" * 64),
        ("{use: d}", "{use: d, mode: shadow}"),
        ("{use: d}", "{use: d, on_suspicion: label}"),
    ):
        assert [kind for kind, _, _ in found(with_one.replace(old, new), with_one)] == [Kind.DETECTOR]


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def hip_diff(directory: Path, new: str, *options: str) -> Result:
    for name, text in (("old", OLD), ("new", new)):
        (directory / name).mkdir(exist_ok=True)
        (directory / name / "policy.yaml").write_text(text)
    return CliRunner().invoke(app, ["diff", str(directory / "old"), str(directory / "new"), *options])


def test_the_command(tmp_path: Path) -> None:
    result = hip_diff(tmp_path, OLD.replace("[reader]", "[reader, guest]").replace("decimals: 2", "decimals: 1"))
    assert result.exit_code == 1
    assert result.output == (
        f"OPENED\n  guest: infer on iris\n      {WAY.replace('2 decimals', '1 decimal')}\n"
        "coarser output\n  reader: infer on iris\n      2 decimals → 1 decimal\n"
        f"next: hip replay JOURNAL --policy {tmp_path}/new says whom it would have met\n"
    )
    same = hip_diff(tmp_path, OLD)
    assert (same.exit_code, same.output) == (0, "no difference in access\n")
    told = json.loads(hip_diff(tmp_path, OLD.replace("decimals: 2", "decimals: 1"), "--json").output)
    assert told["access"][0]["change"] == "coarser"
    broken = hip_diff(tmp_path, OLD.replace("roles:", "roels:"))
    assert broken.exit_code == 2
    assert "did you mean `roles`?" in broken.output
