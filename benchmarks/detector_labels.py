"""What it would bring to judge an input by the label that the model returns for it, in place of by itself.

    python benchmarks/detector_labels.py

prints, for scikit-learn's digits and a logistic regression, both learned from one half of the rows: AUROC and true
positives at 1 % false alarms of the distance as shipped (the larger of T² and SPE), of that with the gate, and of a
squared prediction error for each label: of the label that is returned, which is known only after the model has
answered, and the smallest of all labels, which is known before. Attacks stay on the grid or leave it. Then how unevenly
false alarms fall on labels. Means of ten splits.
Nothing here decides anything; docs/adr/0015-detector-kinds.md reads it.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[1]))

from proxy.detection.facts import BREACH, DetectorFacts
from proxy.detection.fit import Subject, fit, statistics
from proxy.detection.gate import breaches

ALPHA, SPLITS, VARIANCE, STEP = 0.01, 10, 0.98, 1 / 16
Scores = dict[str, np.ndarray]


class ByLabel:
    """A squared prediction error for each label, in units of what 99 % of the label's own rows stay below."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray) -> None:
        self.parts = []
        for label in range(10):
            own = rows[labels == label]
            mean = own.mean(axis=0)
            _, singular, axes = np.linalg.svd(own - mean, full_matrices=False)
            kept = int(np.searchsorted(np.cumsum(singular**2), VARIANCE * (singular**2).sum())) + 1
            self.parts.append((mean, axes[:kept], 1.0))
            self.parts[-1] = (mean, axes[:kept], float(np.quantile(self._error(own, label), 0.99)))

    def _error(self, rows: np.ndarray, label: int) -> np.ndarray:
        mean, axes, scale = self.parts[label]
        z = rows - mean
        return ((z * z).sum(axis=1) - ((z @ axes.T) ** 2).sum(axis=1)) / scale

    def every(self, rows: np.ndarray) -> np.ndarray:
        """Return the error under each label, shape (rows, 10)."""
        return np.array([self._error(rows, label) for label in range(10)]).T


def fgsm(target: LogisticRegression, rows: np.ndarray, labels: np.ndarray, size: float) -> np.ndarray:
    """Take one step of this size away from the label in every feature."""
    slope = (target.predict_proba(rows) - np.eye(10)[labels]) @ target.coef_
    return np.clip(rows + size * np.sign(slope), 0, 1)


def scores_of(target: LogisticRegression, facts: DetectorFacts, by_label: ByLabel, given: np.ndarray) -> Scores:
    """Return what each way says of each row."""
    single = given.astype(np.float32)
    every, whole = by_label.every((given - facts.mean) * facts.inverse_scale), statistics(facts, single)
    return {
        "T² and SPE": whole - BREACH * breaches(facts.gate, single),
        "the same, with the gate": whole,
        "SPE of the returned label": every[np.arange(len(given)), target.predict(given)],
        "smallest SPE of any label": every.min(axis=1),
    }


def main() -> None:
    """Print two tables."""
    data = load_digits()
    rows, labels = data.data / 16, data.target
    found: dict[str, list[tuple[float, float]]] = {}
    spread: list[tuple[float, float, int]] = []
    for split in range(SPLITS):
        rng = np.random.default_rng(split)
        order = rng.permutation(len(rows))
        fitted, calibration, test = np.split(order, [900, 1350])
        target = LogisticRegression(max_iter=2000).fit(rows[fitted], labels[fitted])
        facts = fit(rows[fitted].astype(np.float32), Subject("digits", ("m",)), 0.02)
        by_label = ByLabel((rows[fitted] - facts.mean) * facts.inverse_scale, labels[fitted])

        judged = partial(scores_of, target, facts, by_label)
        ordinary, held = judged(rows[calibration]), judged(rows[test])
        other = rng.permutation(test)
        attacks = {
            "FGSM .1": fgsm(target, rows[test], labels[test], 0.1),
            "FGSM .125, on the grid": fgsm(target, rows[test], labels[test], 2 * STEP),
            "FGSM .25, on the grid": fgsm(target, rows[test], labels[test], 4 * STEP),
            "mixup, on the grid": np.round((rows[test] + rows[other]) / 2 / STEP) * STEP,
        }
        for attack, strange in attacks.items():
            for name, scores in judged(strange).items():
                n = len(ordinary[name])
                threshold = np.sort(ordinary[name])[n - int(ALPHA * (n + 1))]
                auroc = roc_auc_score([0] * len(held[name]) + [1] * len(scores), np.concatenate([held[name], scores]))
                found.setdefault(f"{attack}: {name}", []).append((auroc, float((scores >= threshold).mean())))
        name, returned = "T² and SPE", target.predict(rows[test])
        threshold = np.sort(ordinary[name])[len(calibration) - int(ALPHA * (len(calibration) + 1))]
        alarms = held[name] >= threshold
        shares = [float(alarms[returned == label].mean()) for label in range(10)]
        smallest = int(np.bincount(target.predict(rows[calibration]), minlength=10).min())
        spread.append((float(alarms.mean()), max(shares), smallest))
    for words, pairs in found.items():
        auroc, caught = np.mean(pairs, axis=0)
        print(f"{words:52} {auroc:.2f} / {caught:.2f}")
    all_of_them, worst, smallest_label = np.mean(spread, axis=0)
    print(f"false alarms {all_of_them:.3f}, of the label with most {worst:.3f}")
    print(f"calibration rows of the rarest label {smallest_label:.0f}; {ALPHA:g} needs {int(1 / ALPHA) - 1}")


if __name__ == "__main__":
    main()
