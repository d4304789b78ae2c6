"""Encoded images, PNG and JPEG: what is in a file, before any pixel is decoded, and what is judged of the pixels. Pure.

A file is read chunk by chunk (PNG, third edition; ITU-T T.81 for JPEG), checked, and written again with nothing but
what makes pixels: no comment, profile or EXIF data reaches a decoder. What has two readings is refused: an animation, a
chunk with a wrong checksum, an unknown critical one, a second frame, an end that is missing.

An image of any size becomes SIDE x SIDE cells in grey, squeezed, and beside them as many that say how rough each cell
is: the mean difference between neighbours, which noise raises and a mean hides. Not guaranteed: that the model sees the
same. It may turn the image as EXIF says, cut it, lay it on a ground where it is transparent, or convert its colours.
"""

import zlib
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from proxy.detection.picture import SIDE, Layout, Picture
from proxy.errors import Malformed
from proxy.reasons import Reason

Floats = NDArray[np.float32]

MAX_PIXELS = 1 << 24  # of all images of a request, 4096 x 4096; what that costs: benchmarks/encoded_images.py
MAX_IMAGES = 1024  # of a request
MAX_PARTS = 1 << 14  # chunks or segments of a file, each of which costs a microsecond
MAX_SCANS = 64  # of a progressive JPEG: each one goes over all pixels
MAX_FILL = 16  # bytes before a marker
INFLATED = 1 << 20  # bytes of a PNG's lines that are held while they are counted
WORK = 512  # pixels of a side: what has twice as many is first made smaller, as for a model
PICTURE = Picture(Layout.ENCODED, 1, 2 * SIDE, SIDE)  # above the grey cells, below how rough they are

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_INDEXED = 3  # the colour type whose pixels are numbers of colours
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the colour type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_ANIMATED = frozenset({b"acTL", b"fcTL", b"fdAT"})
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive: what everybody decodes
_TABLES = frozenset({0xC4, 0xDB, 0xDD})  # Huffman, quantisation, restart interval
_SCAN, _COMMENT = 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_COLOURS = ((0xE0, b"JFIF\0"), (0xEE, b"Adobe"))  # what says how the components are colours
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image that is yet to be decoded."""

    width: int  # pixels
    height: int
    data: bytes  # with nothing but what makes pixels
    jpeg: bool

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return self.width * self.height


def encoded(data: bytes) -> Encoded:
    """Return what is in a file. Raise Malformed(SCHEMA_MISMATCH) where it is not exactly one PNG or JPEG image.

    It costs what the file's bytes cost: a PNG's pixels are counted by `check_pixels`.
    """
    if data.startswith(PNG):
        found = _png(data)
    elif data.startswith(JPEG):
        found = _jpeg(data)
    else:
        _refuse("neither PNG nor JPEG")
    if not 0 < found.pixels <= MAX_PIXELS:
        _refuse(f"an image of {found.width} x {found.height} pixels; at most {MAX_PIXELS:,} are decoded")
    return found


def numbers(grey: NDArray[np.uint8]) -> Floats:
    """Return what is judged of an image: the numbers of PICTURE, from shape (height, width)."""
    for axis in (0, 1):
        side = grey.shape[axis]
        if side < SIDE:
            grey = np.take(grey, np.arange(SIDE) * side // SIDE, axis=axis)
    light = grey.astype(np.float32)
    rough = np.zeros_like(light)
    rough[:, 1:] = np.abs(np.diff(light, axis=1))
    rough[1:] += np.abs(np.diff(light, axis=0))
    return np.concatenate([_cells(light), _cells(rough)]).reshape(-1)


def _cells(values: Floats) -> Floats:
    sums = values
    for axis in (0, 1):
        side = values.shape[axis]
        edges = np.arange(SIDE + 1) * side // SIDE
        sums = np.add.reduceat(sums, edges[:-1], axis=axis)
        sums /= np.diff(edges).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
    return sums


# ── PNG ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _png(data: bytes) -> Encoded:
    """Read chunk by chunk, up to the end; what stands behind it is no image's."""
    kept, names, at = [PNG], [b""], len(PNG)
    while names[-1] != b"IEND":
        if len(names) > MAX_PARTS:
            _refuse(f"a PNG of more than {MAX_PARTS} chunks")
        name, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data) or not name.isalpha():
            _refuse("a PNG that ends early, or a chunk without a name")
        if name in _PNG_ANIMATED:
            _refuse("a PNG with several frames")
        if name in _PNG_KEPT:
            if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
                _refuse("a PNG chunk with a wrong checksum")
            if name in names and not name == names[-1] == b"IDAT":
                _refuse("a PNG chunk that stands twice")
            if name == b"PLTE" and b"IDAT" in names:
                _refuse("a PNG whose palette comes after its pixels")
            kept.append(data[at:end])
            names.append(name)
        elif name[:1].isupper():
            _refuse("a PNG with a critical chunk that nobody knows")
        else:
            names.append(b"")  # parts those before it from those behind
        at = end
    if names[1] != b"IHDR" or len(kept[1]) != 25 or b"IDAT" not in names:
        _refuse("a PNG without its header or its pixels")
    if kept[1][17] == _INDEXED and b"PLTE" not in names:
        _refuse("a PNG without its palette")
    width, height = (int.from_bytes(kept[1][start : start + 4]) for start in (8, 12))
    return Encoded(width, height, b"".join(kept), jpeg=False)


def check_pixels(image: Encoded) -> None:
    """Refuse pixels that are not exactly as many as the header says: a decoder would show the missing ones black."""
    if image.jpeg:
        return
    at = len(PNG)
    depth, colour, *_, interlaced = image.data[at + 16 : at + 21]
    bits = depth * _SAMPLES.get(colour, 0)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sides = [(-(-(image.width - x) // wide), -(-(image.height - y) // high)) for x, y, wide, high in passes]
    left = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sides if columns > 0 and rows > 0)
    stream, rest = zlib.decompressobj(), _pixels(image.data)
    try:
        while left >= 0 and not stream.eof:
            lines = stream.decompress(rest, INFLATED)
            rest, left = stream.unconsumed_tail, left - len(lines)
            if not lines and not rest:
                break
    except zlib.error as exc:
        raise Malformed(Reason.SCHEMA_MISMATCH, "a PNG whose pixels are not compressed as they should be") from exc
    if left or not stream.eof:
        _refuse("a PNG with more or fewer pixels than its header says")


def _pixels(png: bytes) -> bytes:
    parts, at = [], len(PNG)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            parts.append(png[at + 8 : end - 4])
        at = end
    return b"".join(parts)


# ── JPEG ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _jpeg(data: bytes) -> Encoded:
    kept, at, parts = [data[:2]], 2, 0
    frame: bytes | None = None
    marker = 0
    while marker != _SCAN:
        begin = at
        while data[at + 1 : at + 2] == b"\xff" and at - begin < MAX_FILL:  # T.81 section B.1.1.2
            at += 1
        parts += 1
        head, size = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4])
        end = at + 2 + size
        if len(head) < 2 or head[0] != 0xFF or size < 2 or end > len(data):
            _refuse(f"a JPEG that ends early, or is none, at byte {begin}")
        if parts > MAX_PARTS:
            _refuse(f"a JPEG of more than {MAX_PARTS} segments")
        marker, content = head[1], data[at + 4 : end]
        if marker in _FRAMES:
            if frame is not None:
                _refuse("a JPEG with several frames")
            frame = content
        elif marker not in {*_TABLES, *_APPLICATION, _SCAN, _COMMENT}:
            _refuse(f"a JPEG of a kind that is not decoded (marker {marker:#x})")
        if marker in _FRAMES or marker in _TABLES or any(marker == m and content.startswith(s) for m, s in _COLOURS):
            kept.append(data[at:end])
        elif marker == _SCAN:
            kept.append(_scans(data, at))
        at = end
    if frame is None or len(frame) < 6 or len(frame) != 6 + 3 * frame[5] or frame[0] != 8 or frame[5] not in {1, 3, 4}:
        _refuse("a JPEG without a frame of 8 bits and 1, 3 or 4 components")
    height, width = (int.from_bytes(frame[start : start + 2]) for start in (1, 3))
    return Encoded(width, height, b"".join(kept), jpeg=True)


def _scans(data: bytes, at: int) -> bytes:
    """Return everything from the first scan to the end of the image. What stands behind it is no image's."""
    end = data.find(_END, at)
    if end < 0:
        _refuse("a JPEG that ends early")
    scans = data[at : end + len(_END)]
    if scans.count(bytes((0xFF, _SCAN))) > MAX_SCANS:
        _refuse(f"a JPEG of more than {MAX_SCANS} scans")
    return scans


def _refuse(message: str) -> NoReturn:
    raise Malformed(Reason.SCHEMA_MISMATCH, message)
