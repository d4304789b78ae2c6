"""Encoded images for the tests: ordinary ones, strange ones, and what is none."""

import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from proxy.demo.digits import load_digits
from proxy.detection.encoded import PNG

SIDE = 32  # pixels


def digits(part: str) -> Iterator[np.ndarray]:
    """Yield the digits of a part of the demo's data, as a scanner would have made them."""
    for image in getattr(load_digits(), part).reshape(-1, 8, 8):
        small = Image.fromarray((image / 16 * 255).astype(np.uint8))
        yield np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def saved(pixels: np.ndarray | Image.Image, form: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, form, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + bytes((depth, colour, 0, 0, 0)))


def bomb(width: int, height: int, rows: int | None = None) -> bytes:
    """A PNG of zeros, a thousandth of its pixels long; of which `rows` are there."""
    lines = zlib.compress(bytes((width + 1) * (height if rows is None else rows)), 9)
    return PNG + header(width, height) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """A PNG with one chunk more, behind its header."""
    at = len(PNG) + 25
    return png[:at] + chunk(name, data) + png[at:]


def with_segment(jpeg: bytes, marker: int, data: bytes) -> bytes:
    """A JPEG with one segment more, at its beginning."""
    return jpeg[:2] + bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2) + data + jpeg[2:]
