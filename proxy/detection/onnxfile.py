"""The ONNX under a detector file: how its parts become a file, and what a file of anybody's holds.

Decides which dangers are named. That a file holds nothing else than a detector, `proxy.detection.graph` decides.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx's own base, without types
from onnx import TensorProto, helper, numpy_helper

from proxy.detection.facts import SKETCH, Floats
from proxy.errors import ConfigError, Finding

OPSET: Final = 18
IR_VERSION: Final = 10
MAX_FILE: Final = 64 << 20  # bytes

OUTPUTS: Final = ("statistic", "sketch")

Node = tuple[str, tuple[str, ...], str]  # operator, inputs, output; the order is the order of execution
Attributes = Mapping[str, Mapping[str, int | list[int]]]  # by operator
Inputs = Mapping[str, tuple[int, Sequence[int | str]]]  # by name: type and shape


def assembled(
    nodes: Collection[Node],
    attributes: Attributes,
    inputs: Inputs,
    initializers: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    rows: int | str,
) -> onnx.ModelProto:
    """Return a model. `inputs` have a type and a shape; `rows` is how many the outputs are of."""
    made = [helper.make_node(operator, given, [output]) for operator, given, output in nodes]
    for node in made:
        node.attribute.extend(helper.make_attribute(*entry) for entry in attributes.get(node.op_type, {}).items())
    graph = helper.make_graph(
        made,
        "detector",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [
            helper.make_tensor_value_info(OUTPUTS[0], TensorProto.FLOAT, [rows]),
            helper.make_tensor_value_info(OUTPUTS[1], TensorProto.FLOAT, [rows, SKETCH]),
        ],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    model = helper.make_model(
        graph, producer_name="hip", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    helper.set_model_props(model, dict(metadata))
    return model


def parsed(data: bytes, source: str) -> onnx.ModelProto:
    """Return a file's model. Raise ConfigError when it has none."""
    if len(data) > MAX_FILE:
        raise refused(source, f"{len(data):,} bytes; a detector has at most {MAX_FILE:,}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as exc:
        raise refused(source, "not an ONNX file, or a truncated one") from exc
    return model


def refuse_foreign(model: onnx.ModelProto, operators: Collection[str], source: str) -> None:
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
    foreign = {node.op_type for node in graph.node} - set(operators)
    if foreign:
        faults.append(f"it uses operators that no detector has: {', '.join(map(ascii, sorted(foreign)))[:200]}")
    if faults:
        raise ConfigError([_finding(source, fault) for fault in faults])


def numbers(model: onnx.ModelProto, wanted: Collection[str], source: str) -> dict[str, Floats]:
    """Return the numbers that vary between detectors; the comparison looks at all others."""
    found: dict[str, Floats] = {}
    for entry in model.graph.initializer:
        if entry.name not in wanted:
            continue
        if entry.name in found or entry.data_type != TensorProto.FLOAT:
            raise refused(source, f"`{entry.name}` stands twice, or is not float32")
        try:
            found[entry.name] = numpy_helper.to_array(entry)
        except (ValueError, TypeError) as exc:
            raise refused(source, f"`{entry.name}` does not have as many numbers as it says") from exc
    missing = set(wanted) - found.keys()
    if missing:
        raise refused(source, f"it has no `{min(missing)}`")
    return found


def check_numbers(
    given: Mapping[str, Floats],
    shapes: Mapping[str, tuple[int, ...]],
    positive: Collection[str],
    not_negative: Collection[str],
    source: str,
) -> None:
    """Raise ConfigError for numbers of another shape, or that no detector has."""
    for name, shape in shapes.items():
        if given[name].shape != shape:
            raise refused(source, f"`{name}` has shape {given[name].shape} and not {shape}")
        if not np.isfinite(given[name]).all():
            raise refused(source, f"`{name}` has numbers that are not finite")
    weak = [name for name in positive if (given[name] <= 0).any()]
    weak += [name for name in not_negative if (given[name] < 0).any()]
    if weak:
        raise refused(source, f"`{weak[0]}` has negative numbers, or zeros where there are none")


def refused(source: str, message: str) -> ConfigError:
    """Return the refusal of a file."""
    return ConfigError([_finding(source, message)])


def _finding(source: str, message: str) -> Finding:
    return Finding(source, 0, 0, f"not a detector: {message}", "make one with `hip detector fit`")
