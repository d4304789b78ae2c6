"""The graph of a detector of texts. One run judges one text: its trigrams, and the shares of its sketch.

Read `proxy.detection.graph` first: the same holds here.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from proxy.detection.facts import BREACH, SKETCH
from proxy.detection.metadata import Metadata
from proxy.detection.onnxfile import Attributes, Inputs, Node, assembled, check_numbers, numbers, refused
from proxy.detection.text import BUCKETS, SKETCH_BUCKETS, WINDOW, TextFacts

GRAMS, SHARES = "grams", "shares"  # the inputs

NODES: Final[tuple[Node, ...]] = (
    ("MatMul", ("shares", "projection"), "sketch"),
    ("Gather", ("surprise", "grams"), "surprises"),
    ("ReduceMean", ("surprises", "first"), "mean"),
    ("Reshape", ("surprises", "line"), "in_line"),
    ("AveragePool", ("in_line",), "windows"),
    ("ReduceMax", ("windows", "sides"), "window"),
    ("Sub", ("mean", "mean_centre"), "over_mean"),
    ("Mul", ("over_mean", "mean_weight"), "by_mean"),
    ("Sub", ("window", "window_centre"), "over_window"),
    ("Mul", ("over_window", "window_weight"), "by_window"),
    ("Max", ("by_mean", "by_window", "nothing"), "distance"),
    ("Shape", ("grams",), "count"),
    ("Cast", ("count",), "length"),
    ("Greater", ("length", "longest"), "too_long"),
    ("Cast", ("too_long",), "breached"),
    ("Mul", ("breached", "breach"), "penalty"),
    ("Add", ("distance", "penalty"), "statistic"),
)
_ATTRIBUTES: Final[Attributes] = {
    "ReduceMean": {"keepdims": 1},
    "ReduceMax": {"keepdims": 0},
    "AveragePool": {"kernel_shape": [WINDOW], "strides": [1]},
    "Cast": {"to": TensorProto.FLOAT},
}
_SCALARS = ("mean_centre", "mean_weight", "window_centre", "window_weight", "longest")


def model(facts: TextFacts, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Return the model."""
    inputs: Inputs = {GRAMS: (TensorProto.INT64, ["grams"]), SHARES: (TensorProto.FLOAT, [1, SKETCH_BUCKETS])}
    initializers: dict[str, NDArray[Any]] = {
        "surprise": facts.surprise,
        "projection": facts.projection,
        **{name: np.array(getattr(facts, name), np.float32) for name in _SCALARS},
        "nothing": np.array(0, np.float32),
        "breach": np.array(BREACH, np.float32),
        "first": np.array([0], np.int64),
        "line": np.array([1, 1, -1], np.int64),
        "sides": np.array([1, 2], np.int64),
    }
    return assembled(NODES, _ATTRIBUTES, inputs, initializers, metadata, 1)


def facts_of(model: onnx.ModelProto, metadata: Metadata, source: str) -> TextFacts:
    """Return what a file holds. Raise ConfigError for numbers that no detector has."""
    if metadata.names:
        raise refused(source, "names of features, and a text has none")
    given = numbers(model, ("surprise", "projection", *_SCALARS), source)
    shapes = {
        "surprise": (BUCKETS + 1,),
        "projection": (SKETCH_BUCKETS, SKETCH),
        **dict.fromkeys(_SCALARS, ()),
    }
    check_numbers(given, shapes, ("mean_weight", "window_weight", "longest"), ("surprise",), source)
    return TextFacts(
        models=metadata.models,
        names=metadata.names,
        rows=metadata.rows,
        data_sha256=metadata.data_sha256,
        alpha=metadata.alpha,
        tau=metadata.tau,
        calibration=metadata.calibration,
        surprise=given["surprise"],
        mean_centre=float(given["mean_centre"]),
        mean_weight=float(given["mean_weight"]),
        window_centre=float(given["window_centre"]),
        window_weight=float(given["window_weight"]),
        longest=float(given["longest"]),
        projection=given["projection"],
    )
