"""The demo's detector: what `hip detector fit` makes of the digits that the model learned from."""

from proxy.demo.digits import load_digits, scaled
from proxy.demo.model_server import MODEL
from proxy.detection.fit import Subject, fit
from proxy.detection.graph import build

ALPHA = 0.01  # of ordinary rows are called suspicious


def fit_digits_detector() -> bytes:
    """Return the detector file."""
    return build(fit(scaled(load_digits().training), Subject("the demo's digits", (MODEL,)), ALPHA))
