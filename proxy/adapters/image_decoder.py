"""Pillow: the pixels of an encoded image that `proxy.detection.encoded` has read and written again.

Nothing else of Pillow is reached: no registry of formats, no text, profile or EXIF reader. It is imported where a
detector of encoded images is loaded, and nowhere before. Not guaranteed: that libjpeg-turbo and zlib-ng, which are
C, have no faults; docs/threat-model.md says what one would be worth.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from proxy.detection.encoded import MAX_IMAGES, MAX_PIXELS, WORK, Encoded, Floats, check_pixels, encoded, numbers
from proxy.errors import Malformed
from proxy.reasons import Reason


def headers(images: Sequence[bytes]) -> list[Encoded]:
    """Return what is in each file. Raise Malformed(SCHEMA_MISMATCH), also for too many pixels together."""
    if not 0 < len(images) <= MAX_IMAGES:
        raise Malformed(Reason.SCHEMA_MISMATCH, f"{len(images)} images; at least one, at most {MAX_IMAGES}")
    found = [encoded(image) for image in images]
    if (pixels := sum(one.pixels for one in found)) > MAX_PIXELS:
        raise Malformed(Reason.SCHEMA_MISMATCH, f"images of {pixels:,} pixels; at most {MAX_PIXELS:,} are decoded")
    return found


def rows(images: Sequence[Encoded]) -> Floats:
    """Return a row of numbers for each image. Raise Malformed(SCHEMA_MISMATCH) where there is none in it."""
    return np.array([numbers(_grey(image)) for image in images])


def _grey(image: Encoded) -> NDArray[np.uint8]:
    """Return the luma (ITU-R BT.601) of every pixel, shape (height, width); of a large image of every few."""
    check_pixels(image)
    try:
        return _decoded(image)
    except Exception as exc:  # Pillow's readers raise whatever they run into
        raise Malformed(Reason.SCHEMA_MISMATCH, f"an image that cannot be decoded: {type(exc).__name__}") from exc


def _decoded(image: Encoded) -> NDArray[np.uint8]:
    source = io.BytesIO(image.data)
    with JpegImageFile(source) if image.jpeg else PngImageFile(source) as opened:
        if opened.size != (image.width, image.height):
            raise ValueError("two readings of one header")
        if isinstance(opened, JpegImageFile):
            opened.draft("L", (WORK, WORK))
        opened.load()
        if opened.mode.startswith("I"):  # 16 bits of grey
            light = Image.fromarray((np.asarray(opened, dtype=np.uint32) >> 8).astype(np.uint8))
        else:
            light = (opened if opened.mode in {"L", "RGB"} else opened.convert("RGB")).convert("L")
        return np.asarray(light.reduce((max(1, light.width // WORK), max(1, light.height // WORK))))
