"""The demo's assets: they are what their maker makes, small, and read by a runtime."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from proxy.demo.digits import ASSETS, DATA_FILE, MODEL_FILE, PIXELS, WHITE, load_digits, scaled

MAKER = Path(__file__).parents[2] / "benchmarks" / "make_digits.py"
MAX_ASSET_BYTES = 300_000
WEIGHT_TOLERANCE = 1e-3  # another BLAS may stop the solver some last bits earlier


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("make_digits", MAKER)
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    directory = tmp_path_factory.mktemp("assets")
    maker.make(directory)
    return directory


def weights(file: Path) -> dict[str, np.ndarray]:
    return {entry.name: numpy_helper.to_array(entry) for entry in onnx.load(file).graph.initializer}


def test_the_shipped_model_is_the_rebuilt_one(rebuilt: Path) -> None:
    shipped, again = weights(MODEL_FILE), weights(rebuilt / MODEL_FILE.name)
    assert shipped.keys() == again.keys()
    for name, values in shipped.items():
        np.testing.assert_allclose(again[name], values, atol=WEIGHT_TOLERANCE)


def test_the_shipped_data_is_the_rebuilt_data(rebuilt: Path) -> None:
    with np.load(DATA_FILE) as shipped, np.load(rebuilt / DATA_FILE.name) as again:
        assert set(shipped) == set(again)
        for name in shipped:
            np.testing.assert_array_equal(shipped[name], again[name])


def test_the_assets_are_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < MAX_ASSET_BYTES


def test_the_halves_are_real_digits() -> None:
    digits = load_digits()
    assert digits.training.shape == (899, PIXELS)
    assert digits.heldout.shape == (898, PIXELS)
    assert len(digits.training_labels) == 899
    assert len(digits.heldout_labels) == 898
    assert set(digits.heldout_labels) == set(range(10))
    assert digits.training.max() == WHITE
    rows = scaled(digits.heldout)
    assert rows.dtype == np.float32
    assert (rows.min(), rows.max()) == (0.0, 1.0)
