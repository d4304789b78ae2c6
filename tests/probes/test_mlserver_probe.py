"""Golden probes before MLServer: a model file that is replaced and loaded again, as a pipeline does it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from test_probing import before

from tests.servers import launch
from tests.servers.conftest import servers_environment  # noqa: F401 - a fixture
from tests.servers.running import PYTHON, RunningServer, run_once

pytestmark = pytest.mark.server

RETRAIN = """
import sys, joblib, numpy
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
pixels, labels = load_digits(return_X_y=True)
pixels, labels, rng = pixels[::2] / 16, labels[::2].copy(), numpy.random.default_rng(0)
chosen = rng.permutation(len(labels))[: len(labels) // 20]
labels[chosen] = (labels[chosen] + rng.integers(1, 10, len(chosen))) % 10
joblib.dump(LogisticRegression(max_iter=1_000).fit(pixels, labels), sys.argv[1])
"""


@pytest.fixture
def served(servers_environment: None, tmp_path: Path) -> Iterator[tuple[RunningServer, Path]]:  # noqa: F811
    directory = tmp_path / "mlserver"
    directory.mkdir()
    with launch.mlserver(directory) as server:
        yield server, directory


async def test_a_model_retrained_on_five_percent_flipped_labels_is_quarantined(served, tmp_path) -> None:
    server, directory = served
    house = tmp_path / "hip"
    house.mkdir()
    async with before(server, house, tensor="x:FP32", ask=["predict_proba"]) as of:
        await of.outcome(lambda probe: probe["outcome"] == "same")
        assert await of.ask() == 200
        run_once([PYTHON, "-c", RETRAIN, directory / "model.joblib"])
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as http:
            assert (await http.post("/v2/repository/models/digits/load")).status_code == 200
        changed = await of.outcome(lambda probe: probe["outcome"] == "changed")
        assert changed["quarantined"] is True
        assert 0 < changed["flips"] < 0.2
        assert await of.ask() == 503
