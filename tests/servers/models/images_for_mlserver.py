"""A model of MLServer's own making that takes encoded images in BYTES, in base64 or as they are, and scores their size.

It decodes nothing: that the image arrived whole is all that the tests ask of it.
"""

from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from numpy import array


class Images(MLModel):
    """Answers, for each image, the share that its length has of a mebibyte, and the rest."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score."""
        images = Base64Codec.decode_input(payload.inputs[0])
        shares = [min(len(image) / (1 << 20), 1.0) for image in images]
        scores = array([[share, 1 - share] for share in shares])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
