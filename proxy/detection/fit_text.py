"""Learns a detector of texts from ordinary ones: a table of surprises, two scales, a calibration, and sketches.

The texts are split at random once, with a fixed seed: the same texts in the same order make the same detector. Not
guaranteed: that the texts are ordinary; what is in them is what the detector takes for good.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from proxy.detection.facts import SKETCH, Floats, rows_for
from proxy.detection.fit import HELD_OUT, SCALE_QUANTILE, SEED, Steps, Subject, check_alpha, too_few
from proxy.detection.metadata import NAMES_FAULT, are_names
from proxy.detection.neighbours import near_distance
from proxy.detection.text import (
    BUCKETS,
    MAX_TEXT,
    SKETCH_BUCKETS,
    Grams,
    TextFacts,
    grams,
    mean_and_window,
    shares,
    statistic,
)
from proxy.errors import ConfigError, Finding

ABSENT = 0.1  # added to each bucket's count: what was never seen is rare, not impossible
MARGIN = 1.5  # times the longest text
MIN_SPREAD = 1e-3  # of a mean or window: the smallest scale
FOLDS = 5  # of the fitted texts: how surprising each is to a table of the others


def fit_texts(texts: Sequence[bytes], subject: Subject, alpha: float, step: Steps = lambda _: None) -> TextFacts:
    """Learn a detector. Raise ConfigError with every reason why the texts do not support one."""
    step("checking")
    _check(texts, subject, alpha)
    generator = np.random.default_rng(SEED)
    every = [grams(texts[at]) for at in generator.permutation(len(texts)).tolist()]
    held_out = max(round(HELD_OUT * len(texts)), rows_for(alpha))
    calibration, fitted = every[:held_out], every[held_out:]
    step("trigrams")
    facts = TextFacts(
        models=subject.models,
        names=(),
        rows=len(texts),
        data_sha256=_digest(texts),
        alpha=alpha,
        tau=1.0,
        calibration=np.zeros(1, np.float32),
        surprise=_surprise(fitted),
        mean_centre=0.0,
        mean_weight=1.0,
        window_centre=0.0,
        window_weight=1.0,
        longest=float(np.float32(MARGIN * max(map(len, every)))),
        projection=generator.standard_normal((SKETCH_BUCKETS, SKETCH)).astype(np.float32) / np.float32(SKETCH**0.5),
    )
    facts = _scaled(facts, fitted)
    step("calibration")
    facts = replace(facts, calibration=np.sort(np.array([statistic(facts, one) for one in calibration], np.float32)))
    step("nearest neighbours")
    sketches = np.vstack([shares(one) for one in every]) @ facts.projection
    if len(np.unique(sketches, axis=0)) < 2:
        raise _refused(subject, [("every text is the same", "give texts that differ, as real requests do")])
    return replace(facts, tau=near_distance(sketches))


def _surprise(fitted: Sequence[Grams]) -> Floats:
    """Return -log of each bucket's share, and their mean over the texts for what is not there."""
    counts = np.bincount(np.concatenate(fitted), minlength=BUCKETS + 1)[:BUCKETS]
    share = (counts + ABSENT) / (counts.sum() + ABSENT * BUCKETS)
    surprise = -np.log(share)
    usual = (surprise * counts).sum() / max(counts.sum(), 1)
    return np.append(surprise, usual).astype(np.float32)


def _scaled(facts: TextFacts, texts: Sequence[Grams]) -> TextFacts:
    """Measure both numbers from their means, in units of what SCALE_QUANTILE of the texts stay below."""
    found = []
    for fold in range(FOLDS):
        others = replace(facts, surprise=_surprise([one for at, one in enumerate(texts) if at % FOLDS != fold]))
        found += [mean_and_window(others, one) for one in texts[fold::FOLDS]]
    means, windows = np.array(found).T
    scales = []
    for values in (means, windows):
        centre = float(np.float32(values.mean()))
        spread = max(float(np.quantile(values, SCALE_QUANTILE)) - centre, MIN_SPREAD)
        scales.append((centre, float(np.float32(1 / spread))))
    (mean_centre, mean_weight), (window_centre, window_weight) = scales
    return replace(
        facts,
        mean_centre=mean_centre,
        mean_weight=mean_weight,
        window_centre=window_centre,
        window_weight=window_weight,
    )


def _digest(texts: Sequence[bytes]) -> str:
    hashed = hashlib.sha256()
    for text in texts:
        hashed.update(len(text).to_bytes(8, "big") + text)
    return hashed.hexdigest()


def _check(texts: Sequence[bytes], subject: Subject, alpha: float) -> None:
    check_alpha(subject, alpha)
    faults = too_few(len(texts), alpha)
    if not subject.models:
        faults.append(("it is for no model", "name the model with --model"))
    if not are_names(subject.models):
        faults.append((NAMES_FAULT, "give each a short name of its own"))
    if subject.names:
        faults.append(("names of features, and a text has none", "leave --names out"))
    large = [number for number, text in enumerate(texts, 1) if len(text) > MAX_TEXT]
    if large:
        faults.append((f"text {large[0]} has more than {MAX_TEXT:,} bytes", "the proxy does not judge such texts"))
    if faults:
        raise _refused(subject, faults)


def _refused(subject: Subject, faults: list[tuple[str, str]]) -> ConfigError:
    return ConfigError([Finding(subject.source, 0, 0, message, hint) for message, hint in faults])
