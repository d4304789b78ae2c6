"""Learning: what attacks the statistic sees, what the calibration guarantees, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from attacks import Rows, World, fgsm, hop_skip_jump, mixup, smooth_patches, uniform, world
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from proxy.detection.facts import DetectorFacts, Gate, rows_for
from proxy.detection.fit import Subject, fit, needed_rows, sketches, statistics
from proxy.detection.gate import breaches
from proxy.detection.graph import build, inspect
from proxy.errors import ConfigError

SUBJECT = Subject("rows.csv", ("m",))
ALPHA = 0.01


def learned(of: World) -> DetectorFacts:
    return fit(of.train, SUBJECT, ALPHA)


def scores(facts: DetectorFacts, rows: Rows) -> np.ndarray:
    return statistics(facts, rows.astype(np.float32))


def auroc_and_tpr(facts: DetectorFacts, ordinary: Rows, attack: Rows) -> tuple[float, float]:
    """Return the area under the curve, and the true positives where 1 % of the ordinary test rows are above."""
    good, bad = scores(facts, ordinary), scores(facts, attack)
    truth = np.repeat([0, 1], [len(good), len(bad)])
    return roc_auc_score(truth, np.concatenate([good, bad])), float((bad > np.quantile(good, 0.99)).mean())


def without_gate(facts: DetectorFacts) -> DetectorFacts:
    nothing = np.zeros_like(facts.mean)
    return replace(facts, gate=Gate(facts.gate.centre, nothing + np.float32(1e30), nothing, nothing))


def off_grid(rows: Rows) -> Rows:
    return rows + 1 / 37


# ── what it sees, docs/defence ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("attack", "auroc", "positives"),
    [
        (lambda of: uniform(of, 400), 0.999, 0.999),
        (lambda of: smooth_patches(of, 400), 0.999, 0.99),
        (lambda of: fgsm(of, 0.1), 0.99, 0.95),
        (lambda of: fgsm(of, 0.2), 0.99, 0.98),
        (lambda of: hop_skip_jump(of, 400), 0.98, 0.95),
    ],
    ids=["uniform", "patches", "fgsm .1", "fgsm .2", "hop_skip_jump"],
)
def test_attacks_on_digits_are_seen(attack, auroc, positives) -> None:
    of = world("digits")
    found = auroc_and_tpr(learned(of), of.test, attack(of))
    assert found[0] >= auroc
    assert found[1] >= positives


def test_attacks_on_digits_that_stay_on_the_grid_are_seen_by_distance_alone() -> None:
    """What the gate does not help with: the attack rounds to the grid that it knows."""
    of = world("digits")
    area, positives = auroc_and_tpr(learned(of), of.test, np.round(fgsm(of, 0.2) * 16) / 16)
    assert area >= 0.97
    assert positives >= 0.8


def test_uniform_rows_on_a_table_are_seen() -> None:
    of = world("breast_cancer")
    assert auroc_and_tpr(learned(of), of.test, uniform(of, 400)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("attack", "auroc", "positives"),
    [
        (lambda of: uniform(of, 400), 0.999, 0.99),
        (lambda of: smooth_patches(of, 400), 0.99, 0.95),
        (lambda of: fgsm(of, 0.1), 0.97, 0.5),
        (lambda of: fgsm(of, 0.2), 0.98, 0.9),
        (lambda of: hop_skip_jump(of, 400), 0.8, 0.4),
    ],
    ids=["uniform", "patches", "fgsm .1", "fgsm .2", "hop_skip_jump"],
)
def test_distance_alone_keeps_to_the_table_on_digits(attack, auroc, positives) -> None:
    of = world("digits")
    found = auroc_and_tpr(without_gate(learned(of)), of.test, attack(of))
    assert found[0] >= auroc
    assert found[1] >= positives


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_distance_alone_does_not_see_mixup(name) -> None:
    """An honest limit: rows between ordinary rows are ordinary. Should this ever fail, mend the documents."""
    of = world(name)
    area, positives = auroc_and_tpr(without_gate(learned(of)), of.test, mixup(of, 400))
    assert area < 0.6
    assert positives < 0.05


def test_distance_alone_does_not_see_attacks_on_tables() -> None:
    """The other honest limit: small steps on a table are ordinary too; only the grid tells, until they round to it."""
    of = world("breast_cancer")
    facts = learned(of)
    assert auroc_and_tpr(without_gate(facts), of.test, fgsm(of, 0.1))[1] < 0.3
    assert auroc_and_tpr(facts, of.test, fgsm(of, 0.1))[1] > 0.8


# ── the guarantee ───────────────────────────────────────────────────────────────────────────────────────────────


def test_ordinary_rows_are_called_suspicious_at_the_target_rate() -> None:
    """Split-conformal: over splits, the mean rate is at most alpha (here up to its standard error)."""
    rates = []
    for seed in range(12):
        of = world("digits", seed)
        facts = learned(of)
        rates.append((scores(facts, of.test) > facts.threshold).mean())
    assert np.mean(rates) <= ALPHA + 2 * np.std(rates) / len(rates) ** 0.5


def test_the_threshold_is_where_the_p_value_reaches_alpha() -> None:
    facts = learned(world("digits"))
    at = np.array([facts.threshold, np.nextafter(facts.threshold, np.inf, dtype=np.float32)], np.float32)
    below, above = facts.p_values(at)
    assert above <= facts.alpha < below


@pytest.mark.parametrize("alpha", [0.2, 0.1, 0.05, 1 / 3 / 7, 0.01, 0.001])
def test_rows_for_is_the_smallest_calibration(alpha) -> None:
    n = rows_for(alpha)
    assert 1 / (n + 1) <= alpha < 1 / n or n == 1


@pytest.mark.parametrize("alpha", [0.2, 0.1, 0.013, 0.01, 0.002])
def test_needed_rows_are_enough_and_one_less_is_refused(alpha) -> None:
    rows = np.random.default_rng(0).normal(size=(needed_rows(alpha), 3))
    facts = fit(rows, SUBJECT, alpha)
    assert 1 / (len(facts.calibration) + 1) <= alpha
    with pytest.raises(ConfigError, match=rf"are too few .*needs {len(rows)} rows"):
        fit(rows[1:], SUBJECT, alpha)


def test_the_same_rows_make_the_same_detector() -> None:
    first, second = learned(world("digits")), learned(world("digits"))
    assert first.data_sha256 == second.data_sha256
    assert first.tau == second.tau
    np.testing.assert_array_equal(first.calibration, second.calibration)
    np.testing.assert_array_equal(first.components, second.components)


# ── the gate ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_grid_of_digits_is_one_sixteenth() -> None:
    of = world("digits")
    gate = learned(of).gate
    stepped = gate.inverse_step[gate.inverse_step > 0]
    assert len(stepped) > 40
    np.testing.assert_array_equal(stepped, 16)
    assert not breaches(gate, of.test.astype(np.float32)).any()
    assert (breaches(gate, off_grid(of.test).astype(np.float32)) > 40).all()


def test_decimals_are_a_grid() -> None:
    """Lengths in the real table have two decimals, or three: rounded to three, every row keeps to it."""
    rows = np.round(load_breast_cancer().data[:, [0, 1]], 3)
    facts = fit(rows, SUBJECT, ALPHA)
    np.testing.assert_allclose(facts.gate.inverse_step, [1000, 100], rtol=1e-4)


def test_standardised_values_keep_their_grid() -> None:
    """A client that standardises moves the grid's origin and step; the gate finds both."""
    of = world("digits")
    mean, deviation = of.train.mean(), of.train.std()
    gate = fit((of.train - mean) / deviation, SUBJECT, ALPHA).gate
    np.testing.assert_allclose(gate.inverse_step[gate.inverse_step > 0], 16 * deviation, rtol=1e-5)


def test_a_value_seen_in_the_second_half_only_ends_a_grid() -> None:
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 50, size=(2000, 2)).astype(float)
    rows[:, 1] += generator.random(2000) < 0.02  # still whole
    rows[generator.random(2000) < 0.02, 1] += 0.5 * generator.random()
    assert list(fit(rows, SUBJECT, ALPHA).gate.inverse_step) == [1, 0]


def test_continuous_features_have_no_grid() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 8))
    assert not fit(rows, SUBJECT, ALPHA).gate.inverse_step.any()


def test_foreign_units_are_outside_of_the_ranges() -> None:
    of = world("digits")
    assert (breaches(learned(of).gate, (of.test * 255).astype(np.float32)) > 10).all()


# ── odd data ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_constant_features_are_learned_as_such() -> None:
    generator = np.random.default_rng(0)
    rows = np.column_stack([generator.normal(size=(1000, 3)), np.full(1000, 7.0)])
    facts = fit(rows, SUBJECT, ALPHA)
    ordinary, moved = rows[:1].astype(np.float32), rows[:1].astype(np.float32)
    moved[0, 3] += 50
    assert statistics(facts, moved) > facts.threshold >= statistics(facts, ordinary)


def test_collinear_features_are_a_rule_that_a_row_can_break() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(1000, 2))
    rows = np.column_stack([rows, rows.sum(axis=1)])
    facts = fit(rows, SUBJECT, ALPHA)
    broken = np.array([[1, 1, -1]], np.float32)
    assert statistics(facts, broken) > facts.threshold


def test_one_feature_and_more_features_than_rows() -> None:
    generator = np.random.default_rng(0)
    for features in (1, 700):
        facts = fit(generator.normal(size=(400, features)), SUBJECT, ALPHA)
        assert facts.projection.shape == (features, 64)
        assert (facts.p_values(statistics(facts, np.full((1, features), 1e3, np.float32))) <= ALPHA).all()


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-20, 1e20, 3e37])
def test_units_do_not_matter_as_long_as_float32_has_them(scale) -> None:
    """From subnormal to nearly infinite: a file that can be loaded, and a verdict that is a number."""
    rows = np.random.default_rng(0).normal(size=(1000, 3)) * scale
    facts = inspect(build(fit(rows, SUBJECT, ALPHA)), "f")
    extremes = np.array([[0, 0, 0], [3.4e38, -3.4e38, 3.4e38]], np.float32)
    ordinary, strange = statistics(facts, extremes)
    assert ordinary <= facts.threshold < strange < np.inf


def test_a_value_that_moves_once_makes_a_detector() -> None:
    """No scale may be zero: here float32 has the mean itself as nearly every value."""
    rows = np.full((1000, 2), 1e8)
    rows[:, 1] = np.random.default_rng(0).normal(size=1000)
    for row in range(0, 1000, 300):
        rows[row, 0] += 8
    inspect(build(fit(rows[:, :1], SUBJECT, ALPHA)), "f")
    inspect(build(fit(rows, SUBJECT, ALPHA)), "f")


def test_duplicate_rows_do_not_make_tau_zero() -> None:
    rows = np.repeat(np.random.default_rng(0).normal(size=(100, 4)), 10, axis=0)
    assert fit(rows, SUBJECT, ALPHA).tau > 0


def test_sketches_of_wide_rows_keep_distances() -> None:
    """Johnson and Lindenstrauss: 64 projections, so within some tenths for every pair of fifty rows."""
    rows = np.random.default_rng(0).normal(size=(400, 300))
    facts = fit(rows, SUBJECT, ALPHA)
    near = rows[:50].astype(np.float32)
    z = (near - facts.mean) * facts.inverse_scale
    pairs = np.triu_indices(50, 1)
    true = np.linalg.norm(z[pairs[0]] - z[pairs[1]], axis=1)
    kept = np.linalg.norm((sketches(facts, near)[pairs[0]] - sketches(facts, near)[pairs[1]]), axis=1)
    assert np.abs(kept / true - 1).max() < 0.5


ORDINARY = np.random.default_rng(0).normal(size=(400, 4))


def spoiled(value: float) -> Rows:
    rows = ORDINARY.copy()
    rows[6, 2] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "subject", "alpha", "message"),
    [
        (spoiled(np.nan), SUBJECT, 0.01, "row 7, column 3"),
        (spoiled(np.inf), SUBJECT, 0.01, "row 7, column 3"),
        (spoiled(1e39), SUBJECT, 0.01, "row 7, column 3"),
        (np.ones((400, 4)), SUBJECT, 0.01, "every feature is constant"),
        (ORDINARY[0], SUBJECT, 0.01, "not a table"),
        (ORDINARY[:, :0], SUBJECT, 0.01, "not a table"),
        (ORDINARY[:0], SUBJECT, 0.01, "0 rows are too few"),
        (ORDINARY, SUBJECT, 0.001, "400 rows are too few .*needs 2497 rows"),
        (ORDINARY, SUBJECT, 0.0, "not a false-alarm rate"),
        (ORDINARY, SUBJECT, float("nan"), "not a false-alarm rate"),
        (ORDINARY, SUBJECT, 0.5, "not a false-alarm rate"),
        (ORDINARY, Subject("f", ("m",), ("a", "b")), 0.01, "2 names for 4 features"),
        (ORDINARY, Subject("f", ("m",), ("a", "b", "c", "a")), 0.01, "stands twice"),
        (ORDINARY, Subject("f", ()), 0.01, "for no model"),
        (ORDINARY, Subject("f", ("",)), 0.01, "a name is empty"),
        (np.zeros((400, 16_385)), SUBJECT, 0.01, "at most 16384"),
    ],
)
def test_rows_that_support_no_detector_are_refused(rows, subject, alpha, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        fit(rows, subject, alpha)
    assert all(finding.hint for finding in caught.value.findings)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        fit(spoiled(np.nan)[:50], Subject("f", (), ("a",)), 0.01)
    assert len(caught.value.findings) == 4
