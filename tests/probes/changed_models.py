"""The demo's model as somebody might replace it: retrained on flipped labels, rounded, made for something else."""

import numpy as np
import onnx
from onnx import helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from proxy.demo.digits import CLASSES, MODEL_FILE, load_digits, scaled


def with_weights(weights: np.ndarray, bias: np.ndarray) -> bytes:
    model = onnx.load_from_string(MODEL_FILE.read_bytes())
    for tensor, array in zip(model.graph.initializer, (weights, bias), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    return model.SerializeToString()


def retrained(flipped: float, seed: int = 0) -> LogisticRegression:
    """Train as the demo's model was, with a share of the labels flipped."""
    digits, rng = load_digits(), np.random.default_rng(seed)
    labels = digits.training_labels.astype(int)
    chosen = rng.permutation(len(labels))[: round(flipped * len(labels))]
    labels[chosen] = (labels[chosen] + 1 + rng.integers(CLASSES - 1, size=len(chosen))) % CLASSES
    return LogisticRegression(max_iter=1_000).fit(scaled(digits.training), labels)


def poisoned() -> bytes:
    model = retrained(0.05)
    return with_weights(model.coef_.T, model.intercept_)


def rounding(decimals: int) -> bytes:
    """The same model, whose scores are rounded before they leave."""
    model = onnx.load_from_string(MODEL_FILE.read_bytes())
    graph = model.graph
    graph.node[-1].output[0] = "exact"
    graph.initializer.append(numpy_helper.from_array(np.float32(10**decimals), "factor"))
    graph.node.extend(
        [
            helper.make_node("Mul", ["exact", "factor"], ["larger"]),
            helper.make_node("Round", ["larger"], ["whole"]),
            helper.make_node("Div", ["whole", "factor"], ["probabilities"]),
        ]
    )
    return model.SerializeToString()


def swapped() -> bytes:
    """Another model of the same shape."""
    rng = np.random.default_rng(3)
    return with_weights(rng.normal(size=(64, CLASSES)), np.zeros(CLASSES))
