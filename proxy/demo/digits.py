"""Real hand-written digits, and the model that reads them. Where they come from: assets/README.md."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxy.exchange import Features

ASSETS = Path(__file__).parent / "assets"
MODEL_FILE = ASSETS / "digits.onnx"
DATA_FILE = ASSETS / "digits.npz"

PIXELS = 64  # an image of 8 x 8
CLASSES = 10
WHITE = 16  # the brightest pixel; the model takes pixel / WHITE

Pixels = NDArray[np.uint8]  # shape (rows, PIXELS), 0 to WHITE


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """Both halves: the model learned from `training` and has never seen `heldout`."""

    training: Pixels
    training_labels: NDArray[np.uint8]
    heldout: Pixels
    heldout_labels: NDArray[np.uint8]


def load_digits() -> Digits:
    """Read the images from the assets."""
    with np.load(DATA_FILE, allow_pickle=False) as arrays:
        return Digits(arrays["training"], arrays["training_labels"], arrays["heldout"], arrays["heldout_labels"])


def scaled(pixels: Pixels) -> Features:
    """Return the images as the model takes them: float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(WHITE)
