"""Rebuild the demo's model and data: `python benchmarks/make_digits.py [DIRECTORY]`, proxy/demo/assets by default.

A logistic regression on scikit-learn's digits, features in [0, 1] (pixel / 16), trained on the even rows, as an ONNX
graph made by hand. Logistic regression on purpose: it is the target that equation solving copies exactly from full
scores, so the demo protects something that needs protection. Deterministic: no random number is drawn; another BLAS
may move the last bits of the weights, which the test of this file allows for.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

ASSETS = Path(__file__).parent.parent / "proxy" / "demo" / "assets"
PIXELS, CLASSES, WHITE = 64, 10, 16
OPSET, IR = 18, 8  # ONNX 1.13, the first release with opset 18, wrote IR 8: old runtimes read it too
MAX_ITERATIONS = 1_000  # the solver needs about 70


def graph(weights: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    """Write softmax(x @ weights + bias) as ONNX."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    body = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", PIXELS])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model, full_check=True)
    return model


def make(directory: Path) -> None:
    """Train, and write digits.onnx and digits.npz."""
    pixels, labels = load_digits(return_X_y=True)
    training, heldout = slice(0, None, 2), slice(1, None, 2)
    scaled = (pixels / WHITE).astype(np.float32)
    fitted = LogisticRegression(max_iter=MAX_ITERATIONS).fit(scaled[training], labels[training])
    model = graph(fitted.coef_.T.astype(np.float32), fitted.intercept_.astype(np.float32))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "digits.onnx").write_bytes(model.SerializeToString(deterministic=True))
    np.savez_compressed(
        directory / "digits.npz",
        training=pixels[training].astype(np.uint8),
        training_labels=labels[training].astype(np.uint8),
        heldout=pixels[heldout].astype(np.uint8),
        heldout_labels=labels[heldout].astype(np.uint8),
    )
    print(f"held-out accuracy {fitted.score(scaled[heldout], labels[heldout]):.4f}")
    for path in sorted(directory.glob("digits.*")):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS)
