"""Learns a detector from ordinary inputs: standardise, principal components, gate, sketches, and a calibration.

Why the larger of T² and SPE, and 98 % of the variance: measured on digits and breast_cancer against sums and products
of the two it was the best or within .02 of it. The full Mahalanobis distance sees .07 more of HopSkipJump, all of
which the gate sees, and less of FGSM on a table (docs/adr). The rows are split at random once, with a fixed seed: the
same rows in the same order make the same detector.

Not guaranteed: anything about inputs that lie between ordinary ones (mixup), or about attacks on tabular data that
stay on its grid.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from proxy.detection.facts import BREACH, MAX_DEVIATION, DetectorFacts, Floats, Gate, rows_for
from proxy.detection.gate import breaches, learn_gate
from proxy.detection.metadata import NAMES_FAULT, are_names
from proxy.detection.neighbours import near_distance, projection
from proxy.detection.picture import Picture, everywhere, pixels, reduced
from proxy.errors import ConfigError, Finding
from proxy.exchange import Features

HELD_OUT = 0.4  # of the rows, for the calibration
VARIANCE = 0.98  # of the standardised data, kept by the components
SCALE_QUANTILE = 0.99  # of T² and of SPE over the fitted rows: their common scale
MIN_SCALE = 0.1  # of the median standard deviation: a nearly constant feature does not drown the others
MIN_DISTANCE = 1e-4  # per dimension: the smallest scale of T² and SPE; below it is only float32 rounding
MIN_FITTED = 30  # rows
MAX_FEATURES = 16_384
MAX_COMPONENTS = 192  # keeps one row of 784 features within 100 µs
MAX_COMPONENT_ROWS = 4096  # rows from which the components are computed
MAX_ALPHA = 0.2
MAX_GATE_PIXELS = 1 << 20  # pixels on which the gate of an image is learned
SEED = 20_240_607

Steps = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What the rows are of. `source` is the name that messages give them."""

    source: str
    models: tuple[str, ...]
    names: tuple[str, ...] = ()


def fit(
    rows: NDArray[np.floating],
    subject: Subject,
    alpha: float,
    step: Steps = lambda _: None,
    picture: Picture | None = None,
) -> DetectorFacts:
    """Learn a detector; `picture` says how a row is an image. Raise ConfigError with every reason why not."""
    step("checking")
    given = _checked(rows, subject, alpha, picture)
    generator = np.random.default_rng(SEED)
    order = generator.permutation(len(given))
    held_out = max(round(HELD_OUT * len(given)), rows_for(alpha))
    calibration, fitted = given[order[:held_out]], given[order[held_out:]]
    seen = fitted if picture is None else reduced(picture, fitted)
    if not (np.ptp(seen, axis=0) > 0).any():
        raise _refused(subject, "every feature is constant", "give rows that differ, as real requests do")
    step("principal components")
    mean, inverse_scale = _standard(seen)
    z = (seen - mean) * inverse_scale
    axes, variances = _components(z)
    step("gate")
    gate = learn_gate(fitted) if picture is None else _pixel_gate(picture, fitted, generator)
    facts = DetectorFacts(
        models=subject.models,
        names=subject.names,
        rows=len(given),
        data_sha256=hashlib.sha256(given.astype("<f4").tobytes()).hexdigest(),
        alpha=alpha,
        tau=1.0,
        calibration=np.zeros(1, np.float32),
        mean=mean,
        inverse_scale=inverse_scale,
        components=axes,
        t2_weights=(1 / variances).astype(np.float32),
        spe_weight=1.0 if axes.shape[1] < len(mean) else 0.0,
        projection=projection(len(mean), generator),
        gate=gate,
        picture=picture,
    )
    facts = _scaled(facts, fitted)
    step("calibration")
    facts = replace(facts, calibration=np.sort(statistics(facts, calibration)))
    step("nearest neighbours")
    return replace(facts, tau=near_distance(sketches(facts, given)))


def statistics(facts: DetectorFacts, rows: Features) -> Floats:
    """Return the statistic of each row: what the graph computes, in numpy."""
    t2, spe = _distances(facts, rows)
    statistic: Floats = np.maximum(t2, spe) + np.float32(BREACH) * breaches(facts.gate, rows)
    return statistic


def sketches(facts: DetectorFacts, rows: Features) -> Floats:
    """Return the sketch of each row."""
    sketch: Floats = _deviations(facts, rows) @ facts.projection
    return sketch


def _deviations(facts: DetectorFacts, rows: Features) -> Floats:
    if facts.picture is not None:
        rows = reduced(facts.picture, rows)
    with np.errstate(over="ignore"):  # clipped next
        z = (rows - facts.mean) * facts.inverse_scale
    clipped: Floats = np.clip(z, np.float32(-MAX_DEVIATION), np.float32(MAX_DEVIATION))
    return clipped


def _distances(facts: DetectorFacts, rows: Features) -> tuple[Floats, Floats]:
    z = _deviations(facts, rows)
    scores = z @ facts.components
    squares = scores * scores
    residual = np.maximum((z * z).sum(axis=1) - squares.sum(axis=1), np.float32(0))
    return squares @ facts.t2_weights, residual * np.float32(facts.spe_weight)


def _pixel_gate(of: Picture, rows: Features, generator: np.random.Generator) -> Gate:
    """Learn one gate for each channel: an object may stand anywhere in an image."""
    every = pixels(of, rows)
    chosen = every[generator.integers(len(every), size=min(len(every), MAX_GATE_PIXELS))]
    learned = learn_gate(np.vstack([chosen, every.min(axis=0), every.max(axis=0)]))  # extremes count, however rare
    return Gate(*(everywhere(of, getattr(learned, field.name)) for field in fields(learned)))


def _checked(rows: NDArray[np.floating], subject: Subject, alpha: float, picture: Picture | None) -> Features:
    """Return the rows as the proxy will see them: float32, with one zero."""
    check_alpha(subject, alpha)
    if rows.ndim != 2 or not rows.shape[1]:
        raise _refused(subject, f"not a table of numbers: shape {rows.shape}", "one row per input, one column a number")
    count, features = rows.shape
    faults: list[tuple[str, str]] = []
    if picture is not None and features != picture.numbers:
        faults.append((f"{features} numbers in a row, and {picture.numbers} in an image", "name the images' shape"))
    if picture is not None and (fault := picture.fault()):
        faults.append((fault, "name the images' shape and layout"))
    if picture is None and features > MAX_FEATURES:
        faults.append((f"{features} features", f"at most {MAX_FEATURES} are supported"))
    if subject.names and len(subject.names) != features:
        faults.append((f"{len(subject.names)} names for {features} features", "name each feature once, or none"))
    if not subject.models:
        faults.append(("it is for no model", "name the model with --model"))
    if not (are_names(subject.models) and are_names(subject.names)):
        faults.append((NAMES_FAULT, "give each a short name of its own"))
    faults += too_few(count, alpha)
    with np.errstate(over="ignore"):
        numbers: Features = np.ascontiguousarray(rows, dtype=np.float32) + np.float32(0)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, column = bad[0] + 1
        place = f"row {row}, column {column}" + (f", and {len(bad) - 1} more" if len(bad) > 1 else "")
        faults.append((f"not a finite float32: {place}", "remove such rows: the proxy refuses them too"))
    if faults:
        raise ConfigError([Finding(subject.source, 0, 0, message, hint) for message, hint in faults])
    return numbers


def check_alpha(subject: Subject, alpha: float) -> None:
    """Raise ConfigError for what is no false-alarm rate."""
    if not 0 < alpha <= MAX_ALPHA:
        raise _refused(subject, f"alpha {alpha:g} is not a false-alarm rate", f"choose one above 0, up to {MAX_ALPHA}")


def too_few(count: int, alpha: float) -> list[tuple[str, str]]:
    """Return what is to be said where so many rows do not support the rate."""
    needed = needed_rows(alpha)
    if count >= needed:
        return []
    hint = f"a false-alarm rate of {alpha:g} needs {needed} rows; give more, or a larger --alpha"
    return [(f"{count} rows are too few", hint)]


def needed_rows(alpha: float) -> int:
    """Return how many rows a false-alarm rate needs."""
    calibration = rows_for(alpha)
    count = max(int(calibration / HELD_OUT) - 1, calibration + MIN_FITTED)
    while round(HELD_OUT * count) < calibration:
        count += 1
    return count


def _standard(rows: Features) -> tuple[Floats, Floats]:
    wide = rows.astype(np.float64)
    deviation = wide.std(axis=0)
    floor = max(MIN_SCALE * float(np.median(deviation[deviation > 0])), float(np.finfo(np.float32).tiny))
    return wide.mean(axis=0).astype(np.float32), (1 / np.maximum(deviation, floor)).astype(np.float32)


def _components(z: Floats) -> tuple[Floats, NDArray[np.float64]]:
    """Return the axes that keep VARIANCE, and the variance along each. Works on the smaller of rows and features."""
    wide = z[:MAX_COMPONENT_ROWS].astype(np.float64)
    count, features = wide.shape
    if features <= count:
        values, vectors = np.linalg.eigh(wide.T @ wide / count)
    else:
        values, left = np.linalg.eigh(wide @ wide.T / count)
        vectors = wide.T @ left / np.sqrt(np.maximum(values, np.finfo(float).tiny) * count)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(values), VARIANCE * values.sum())) + 1
    kept = min(kept, MAX_COMPONENTS, len(values))
    axes = vectors[:, :kept]
    turned = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])  # an eigenvector has no sign: fix one
    return np.ascontiguousarray(axes * turned, dtype=np.float32), values[:kept]


def _scaled(facts: DetectorFacts, rows: Features) -> DetectorFacts:
    """Divide T² and SPE by what SCALE_QUANTILE of the fitted rows stay below."""
    t2, spe = _distances(facts, rows)
    by_t2 = max(float(np.quantile(t2, SCALE_QUANTILE)), MIN_DISTANCE * len(facts.t2_weights))
    by_spe = max(float(np.quantile(spe, SCALE_QUANTILE)), MIN_DISTANCE * facts.features)
    return replace(
        facts,
        t2_weights=(facts.t2_weights / by_t2).astype(np.float32),
        spe_weight=float(np.float32(facts.spe_weight / by_spe)),
    )


def _refused(subject: Subject, message: str, hint: str) -> ConfigError:
    return ConfigError([Finding(subject.source, 0, 0, message, hint)])
