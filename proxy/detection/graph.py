"""The detector file: a small ONNX graph (opset 18) that is always the same, with the facts as its numbers.

`build` writes it, `inspect` reads it. A file is data, not a program: `inspect` takes the numbers and the metadata,
builds the graph from them again and compares. So no operator, function, subgraph, custom domain or external data
that is not ours can be in a file that passes (CVE-2022-25882, CVE-2024-27318), and what runs is what was built from
checked numbers, not the bytes that were found. Not guaranteed: that a detector is a good one, or the right model's.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx's own base, without types
from onnx import TensorProto, helper, numpy_helper

from proxy.detection.facts import BREACH, MAX_DEVIATION, SKETCH, DetectorFacts, Floats, Gate
from proxy.detection.gate import ON_GRID
from proxy.detection.metadata import Metadata, read_metadata, write_metadata
from proxy.errors import ConfigError, Finding

OPSET = 18
IR_VERSION = 10
MAX_FILE = 64 << 20  # bytes

INPUT = "x"
OUTPUTS = ("statistic", "sketch")

# operator, inputs, output. `gate_*`, `mean` … are initializers; the order is the order of execution.
_NODES: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("Sub", ("x", "mean"), "deviation"),
    ("Mul", ("deviation", "inverse_scale"), "scaled"),
    ("Clip", ("scaled", "lowest", "highest"), "z"),
    ("MatMul", ("z", "projection"), "sketch"),
    ("MatMul", ("z", "components"), "scores"),
    ("Mul", ("scores", "scores"), "squares"),
    ("MatMul", ("squares", "t2_weights"), "t2"),
    ("ReduceSumSquare", ("z", "columns"), "energy"),
    ("ReduceSum", ("squares", "columns"), "explained"),
    ("Sub", ("energy", "explained"), "residual"),
    ("Mul", ("residual", "spe_weight"), "spe"),
    ("Max", ("t2", "spe"), "distance"),
    ("Sub", ("x", "gate_centre"), "off_centre"),
    ("Abs", ("off_centre",), "reach"),
    ("Greater", ("reach", "gate_half_width"), "outside"),
    ("Sub", ("x", "gate_origin"), "height"),
    ("Mul", ("height", "gate_inverse_step"), "levels"),
    ("Round", ("levels",), "whole"),
    ("Sub", ("levels", "whole"), "remainder"),
    ("Abs", ("remainder",), "off_level"),
    ("Greater", ("off_level", "on_grid"), "off_grid"),
    ("Or", ("outside", "off_grid"), "breached"),
    ("Cast", ("breached",), "breach"),
    ("MatMul", ("breach", "breach_weights"), "penalty"),
    ("Add", ("distance", "penalty"), "statistic"),
)
_ATTRIBUTES: Final[Mapping[str, Mapping[str, int]]] = {
    "ReduceSumSquare": {"keepdims": 0},
    "ReduceSum": {"keepdims": 0},
    "Cast": {"to": TensorProto.FLOAT},
}
_VECTORS = ("mean", "inverse_scale", "gate_centre", "gate_half_width", "gate_origin", "gate_inverse_step")


def build(facts: DetectorFacts) -> bytes:
    """Return the file."""
    data: bytes = _model(facts).SerializeToString(deterministic=True)
    return data


def inspect(data: bytes, source: str) -> DetectorFacts:
    """Return what a file holds. Raise ConfigError when it is not exactly what `build` makes of it."""
    if len(data) > MAX_FILE:
        raise _refused(source, f"{len(data):,} bytes; a detector has at most {MAX_FILE:,}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as exc:
        raise _refused(source, "not an ONNX file, or a truncated one") from exc
    _refuse_foreign(model, source)
    metadata = read_metadata({entry.key: entry.value for entry in model.metadata_props}, source)
    facts = _facts(model, metadata, source)
    if _model(facts) != model:
        raise _refused(source, "its graph is not the one that `hip detector fit` builds")
    return facts


def _model(facts: DetectorFacts) -> onnx.ModelProto:
    nodes = [helper.make_node(operator, inputs, [output]) for operator, inputs, output in _NODES]
    for node in nodes:
        node.attribute.extend(helper.make_attribute(*entry) for entry in _ATTRIBUTES.get(node.op_type, {}).items())
    rows = "rows"
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [rows, facts.features])],
        [
            helper.make_tensor_value_info(OUTPUTS[0], TensorProto.FLOAT, [rows]),
            helper.make_tensor_value_info(OUTPUTS[1], TensorProto.FLOAT, [rows, SKETCH]),
        ],
        [numpy_helper.from_array(value, name) for name, value in _initializers(facts).items()],
    )
    model = helper.make_model(
        graph, producer_name="hip", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    helper.set_model_props(model, write_metadata(facts))
    return model


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
        "breach_weights": np.full(facts.features, BREACH, np.float32),
    }


def _refuse_foreign(model: onnx.ModelProto, source: str) -> None:
    """Name the dangers that a comparison would only call different."""
    graph = model.graph
    faults = []
    if any(entry.data_location == TensorProto.EXTERNAL or entry.external_data for entry in graph.initializer):
        faults.append("it refers to external data")
    if any(entry.domain for entry in (*model.opset_import, *graph.node)):
        faults.append("it uses operators of another domain than ONNX's own")
    if model.functions or graph.sparse_initializer or model.training_info:
        faults.append("it defines functions, sparse or training data")
    if any(
        attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
        for node in graph.node
        for attribute in node.attribute
    ):
        faults.append("it contains a subgraph")
    foreign = {node.op_type for node in graph.node} - {operator for operator, _, _ in _NODES}
    if foreign:
        faults.append(f"it uses operators that no detector has: {', '.join(map(ascii, sorted(foreign)))[:200]}")
    if faults:
        raise ConfigError([_finding(source, fault) for fault in faults])


def _facts(model: onnx.ModelProto, metadata: Metadata, source: str) -> DetectorFacts:
    numbers = _numbers(model, source)
    components = numbers["components"]
    if components.ndim != 2 or any(not side for side in components.shape):
        raise _refused(source, "its components are not a table")
    features, kept = components.shape
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(_VECTORS, (features,)),
        "components": (features, kept),
        "t2_weights": (kept,),
        "spe_weight": (),
        "projection": (features, SKETCH),
    }
    for name, shape in shapes.items():
        if numbers[name].shape != shape:
            raise _refused(source, f"`{name}` has shape {numbers[name].shape} and not {shape}")
        if not np.isfinite(numbers[name]).all():
            raise _refused(source, f"`{name}` has numbers that are not finite")
    positive = ("inverse_scale", "t2_weights", "gate_half_width")
    weak = [name for name in positive if (numbers[name] <= 0).any()]
    weak += [name for name in ("spe_weight", "gate_inverse_step") if (numbers[name] < 0).any()]
    if weak:
        raise _refused(source, f"`{weak[0]}` has negative numbers, or zeros where there are none")
    if metadata.names and len(metadata.names) != features:
        raise _refused(source, f"{len(metadata.names)} names for {features} features")
    return DetectorFacts(
        models=metadata.models,
        names=metadata.names,
        rows=metadata.rows,
        data_sha256=metadata.data_sha256,
        alpha=metadata.alpha,
        tau=metadata.tau,
        calibration=metadata.calibration,
        mean=numbers["mean"],
        inverse_scale=numbers["inverse_scale"],
        components=components,
        t2_weights=numbers["t2_weights"],
        spe_weight=float(numbers["spe_weight"]),
        projection=numbers["projection"],
        gate=Gate(*(numbers[f"gate_{part}"] for part in ("centre", "half_width", "origin", "inverse_step"))),
    )


def _numbers(model: onnx.ModelProto, source: str) -> dict[str, Floats]:
    """Return the numbers that vary between detectors; the comparison looks at all others."""
    wanted = {*_VECTORS, "components", "t2_weights", "spe_weight", "projection"}
    found: dict[str, Floats] = {}
    for entry in model.graph.initializer:
        if entry.name not in wanted:
            continue
        if entry.name in found or entry.data_type != TensorProto.FLOAT:
            raise _refused(source, f"`{entry.name}` stands twice, or is not float32")
        try:
            found[entry.name] = numpy_helper.to_array(entry)
        except (ValueError, TypeError) as exc:
            raise _refused(source, f"`{entry.name}` does not have as many numbers as it says") from exc
    missing = wanted - found.keys()
    if missing:
        raise _refused(source, f"it has no `{min(missing)}`")
    return found


def _finding(source: str, message: str) -> Finding:
    return Finding(source, 0, 0, f"not a detector: {message}", "make one with `hip detector fit`")


def _refused(source: str, message: str) -> ConfigError:
    return ConfigError([_finding(source, message)])
