"""`hip detector fit` and `show`, as a user runs them."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from attacks import world
from typer.testing import CliRunner

from proxy.adapters.detector import load_detector
from proxy.cli.detector import detector_app
from proxy.detection.fit import needed_rows

run = CliRunner().invoke


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "inputs.csv"
    header = ",".join(f"pixel {number}" for number in range(64))
    np.savetxt(path, world("digits").train, delimiter=",", header=header, comments="", fmt="%g")
    return path


@pytest.fixture
def fitted(inputs: Path, tmp_path: Path) -> Path:
    output = tmp_path / "digits.onnx"
    result = run(detector_app, ["fit", str(inputs), "-o", str(output), "--model", "digits"])
    assert result.exit_code == 0, result.output
    return output


def test_fit_writes_a_detector_and_the_lines_for_the_policy(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "digits.onnx"
    result = run(detector_app, ["fit", str(inputs), "-o", str(output), "--model", "digits"])
    assert result.exit_code == 0
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    assert f"detectors:\n  digits: {{file: digits.onnx, sha256: {digest}}}" in result.stdout
    assert "898 rows of 64 numbers" in re.sub(r"\s+", " ", result.stdout)
    facts = load_detector(output, digest, ["digits"]).facts
    assert facts.names[63] == "pixel 63"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.onnx", "inputs.csv"]


def test_every_form_of_the_same_rows_makes_the_same_detector(inputs: Path, tmp_path: Path) -> None:
    rows = world("digits").train
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows.tolist())))
    requests = [
        json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": list(part.shape), "data": part.tolist()}]})
        for part in np.array_split(rows, 40)
    ]
    (tmp_path / "requests.ndjson").write_text("\n".join(requests))
    names = ",".join(f"pixel {number}" for number in range(64))
    found = set()
    for source in ("inputs.csv", "rows.npy", "rows.jsonl", "requests.ndjson"):
        arguments = ["fit", str(tmp_path / source), "-o", str(tmp_path / "out.onnx"), "--model", "digits"]
        result = run(detector_app, [*arguments, "--names", names, "--json"])
        assert result.exit_code == 0, result.output
        found.add(json.loads(result.stdout)["sha256"])
    assert len(found) == 1


def test_show_tells_what_was_learned(fitted: Path) -> None:
    result = run(detector_app, ["show", str(fitted)])
    assert result.exit_code == 0
    for words in ("digits", "0.0625", "suspicious above", "calibration scores", "pixel 0", "1.0% of requests of 1"):
        assert words in result.stdout


def test_show_as_json_is_complete(fitted: Path) -> None:
    facts = json.loads(run(detector_app, ["show", str(fitted), "--json"]).stdout)
    assert facts["sha256"] == hashlib.sha256(fitted.read_bytes()).hexdigest()
    assert facts["models"] == ["digits"]
    assert len(facts["features"]) == 64
    assert facts["features"][20]["step"] == 0.0625
    assert facts["calibration"] == sorted(facts["calibration"])
    assert facts["false_alarms"]["1"] == pytest.approx(0.01)


def test_a_rate_that_the_rows_cannot_support_is_refused_with_the_number_needed(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    result = run(detector_app, ["fit", str(inputs), "-o", str(output), "--model", "digits", "--alpha", "0.001"])
    assert result.exit_code == 2
    assert f"needs {needed_rows(0.001)} rows" in result.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "1,2\n3,x\n", "rows.csv:2:1: not a number"),
        ("rows.xlsx", "", "unknown kind of file"),
        ("rows.npy", "no", "not an NPY file"),
        ("rows.jsonl", "[1]\n[2]\n", "2 rows are too few"),
    ],
)
def test_inputs_that_cannot_be_used_end_with_two(tmp_path: Path, name, content, message) -> None:
    (tmp_path / name).write_text(content)
    result = run(detector_app, ["fit", str(tmp_path / name), "-o", str(tmp_path / "out.onnx"), "--model", "m"])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_files_that_are_not_there_end_with_two(inputs: Path, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent" / "file")
    for arguments, message in (
        (["fit", absent + ".csv", "-o", "out.onnx", "--model", "m"], "cannot be read"),
        (["fit", str(inputs), "-o", absent, "--model", "m"], "cannot be written"),
        (["show", absent], "cannot be read"),
        (["show", str(inputs)], "not a detector"),
    ):
        result = run(detector_app, arguments)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_model_must_be_named(inputs: Path) -> None:
    result = run(detector_app, ["fit", str(inputs), "-o", "out.onnx"])
    assert result.exit_code == 2
    assert "--model" in result.stderr
