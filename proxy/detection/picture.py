"""How a row is an image: its layout, and what is left of it for the principal components.

An image is seen in grey (the mean of its channels) and at most MAX_SIDE cells high and wide, each cell the mean of its
pixels: what the model looks at is larger than what tells an ordinary image from noise. What that leaves out, colour and
texture finer than a cell, only the gate sees, which looks at every pixel as it was received. Not guaranteed: that an
image is not shifted by a pixel, turned or mirrored; give images like those that come.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MAX_SIDE = 32  # cells
MAX_NUMBERS = 1 << 20  # of one image
MAX_CHANNELS = 16
SIDE = 16  # cells of an encoded image


class Layout(StrEnum):
    """In which order the numbers of a batch of images come."""

    NCHW = "nchw"  # channel by channel
    NHWC = "nhwc"  # pixel by pixel
    NHW = "nhw"  # one channel
    ENCODED = "encoded"  # PNG or JPEG, of which `proxy.detection.encoded` makes the numbers


@dataclass(frozen=True, slots=True)
class Picture:
    """The shape of one image."""

    layout: Layout
    channels: int
    height: int
    width: int

    @property
    def numbers(self) -> int:
        """How many numbers an image has."""
        return self.channels * self.height * self.width

    @property
    def cell(self) -> int:
        """How many pixels a cell is high and wide; those at the edges may be smaller."""
        return -(-max(self.height, self.width) // MAX_SIDE)

    @property
    def cells(self) -> tuple[int, int]:
        """How many cells an image is high and wide."""
        return -(-self.height // self.cell), -(-self.width // self.cell)

    @property
    def missing(self) -> tuple[int, int]:
        """How many pixels the last cells lack, downwards and to the right."""
        high, wide = self.cells
        return high * self.cell - self.height, wide * self.cell - self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """The sides of one image, in the order of its numbers."""
        if self.layout is Layout.NHWC:
            return self.height, self.width, self.channels
        return self.channels, self.height, self.width

    @property
    def channel_axis(self) -> int:
        """Which axis of a batch has the channels."""
        return 3 if self.layout is Layout.NHWC else 1

    def fault(self) -> str:
        """Return why this cannot be an image, or nothing."""
        if min(self.channels, self.height, self.width) < 1:
            return "an image has no side without pixels"
        if self.channels > (1 if self.layout in {Layout.NHW, Layout.ENCODED} else MAX_CHANNELS):
            return f"{self.channels} channels in the layout {self.layout}"
        if self.layout is Layout.ENCODED and (self.height, self.width) != (2 * SIDE, SIDE):
            return f"an encoded image is judged by {2 * SIDE} x {SIDE} numbers, not {self.height} x {self.width}"
        if self.numbers > MAX_NUMBERS:
            return f"{self.numbers:,} numbers in an image; at most {MAX_NUMBERS:,} are supported"
        return ""


def picture(layout: Layout, sides: tuple[int, ...]) -> Picture | None:
    """Return the image whose sides these are, in the order of the layout; None where their number is another."""
    match layout, sides:
        case Layout.NHW, (height, width):
            return Picture(layout, 1, height, width)
        case Layout.NCHW, (channels, height, width):
            return Picture(layout, channels, height, width)
        case Layout.NHWC, (height, width, channels):
            return Picture(layout, channels, height, width)
    return None


def reduced(of: Picture, rows: Floats) -> Floats:
    """Return the cells of each image: what the graph computes, in numpy."""
    grey = rows.reshape(-1, *of.shape).mean(axis=of.channel_axis, dtype=np.float32)
    sums = grey
    for axis, side in ((1, of.height), (2, of.width)):
        sums = np.add.reduceat(sums, np.arange(0, side, of.cell), axis=axis)
    counts = np.outer(*(np.diff([*range(0, side, of.cell), side]) for side in (of.height, of.width)))
    cells: Floats = (sums / counts.astype(np.float32)).reshape(len(rows), -1)
    return cells


def pixels(of: Picture, rows: Floats) -> Floats:
    """Return every pixel of every image as a row of its channels."""
    batch = rows.reshape(-1, *of.shape)
    if of.channel_axis == 1:
        batch = np.moveaxis(batch, 1, 3)
    return batch.reshape(-1, of.channels)


def everywhere(of: Picture, channels: Floats) -> Floats:
    """Return, for each number of an image, what holds for its channel."""
    if of.layout is Layout.NHWC:
        return np.tile(channels, of.height * of.width)
    return np.repeat(channels, of.height * of.width)
