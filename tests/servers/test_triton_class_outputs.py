"""Triton with a model that has an output for each class, behind `hip serve`: still no more classes than the profile."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton

from proxy.demo.digits import load_digits, scaled
from tests.servers import launch
from tests.servers.asking import ask
from tests.servers.questions import QUESTIONS
from tests.servers.roads import open_roads, seen
from tests.servers.through import Through, ask_through, hip_before

NAMES = ("zero", "one", "two")
CONFIG = """
backend: "python"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [64] }
""" + "\n".join(f'output {{ name: "{name}" data_type: TYPE_FP32 dims: [1] }}' for name in NAMES)
ASKED = QUESTIONS["triton"]
ROWS = scaled(load_digits().heldout[:16])

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def through(servers_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Through]:
    directory = tmp_path_factory.mktemp("classes")
    with (
        launch.triton(directory, CONFIG, "triton_classes.py") as server,
        hip_before(server, "oip-v2", open_roads(tmp_path_factory.mktemp("hip-classes"))) as running,
    ):
        yield running


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize(("role", "most"), [("classifier", 2), ("labeller", 1)])
def test_the_stock_client_gets_the_best_classes_of_each_row(through, binary, role, most):
    wanted = triton.InferInput("x", list(ROWS.shape), "FP32")
    wanted.set_data_from_numpy(ROWS, binary_data=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in NAMES]
    direct = triton.InferenceServerClient(through.server.url.removeprefix("http://"))
    there = f"localhost:{through.hip.port}"
    client = triton.InferenceServerClient(there, ssl=True, ssl_context_factory=through.hip.trust)
    headers = {"Authorization": f"Bearer {through.token(role)}"}
    raw, shown = (
        np.hstack([answer.as_numpy(name) for name in NAMES])
        for answer in (
            direct.infer("digits", [wanted], outputs=outputs),
            client.infer("digits", [wanted], outputs=outputs, headers=headers),
        )
    )
    direct.close()
    client.close()
    assert (raw > 0).all()
    assert ((shown > 0).sum(axis=1) <= most).all()
    assert (shown.argmax(axis=1) == raw.argmax(axis=1)).all()


@pytest.mark.parametrize("name", ["infer", "infer_two_rows", "binary_output_of_all", "generate"])
@pytest.mark.parametrize("role", ["classifier", "labeller"])
def test_the_oracle_sees_them_at_the_server_and_not_behind_the_proxy(through, name, role):
    with through.client(through.token(role)) as http:
        answer = ask_through(http, ASKED[name])
    assert answer.status == 200
    assert seen(answer, role) == []
    assert seen(ask(through.server.url, ASKED[name]), role)
