"""Encoded images in Triton's Python backend: it scores their size, and so shows that they arrived whole."""

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """`image` in, the share that its length has of a mebibyte and the rest out."""

    def execute(self, requests):
        """Answer."""
        return [self._answer(triton.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]

    def _answer(self, images):
        shares = [min(len(image) / (1 << 20), 1.0) for image in images.reshape(-1)]
        scores = np.array([[share, 1 - share] for share in shares], np.float32)
        return triton.InferenceResponse(output_tensors=[triton.Tensor("scores", scores)])
