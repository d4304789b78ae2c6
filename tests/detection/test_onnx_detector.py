"""The detector behind its port: real onnxruntime, real files."""

import asyncio
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from attacks import fgsm, uniform, world

from proxy.adapters.detector import CHUNK_ROWS, OnnxDetector, load_detector
from proxy.detection.facts import BREACH, DetectorFacts
from proxy.detection.fit import Subject, fit, sketches, statistics
from proxy.detection.graph import build, inspect
from proxy.errors import ConfigError, DependencyFault, Malformed
from proxy.exchange import Score, Sightings
from proxy.ports import Detector
from proxy.reasons import Reason


@cache
def facts(name: str = "digits") -> DetectorFacts:
    return fit(world(name).train, Subject("rows", (name,)), 0.01)


@cache
def detector() -> OnnxDetector:
    return OnnxDetector(facts())


def judge(given: np.ndarray) -> Score:
    return asyncio.run(detector().judge(given))


def examine(given: np.ndarray) -> tuple[Score, Sightings]:
    return asyncio.run(detector().examine(given))


def rows(count: int = 5) -> np.ndarray:
    return world("digits").test[:count].astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "digits.onnx"
    path.write_bytes(build(facts()))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ── judging ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_the_runtime_computes_what_was_fitted(name) -> None:
    """The graph in onnxruntime and the arithmetic in numpy are one, on ordinary rows and on attacks."""
    of, learned = world(name), facts(name)
    running = OnnxDetector(learned)
    given = np.vstack([of.test, uniform(of, 50), fgsm(of, 0.1)]).astype(np.float32)
    found, found_sketches = running._run(given)
    np.testing.assert_allclose(found, statistics(learned, given), rtol=1e-3)
    np.testing.assert_allclose(found_sketches, sketches(learned, given), rtol=1e-3, atol=1e-4)


def test_without_a_grid_the_runtime_computes_what_was_fitted() -> None:
    """Where no feature has a grid, the graph has no nodes for one: ranges count as before."""
    gridless = replace(facts(), gate=replace(facts().gate, inverse_step=np.zeros(64, np.float32)))
    of = world("digits")
    given = np.vstack([of.test, uniform(of, 50), 3 * uniform(of, 50)]).astype(np.float32)
    found, _ = OnnxDetector(gridless)._run(given)
    np.testing.assert_allclose(found, statistics(gridless, given), rtol=1e-3)
    assert (found < detector()._run(given)[0] - BREACH).any()
    assert (found > BREACH).any()
    assert b"off_grid" not in build(gridless)
    assert build(inspect(build(gridless), "f")) == build(gridless)


def test_an_ordinary_row_passes_and_noise_does_not() -> None:
    port: Detector = detector()
    assert port.features == 64
    assert not judge(rows(1)).suspicious
    score = judge(uniform(world("digits"), 1).astype(np.float32))
    assert score.suspicious
    assert score.p_value == pytest.approx(1 / (len(facts().calibration) + 1))
    assert score.statistic > score.threshold


def test_the_strangest_row_answers_for_all() -> None:
    batch = rows(10)
    batch[7] = uniform(world("digits"), 1)
    assert judge(batch).row == 7
    assert judge(batch).suspicious


@pytest.mark.parametrize("at", [0, CHUNK_ROWS - 1, CHUNK_ROWS, 9_999])
def test_in_ten_thousand_rows_each_is_judged(at) -> None:
    ordinary = rows(200)
    ordinary = ordinary[statistics(facts(), ordinary) <= facts().threshold]
    batch = np.resize(ordinary, (10_000, 64))
    assert not judge(batch).suspicious
    batch[at] = 0.5 + 1 / 37
    score, sightings = examine(batch)
    assert (score.suspicious, score.row) == (True, at)
    assert np.flatnonzero(sightings.suspicious).tolist() == [at]
    assert sightings.sketches.shape == (10_000, 64)
    assert len(np.unique(sightings.identities)) == len(np.unique(ordinary, axis=0)) + 1


def test_examining_judges_alike() -> None:
    for given in (rows(1), rows(300)):
        assert examine(given)[0] == judge(given)


def test_suspicion_and_the_p_value_agree_row_by_row() -> None:
    of = world("digits")
    given = np.vstack([of.test, uniform(of, 20)]).astype(np.float32)
    flags = examine(given)[1].suspicious
    assert [judge(row[None]).suspicious for row in given] == flags.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_malformed(value) -> None:
    batch = rows(3)
    batch[1, 5] = value
    with pytest.raises(Malformed) as caught:
        judge(batch)
    assert caught.value.reason is Reason.SCHEMA_MISMATCH


@pytest.mark.parametrize("shape", [(64,), (1, 63), (1, 65), (1, 0), (0, 64), (1, 1, 64), ()])
def test_other_shapes_are_malformed(shape) -> None:
    for call in (judge, examine):
        with pytest.raises(Malformed) as caught:
            call(np.zeros(shape, np.float32))
        assert caught.value.reason is Reason.SCHEMA_MISMATCH


def test_numbers_beyond_float32_are_malformed() -> None:
    with pytest.raises(Malformed):
        judge(np.full((1, 64), 1e39))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.finfo(np.float32).max, np.finfo(np.float32).min, 1e20, -1e20])
def test_huge_values_are_suspicious(value) -> None:
    """The squares would overflow float32; the clip keeps the statistic finite."""
    for given in (np.full((1, 64), value, np.float32), np.where(np.arange(64) == 20, value, rows(1)).astype("f4")):
        score = judge(given)
        assert score.suspicious
        assert np.isfinite(score.statistic)


def test_subnormal_values_are_as_good_as_zero() -> None:
    zeros = np.zeros((1, 64), np.float32)
    subnormal = np.full((1, 64), np.finfo(np.float32).smallest_subnormal)
    assert judge(subnormal).statistic == judge(zeros).statistic


def test_rows_of_another_layout_are_judged_alike() -> None:
    """A transposed or strided array is the same numbers."""
    assert judge(np.asfortranarray(rows(9))) == judge(rows(9))
    assert judge(np.repeat(rows(9), 2, axis=0)[::2]) == judge(rows(9))


class BrokenSession:
    def __init__(self, result: object) -> None:
        self.result = result

    def run(self, *_: object) -> object:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    "result", [RuntimeError("out of memory"), [np.full(1, np.nan, np.float32), np.zeros((1, 64), np.float32)]]
)
def test_a_runtime_that_fails_fails_closed(result) -> None:
    broken = OnnxDetector(facts())
    broken._session = BrokenSession(result)
    with pytest.raises(DependencyFault) as caught:
        asyncio.run(broken.judge(rows(1)))
    assert caught.value.reason is Reason.DETECTOR_FAILED


def test_a_statistic_that_is_no_number_fails_its_batch_wherever_it_stands() -> None:
    broken = OnnxDetector(facts())
    broken._session = BrokenSession([np.array([9, 1, np.nan, 9], np.float32), np.zeros((4, 64), np.float32)])
    with pytest.raises(DependencyFault):
        asyncio.run(broken.judge(rows(4)))


# ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_loads_for_its_model(file: Path) -> None:
    assert load_detector(file, digest(file), ["digits"]).facts.models == ("digits",)


def test_another_digest_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"its SHA-256 is .* and the policy names 0000"):
        load_detector(file, "0" * 64)


def test_another_models_detector_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a detector of iris, wine .*made for digits"):
        load_detector(file, digest(file), ["wine", "digits", "iris"])


def test_a_damaged_file_is_refused_even_with_its_own_digest(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="not a detector"):
        load_detector(file, digest(file))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_detector(path, "0" * 64)


def test_a_giant_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "giant.onnx"
    with path.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(ConfigError, match="larger than any detector"):
        load_detector(path, "0" * 64)


def test_a_graph_that_the_runtime_refuses_is_a_configuration_fault(file: Path) -> None:
    """A detector that cannot run is told at the start, not at the first request."""
    impossible = replace(facts(), t2_weights=facts().t2_weights[:-1])
    with pytest.raises(DependencyFault):
        OnnxDetector(impossible)


# ── telemetry ───────────────────────────────────────────────────────────────────────────────────────────────────

QUIET = """
import asyncio, os, sys
from pathlib import Path
from proxy.adapters.detector import load_detector
import numpy as np
assert "onnxruntime" not in sys.modules
detector = load_detector(Path(sys.argv[1]), sys.argv[2])
asyncio.run(detector.judge(np.zeros((1, 64), np.float32)))
import onnxruntime
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
print([path for path in Path("/proc/self/fd").iterdir() if path.is_socket()])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_onnxruntime_sends_no_telemetry(file: Path, tmp_path: Path) -> None:
    """Since 1.29 it writes a device id under the home directory and asks the DNS, unless told in its environment."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment = kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(file), digest(file)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert list(home.rglob("*")) == []
