"""Detectors of images: cells, the pixel gate, layouts, and that the graph computes what was fitted."""

import asyncio
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper
from sklearn.datasets import load_digits

from proxy.adapters.detector import OnnxDetector
from proxy.detection.facts import DetectorFacts
from proxy.detection.fit import Subject, fit, sketches, statistics
from proxy.detection.graph import build, inspect
from proxy.detection.picture import MAX_SIDE, Layout, Picture, everywhere, picture, pixels, reduced
from proxy.errors import ConfigError

SUBJECT = Subject("images.npy", ("digits",))
ALPHA = 0.02
SHAPES = [("nhw", (28, 28)), ("nchw", (3, 57, 40)), ("nhwc", (40, 57, 3)), ("nchw", (1, 8, 8))]


def of(layout: str, sides: tuple[int, ...]) -> Picture:
    found = picture(Layout(layout), sides)
    assert found is not None
    return found


def images(shape: Picture, count: int, seed: int = 0) -> np.ndarray:
    """Digits in 256 levels, enlarged, somewhere in an image, each channel a little darker than the one before."""
    digits, generator = load_digits().images, np.random.default_rng(seed)
    factor = min(shape.height, shape.width) // 8
    batch = np.zeros((count, shape.height, shape.width, shape.channels), np.float32)
    for image, digit in zip(batch, digits[generator.integers(len(digits), size=count)], strict=True):
        large = np.kron(digit, np.ones((factor, factor))) * generator.uniform(10, 15.9)
        for channel in range(shape.channels):
            image[: 8 * factor, : 8 * factor, channel] = np.round(large * (1 - 0.2 * channel))
    if shape.layout is not Layout.NHWC:
        batch = np.moveaxis(batch, 3, 1)
    return np.ascontiguousarray(batch).reshape(count, -1)


@cache
def learned(layout: str, sides: tuple[int, ...]) -> DetectorFacts:
    shape = of(layout, sides)
    return fit(images(shape, 400), SUBJECT, ALPHA, picture=shape)


def flagged(facts: DetectorFacts, rows: np.ndarray) -> float:
    return float((statistics(facts, rows.astype(np.float32)) > facts.threshold).mean())


# ── cells ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cells_are_means_of_pixels_also_at_the_edge() -> None:
    shape = of("nhw", (2 * MAX_SIDE + 1, 4))
    rows = np.arange(shape.numbers, dtype=np.float32)[None]
    assert (shape.cell, shape.cells, shape.missing) == (3, (22, 2), (1, 2))
    cells = reduced(shape, rows).reshape(22, 2)
    grid = rows.reshape(shape.height, shape.width)
    assert cells[0, 0] == grid[:3, :3].mean()
    assert cells[21, 1] == grid[63:, 3:].mean()


def test_layouts_are_the_same_image() -> None:
    rows = np.random.default_rng(0).random((3, 5, 7, 2)).astype(np.float32)  # height 5, width 7
    last = of("nhwc", (5, 7, 2))
    first = of("nchw", (2, 5, 7))
    flat, moved = rows.reshape(3, -1), np.moveaxis(rows, 3, 1).reshape(3, -1)
    np.testing.assert_allclose(reduced(last, flat), reduced(first, moved), rtol=1e-6)
    np.testing.assert_array_equal(pixels(last, flat), pixels(first, moved))
    assert everywhere(last, np.array([1, 2], np.float32)).tolist()[:4] == [1, 2, 1, 2]
    assert everywhere(first, np.array([1, 2], np.float32)).tolist()[:4] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("sides", "layout", "fault"),
    [
        ((0, 8, 8), "nchw", "without pixels"),
        ((17, 8, 8), "nchw", "17 channels"),
        ((3, 1024, 1024), "nchw", "at most 1,048,576"),
        ((3, 512, 512), "nchw", ""),
    ],
)
def test_what_cannot_be_an_image_is_said(sides, layout, fault) -> None:
    assert fault in of(layout, sides).fault()
    assert bool(of(layout, sides).fault()) == bool(fault)


def test_another_number_of_sides_is_no_image() -> None:
    assert picture(Layout.NHW, (1, 2, 3)) is None
    assert picture(Layout.NCHW, (2, 3)) is None


# ── judging ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("layout", "sides"), SHAPES, ids=[name for name, _ in SHAPES])
def test_the_runtime_computes_what_was_fitted(layout, sides) -> None:
    facts, shape = learned(layout, sides), of(layout, sides)
    noise = np.random.default_rng(1).uniform(-300, 300, (20, shape.numbers))
    given = np.vstack([images(shape, 20, seed=1), noise]).astype(np.float32)
    running = OnnxDetector(facts)
    found, found_sketches = running._run(given)
    np.testing.assert_allclose(found, statistics(facts, given), rtol=1e-3)
    np.testing.assert_allclose(found_sketches, sketches(facts, given), rtol=1e-3, atol=1e-2)
    score = asyncio.run(running.judge(given))
    assert (score.suspicious, score.rows, running.features) == (True, 40, shape.numbers)


@pytest.mark.parametrize(("layout", "sides"), SHAPES, ids=[name for name, _ in SHAPES])
def test_ordinary_images_pass_and_strange_ones_do_not(layout, sides) -> None:
    facts, shape = learned(layout, sides), of(layout, sides)
    others = images(shape, 300, seed=2)
    assert flagged(facts, others) <= ALPHA + 3 * (ALPHA / len(facts.calibration)) ** 0.5
    noise = np.round(np.random.default_rng(1).uniform(0, 255, (50, shape.numbers)))
    assert flagged(facts, noise) == 1
    assert flagged(facts, others + 0.3) == 1  # off the grid of 256 levels


def test_what_cells_in_grey_do_not_show_the_gate_sees() -> None:
    """More red and less blue, or a checkerboard within each cell: the mean of a cell is the same."""
    facts, shape = learned("nchw", (3, 57, 40)), of("nchw", (3, 57, 40))
    ordinary = images(shape, 20, seed=3).reshape(20, *shape.shape)
    colour, texture = ordinary.copy(), ordinary.copy()
    colour[:, 0] += 1000
    colour[:, 2] -= 1000
    texture[:, :, 0:2, 0:2] += np.array([[1000, -1000], [-1000, 1000]], np.float32)
    for changed in (colour, texture):
        rows = changed.reshape(20, -1)
        np.testing.assert_allclose(reduced(shape, rows), reduced(shape, ordinary.reshape(20, -1)), atol=1e-2)
        assert flagged(facts, rows) == 1


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("layout", "sides"), SHAPES, ids=[name for name, _ in SHAPES])
def test_what_was_built_is_read_again_and_is_sound_onnx(layout, sides) -> None:
    data = build(learned(layout, sides))
    found = inspect(data, "f")
    assert isinstance(found, DetectorFacts)
    assert (found.picture, build(found)) == (of(layout, sides), data)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('{"layout":"nhw","channels":1,"height":28,"width":29}', "`gate_centre` has shape"),
        ('{"layout":"nhw","channels":1,"height":14,"width":56}', "not the one that"),
        ('{"layout":"nhw","channels":1,"height":56,"width":14}', "not the one that"),
        ('{"layout":"nhw","channels":2,"height":14,"width":28}', "2 channels in the layout nhw"),
        ('{"layout":"nhw","channels":1,"height":0,"width":28}', "without pixels"),
        ('{"layout":"nhw","channels":1,"height":-28,"width":-28}', "without pixels"),
        ('{"layout":"nhw","channels":1,"height":9999999,"width":9999999}', "are supported"),
        ('{"layout":"abc","channels":1,"height":28,"width":28}', "cannot be read"),
        ('{"layout":"nhw","channels":1,"height":28.5,"width":28}', "cannot be read"),
        ('{"layout":"nhw","channels":1,"height":28,"width":28 }', "not the one that"),
        ("none", "cannot be read"),
    ],
)
def test_other_shapes_in_the_metadata_are_refused(said, message) -> None:
    model = onnx.load_model_from_string(build(learned("nhw", (28, 28))))
    kept = {entry.key: entry.value for entry in model.metadata_props} | {"preprocessing": said}
    del model.metadata_props[:]
    helper.set_model_props(model, kept)
    with pytest.raises(ConfigError) as caught:
        inspect(model.SerializeToString(), "f")
    found = str(caught.value)
    assert message in found or "cells, and an image has" in found


def test_a_pool_that_looks_elsewhere_is_refused() -> None:
    model = onnx.load_model_from_string(build(learned("nchw", (3, 57, 40))))
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    next(one for one in pool.attribute if one.name == "strides").ints[:] = [1, 1]
    with pytest.raises(ConfigError, match="not the one that"):
        inspect(model.SerializeToString(), "f")


def test_rows_that_are_no_such_images_are_refused() -> None:
    rows = np.random.default_rng(0).random((400, 783))
    with pytest.raises(ConfigError, match="783 numbers in a row, and 784 in an image"):
        fit(rows, SUBJECT, ALPHA, picture=of("nhw", (28, 28)))
