"""Loaded by Triton's Python backend as digits/1/model.py: a linear model that answers probabilities and its logits."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as triton  # the backend brings it


class TritonPythonModel:
    """Reads its weights from weights.npz beside it."""

    def initialize(self, arguments):
        """Load the weights."""
        with np.load(Path(__file__).with_name("weights.npz")) as arrays:
            self.weights, self.bias = arrays["weights"], arrays["bias"]

    def execute(self, requests):
        """Answer every request of the batch."""
        return [self.answer(triton.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, rows):
        """Return both outputs of one request."""
        if not np.isfinite(rows).all():  # as scikit-learn refuses it: Triton answers with the traceback
            raise ValueError("input contains NaN or infinity")
        logits = rows @ self.weights + self.bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        named = (("probabilities", probabilities), ("logits", logits))
        return triton.InferenceResponse([triton.Tensor(name, values.astype(np.float32)) for name, values in named])
