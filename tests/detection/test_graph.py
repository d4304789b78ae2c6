"""The detector file: what was built can be read, and nothing else can."""

import base64
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

import numpy as np
import onnx
import pytest
from attacks import world
from onnx import TensorProto, helper, numpy_helper

from proxy.detection.facts import DetectorFacts, Gate
from proxy.detection.fit import Subject, fit
from proxy.detection.graph import MAX_FILE, build, inspect
from proxy.errors import ConfigError

Spoil = Callable[[onnx.ModelProto], None]


@cache
def facts() -> DetectorFacts:
    return fit(world("digits").train, Subject("rows", ("digits",)), 0.01)


def spoiled(spoil: Spoil) -> bytes:
    model = onnx.load_model_from_string(build(facts()))
    spoil(model)
    return model.SerializeToString()


def initializer(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(entry for entry in model.graph.initializer if entry.name == name)


def put(name: str, value: np.ndarray) -> Spoil:
    return lambda model: initializer(model, name).CopyFrom(numpy_helper.from_array(value, name))


def metadata(key: str, value: str | None) -> Spoil:
    def spoil(model: onnx.ModelProto) -> None:
        kept = {entry.key: entry.value for entry in model.metadata_props}
        kept = kept | {key: value} if value is not None else {k: v for k, v in kept.items() if k != key}
        del model.metadata_props[:]
        helper.set_model_props(model, kept)

    return spoil


def calibration(values: list[float]) -> Spoil:
    return metadata("calibration", base64.b64encode(np.array(values, "<f4").tobytes()).decode())


def same(first: DetectorFacts, second: DetectorFacts) -> None:
    for part in fields(first):
        here, there = getattr(first, part.name), getattr(second, part.name)
        if isinstance(here, Gate):
            for name in ("centre", "half_width", "origin", "inverse_step"):
                np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
        else:
            np.testing.assert_array_equal(here, there)


def test_what_was_built_is_read_again() -> None:
    named = replace(facts(), names=tuple(f"pixel {n}" for n in range(64)), models=("digits", "ziffern ä"))
    for one in (facts(), named):
        same(inspect(build(one), "f"), one)


def test_a_built_file_is_sound_onnx_of_opset_18() -> None:
    model = onnx.load_model_from_string(build(facts()))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_the_same_facts_are_the_same_bytes() -> None:
    assert build(facts()) == build(facts())


# ── foreign and hostile files ───────────────────────────────────────────────────────────────────────────────────


def external_data(model: onnx.ModelProto) -> None:
    """CVE-2024-27318: a path out of the model's directory."""
    entry = initializer(model, "components")
    entry.ClearField("raw_data")
    entry.data_location = TensorProto.EXTERNAL
    entry.external_data.add(key="location", value="../../../../etc/passwd")


def external_data_beside_raw(model: onnx.ModelProto) -> None:
    initializer(model, "mean").external_data.add(key="location", value="x")


def custom_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node.append(helper.make_node("Anything", ["x"], ["y"], domain="com.example"))


def loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["y"], body=body))


def condition(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def hidden_subgraph(model: onnx.ModelProto) -> None:
    """A subgraph in an attribute of an operator that we know."""
    model.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "b", [], [])))


def function(model: onnx.ModelProto) -> None:
    """A function can redefine an operator that we know."""
    model.functions.append(helper.make_function("", "Sub", ["a"], ["b"], [], [helper.make_opsetid("", 18)]))


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Sin", ["x"], ["y"]))


def known_operator_elsewhere(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Abs", ["x"], ["y"]))


def rewired(model: onnx.ModelProto) -> None:
    """Every row is ordinary: the statistic is the distance of nothing."""
    model.graph.node[-1].input[0] = "t2_weights"


def other_attribute(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "ReduceSum").attribute[0].i = 1


def older_graph(model: onnx.ModelProto) -> None:
    """As versions before built it: sums as products with a vector."""
    node = next(node for node in model.graph.node if node.output[0] == "breaches")
    node.op_type, node.input[1] = "MatMul", "breach_weights"
    del node.attribute[:]
    model.graph.initializer.append(numpy_helper.from_array(10 * ONES, "breach_weights"))


def no_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


def extra_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))


def other_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def extra_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "more"))


def twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(initializer(model, "mean"))


def missing(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(initializer(model, "mean"))


def giant(model: onnx.ModelProto) -> None:
    """A tensor that says that it has 4 TB of numbers, and has none."""
    entry = initializer(model, "components")
    entry.ClearField("raw_data")
    entry.dims[:] = [1_000_000, 1_000_000]


def negative_side(model: onnx.ModelProto) -> None:
    initializer(model, "components").dims[0] = -1


def other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 17


def metadata_twice(model: onnx.ModelProto) -> None:
    model.metadata_props.append(model.metadata_props[0])


def other_limit(model: onnx.ModelProto) -> None:
    """A number that is no fact of a detector: the gate's tolerance."""
    put("on_grid", np.array(0.5, np.float32))(model)


ONES = np.ones(64, np.float32)

FOREIGN = [
    (external_data, "refers to external data"),
    (external_data_beside_raw, "refers to external data"),
    (custom_domain, "another domain"),
    (loop, "contains a subgraph"),
    (condition, "contains a subgraph"),
    (hidden_subgraph, "contains a subgraph"),
    (function, "defines functions"),
    (foreign_operator, "operators that no detector has: 'Sin'"),
    (known_operator_elsewhere, "not the one that"),
    (rewired, "not the one that"),
    (other_attribute, "not the one that"),
    (older_graph, "not the one that this version builds: fit it again"),
    (no_nodes, "not the one that"),
    (extra_output, "not the one that"),
    (other_input, "not the one that"),
    (extra_initializer, "not the one that"),
    (other_opset, "not the one that"),
    (metadata_twice, "not the one that"),
    (other_limit, "not the one that"),
    (twice, "`mean` stands twice"),
    (missing, "it has no `mean`"),
    (giant, "does not have as many numbers|not a detector"),
    (negative_side, "not a detector"),
    (put("mean", ONES[:3]), "`mean` has shape"),
    (put("mean", ONES.astype(np.float64)), "not float32"),
    (put("mean", ONES * np.float32(np.nan)), "not finite"),
    (put("inverse_scale", -ONES), "negative numbers"),
    (put("gate_half_width", 0 * ONES), "negative numbers, or zeros"),
    (put("components", ONES), "not a table"),
    (put("components", np.zeros((64, 0), np.float32)), "not a table"),
    (put("projection", np.ones((64, 65), np.float32)), "`projection` has shape"),
    (metadata("format", "hip-detector/2"), "this version reads"),
    (metadata("format", None), "this version reads"),
    (metadata("kind", "sound"), "this version reads"),
    (metadata("kind", "image"), "cannot be read"),
    (metadata("kind", "text"), "it has no `"),
    (metadata("tau", None), "'tau' is missing or unknown"),
    (metadata("more", "1"), "'more' is missing or unknown"),
    (metadata("tau", "0"), "`tau` is not a distance"),
    (metadata("tau", "inf"), "`tau` is not a distance"),
    (metadata("tau", "nan"), "`tau` is not a distance"),
    (metadata("tau", "near"), "cannot be read"),
    (metadata("tau", " 0.5"), "not the one that"),
    (metadata("alpha", "0"), "`alpha` is not a rate"),
    (metadata("alpha", "nan"), "`alpha` is not a rate"),
    (metadata("alpha", "0.0001"), "cannot support the false-alarm rate"),
    (metadata("rows", "3"), "calibration scores of 3 rows"),
    (metadata("rows", "9" * 5000), "cannot be read"),
    (metadata("models", "[]"), "for no model"),
    (metadata("models", '["a","a"]'), "stands twice"),
    (metadata("models", '["' + "a" * 300 + '"]'), "longer than 256"),
    (metadata("models", '["a\\u001b[2J"]'), "not printable"),
    (metadata("\x1b[2J", "1"), "x1b.*is missing or unknown"),
    (metadata("models", "digits"), "cannot be read"),
    (metadata("features", '["a","b"]'), "2 names for 64 features"),
    (metadata("data_sha256", "abc"), "not a SHA-256"),
    (metadata("preprocessing", "whiten"), "not the one that"),
    (metadata("calibration", "%%"), "cannot be read"),
    (metadata("calibration", "AAAA"), "cannot be read"),
    (metadata("calibration", ""), "0 calibration scores"),
    (calibration([2.0, 1.0]), "not sorted"),
    (calibration([float("nan")] * 200), "not finite"),
    (calibration([-1.0] * 200), "not finite, or not sorted"),
]


@pytest.mark.parametrize(("spoil", "message"), FOREIGN)
def test_foreign_files_are_refused(spoil, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        inspect(spoiled(spoil), "detectors/digits.onnx")
    for finding in caught.value.findings:
        assert finding.file == "detectors/digits.onnx"
        assert finding.hint


@pytest.mark.parametrize("data", [b"", b"\x00", b"PK\x03\x04", b"version: v1\n", b"\xff" * 100])
def test_other_files_are_refused(data) -> None:
    with pytest.raises(ConfigError, match="not a detector"):
        inspect(data, "f")


def test_any_truncation_is_refused() -> None:
    data = build(facts())
    for end in range(0, len(data), 97):
        with pytest.raises(ConfigError):
            inspect(data[:end], "f")


def test_a_file_above_the_cap_is_not_parsed() -> None:
    with pytest.raises(ConfigError, match="at most"):
        inspect(bytes(MAX_FILE + 1), "f")


def test_a_flipped_byte_is_refused_or_another_detector() -> None:
    """Invariant: whatever the bytes, a ConfigError or facts that build the very graph that runs; nothing else."""
    data, generator = build(facts()), np.random.default_rng(0)
    for at in generator.integers(len(data), size=300).tolist():
        changed = bytearray(data)
        changed[at] ^= 1 << int(generator.integers(8))
        try:
            found = inspect(bytes(changed), "f")
        except ConfigError:
            continue
        same(inspect(build(found), "f"), found)
