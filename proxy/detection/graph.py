"""The detector file: a small ONNX graph (opset 18) that is always the same, with the facts as its numbers.

`build` writes it, `inspect` reads it. A file is data, not a program: `inspect` takes the numbers and the metadata,
builds the graph from them again and compares. So no operator, function, subgraph, custom domain or external data
that is not ours can be in a file that passes (CVE-2022-25882, CVE-2024-27318), and what runs is what was built from
checked numbers, not the bytes that were found. Not guaranteed: that a detector is a good one, or the right model's.

Here are the two kinds for numbers: of an image the graph first makes cells (`proxy.detection.picture`). The kind for
texts is `proxy.detection.textgraph`.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from proxy.detection import textgraph
from proxy.detection.facts import BREACH, MAX_DEVIATION, SKETCH, DetectorFacts, Gate
from proxy.detection.gate import ON_GRID
from proxy.detection.metadata import Kind, Metadata, read_metadata, write_metadata
from proxy.detection.onnxfile import (
    MAX_FILE,
    OUTPUTS,
    Attributes,
    Inputs,
    Node,
    assembled,
    check_numbers,
    numbers,
    parsed,
    refuse_foreign,
    refused,
)
from proxy.detection.picture import Picture
from proxy.detection.text import TextFacts

__all__ = ["INPUT", "MAX_FILE", "OUTPUTS", "build", "inspect"]

INPUT = "x"

# `gate_*`, `mean` … are initializers. "seen" is x itself, or the cells of an image; "breached" is only "outside" where
# no feature has a grid. No MatMul is by a vector: onnxruntime takes as long for one as for sixteen columns.
_CELLS: Final[tuple[Node, ...]] = (
    ("Reshape", ("x", "image"), "images"),
    ("ReduceMean", ("images", "channels"), "grey"),
    ("Reshape", ("grey", "plane"), "planes"),
    ("AveragePool", ("planes",), "pooled"),
    ("Reshape", ("pooled", "row"), "seen"),
)
_JUDGE: Final[tuple[Node, ...]] = (
    ("Sub", ("seen", "mean"), "deviation"),
    ("Mul", ("deviation", "inverse_scale"), "scaled"),
    ("Clip", ("scaled", "lowest", "highest"), "z"),
    ("MatMul", ("z", "projection"), "sketch"),
    ("MatMul", ("z", "components"), "scores"),
    ("Mul", ("scores", "scores"), "squares"),
    ("Mul", ("squares", "t2_weights"), "weighted"),
    ("ReduceSum", ("weighted", "columns"), "t2"),
    ("ReduceSumSquare", ("z", "columns"), "energy"),
    ("ReduceSum", ("squares", "columns"), "explained"),
    ("Sub", ("energy", "explained"), "residual"),
    ("Mul", ("residual", "spe_weight"), "spe"),
    ("Max", ("t2", "spe"), "distance"),
    ("Sub", ("x", "gate_centre"), "off_centre"),
    ("Abs", ("off_centre",), "reach"),
    ("Greater", ("reach", "gate_half_width"), "outside"),
)
_GRID: Final[tuple[Node, ...]] = (
    ("Sub", ("x", "gate_origin"), "height"),
    ("Mul", ("height", "gate_inverse_step"), "levels"),
    ("Round", ("levels",), "whole"),
    ("Sub", ("levels", "whole"), "remainder"),
    ("Abs", ("remainder",), "off_level"),
    ("Greater", ("off_level", "on_grid"), "off_grid"),
    ("Or", ("outside", "off_grid"), "breached"),
)
_SUM: Final[tuple[Node, ...]] = (
    ("Cast", ("breached",), "breach"),
    ("ReduceSum", ("breach", "columns"), "breaches"),
    ("Mul", ("breaches", "per_breach"), "penalty"),
    ("Add", ("distance", "penalty"), "statistic"),
)
_ATTRIBUTES: Final[Attributes] = {
    "ReduceSumSquare": {"keepdims": 0},
    "ReduceSum": {"keepdims": 0},
    "Cast": {"to": TensorProto.FLOAT},
}
_GATE = ("gate_centre", "gate_half_width", "gate_origin", "gate_inverse_step")
_FACTS = ("mean", "inverse_scale", "components", "t2_weights", "spe_weight", "projection", *_GATE)
_OPERATORS = frozenset(operator for operator, _, _ in (*_CELLS, *_JUDGE, *_GRID, *_SUM, *textgraph.NODES))


def build(facts: DetectorFacts | TextFacts) -> bytes:
    """Return the file."""
    data: bytes = _model(facts).SerializeToString(deterministic=True)
    return data


def inspect(data: bytes, source: str) -> DetectorFacts | TextFacts:
    """Return what a file holds. Raise ConfigError when it is not exactly what `build` makes of it."""
    model = parsed(data, source)
    refuse_foreign(model, _OPERATORS, source)
    metadata = read_metadata({entry.key: entry.value for entry in model.metadata_props}, source)
    facts = (
        textgraph.facts_of(model, metadata, source) if metadata.kind is Kind.TEXT else _facts(model, metadata, source)
    )
    if _model(facts) != model:
        raise refused(source, "its graph is not the one that this version builds: fit it again")
    return facts


def _model(facts: DetectorFacts | TextFacts) -> onnx.ModelProto:
    metadata = write_metadata(facts)
    if isinstance(facts, TextFacts):
        return textgraph.model(facts, metadata)
    given: Inputs = {INPUT: (TensorProto.FLOAT, ["rows", facts.features])}
    attributes, initializers = _ATTRIBUTES, _initializers(facts)
    if facts.picture is not None:
        attributes = {**attributes, **_pooling(facts.picture)}
        initializers |= _shapes(facts.picture)
    return assembled(_nodes(facts), attributes, given, initializers, metadata, "rows")


def _nodes(facts: DetectorFacts) -> tuple[Node, ...]:
    """Return the nodes that this detector needs."""
    cells, same = (_CELLS, {}) if facts.picture is not None else ((), {"seen": INPUT})
    grid = _GRID
    if not facts.gate.inverse_step.any():
        grid, same = (), {**same, "breached": "outside"}
    return tuple(
        (operator, tuple(same.get(one, one) for one in inputs), output)
        for operator, inputs, output in (*cells, *_JUDGE, *grid, *_SUM)
    )


def _pooling(of: Picture) -> Attributes:
    down, right = of.missing
    pool = {"kernel_shape": [of.cell] * 2, "strides": [of.cell] * 2, "pads": [0, 0, down, right]}
    return {"ReduceMean": {"keepdims": 0}, "AveragePool": {**pool, "count_include_pad": 0}}


def _shapes(of: Picture) -> dict[str, np.ndarray]:
    return {
        "image": np.array([-1, *of.shape], np.int64),
        "channels": np.array([of.channel_axis], np.int64),
        "plane": np.array([-1, 1, of.height, of.width], np.int64),
        "row": np.array([-1, of.cells[0] * of.cells[1]], np.int64),
    }


def _initializers(facts: DetectorFacts) -> dict[str, np.ndarray]:
    return {
        "mean": facts.mean,
        "inverse_scale": facts.inverse_scale,
        "lowest": np.array(-MAX_DEVIATION, np.float32),
        "highest": np.array(MAX_DEVIATION, np.float32),
        "projection": facts.projection,
        "components": facts.components,
        "t2_weights": facts.t2_weights,
        "columns": np.array([1], np.int64),
        "spe_weight": np.array(facts.spe_weight, np.float32),
        "gate_centre": facts.gate.centre,
        "gate_half_width": facts.gate.half_width,
        "gate_origin": facts.gate.origin,
        "gate_inverse_step": facts.gate.inverse_step,
        "on_grid": np.array(ON_GRID, np.float32),
        "per_breach": np.array(BREACH, np.float32),
    }


def _facts(model: onnx.ModelProto, metadata: Metadata, source: str) -> DetectorFacts:
    given = numbers(model, _FACTS, source)
    components = given["components"]
    if components.ndim != 2 or any(not side for side in components.shape):
        raise refused(source, "its components are not a table")
    seen, kept = components.shape
    picture = metadata.picture
    if picture is not None and seen != picture.cells[0] * picture.cells[1]:
        raise refused(source, f"its components are of {seen} cells, and an image has {picture.cells}")
    features = seen if picture is None else picture.numbers
    shapes: Mapping[str, tuple[int, ...]] = {
        **dict.fromkeys(("mean", "inverse_scale"), (seen,)),
        **dict.fromkeys(_GATE, (features,)),
        "components": (seen, kept),
        "t2_weights": (kept,),
        "spe_weight": (),
        "projection": (seen, SKETCH),
    }
    positive = ("inverse_scale", "t2_weights", "gate_half_width")
    check_numbers(given, shapes, positive, ("spe_weight", "gate_inverse_step"), source)
    if metadata.names and len(metadata.names) != features:
        raise refused(source, f"{len(metadata.names)} names for {features} features")
    return DetectorFacts(
        models=metadata.models,
        names=metadata.names,
        rows=metadata.rows,
        data_sha256=metadata.data_sha256,
        alpha=metadata.alpha,
        tau=metadata.tau,
        calibration=metadata.calibration,
        mean=given["mean"],
        inverse_scale=given["inverse_scale"],
        components=components,
        t2_weights=given["t2_weights"],
        spe_weight=float(given["spe_weight"]),
        projection=given["projection"],
        gate=Gate(*(given[part] for part in _GATE)),
        picture=picture,
    )
