"""The four real servers, each as `with NAME(directory) as server:`, with what its documentation calls a default.

All read digits: `x` of 64 features in [0, 1]. MLServer and MLflow load a scikit-learn model that their own environment
has trained, Triton runs the demo's weights in its Python backend, LitServe says five scripted tokens.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from proxy.demo.digits import MODEL_FILE
from tests.servers.running import PYTHON, RunningServer, free_ports, run_once, running

MODELS = Path(__file__).parent / "models"
MODEL = "digits"
PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"

TRITON_CONFIG = """
backend: "python"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [64] }
output { name: "probabilities" data_type: TYPE_FP32 dims: [10] label_filename: "labels.txt" }
output { name: "logits" data_type: TYPE_FP32 dims: [10] }
"""
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def documented(server: str, program: Path, place: str) -> list[str | Path]:
    """Return the command that docs/dialects.md says starts a server, with its place in it: what we start is that."""
    (cell,) = re.findall(rf"^\| {server} \| `[a-z0-9-]+` \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    name, *arguments = shlex.split(cell)
    assert name == program.name
    return [program, *(place if argument in {"DIR", "MODEL", "SERVER.py"} else argument for argument in arguments)]


@contextlib.contextmanager
def mlserver(directory: Path) -> Iterator[RunningServer]:
    """MLServer with `debug` as it comes, which is on; the worker pool is off, since it does not survive new uvloops."""
    run_once([PYTHON, MODELS / "train_for_mlserver.py", directory / "model.joblib"])
    http, grpc, metrics = free_ports(3)
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    model = {
        "name": MODEL,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "v1"},
    }
    (directory / "settings.json").write_text(json.dumps(settings))
    (directory / "model-settings.json").write_text(json.dumps(model))
    command = documented("MLServer", PYTHON.with_name("mlserver"), ".")
    with running("mlserver", command, http, f"/v2/models/{MODEL}/ready", directory) as server:
        yield server


@contextlib.contextmanager
def triton(directory: Path, config: str = TRITON_CONFIG, program: str = "triton_digits.py") -> Iterator[RunningServer]:
    """Triton in explicit mode with its Python backend, out of the wheel of pytriton; with another model, if asked."""
    version, packages, libraries = run_once([PYTHON, "-c", WHERE]).split("\n")[:3]
    carried = Path(packages) / "pytriton" / "tritonserver"
    backends = directory / "backends"
    shutil.copytree(carried / "backends", backends)
    shutil.copy(carried / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")

    model = directory / "repository" / MODEL
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(config)
    (model / "labels.txt").write_text("\n".join(LABELS) + "\n")
    shutil.copy(MODELS / program, model / "1" / "model.py")
    weights = {each.name: numpy_helper.to_array(each) for each in onnx.load(MODEL_FILE).graph.initializer}
    np.savez(model / "1" / "weights.npz", **weights)

    (port,) = free_ports(1)
    command = [
        *documented("Triton", carried / "bin" / "tritonserver", str(model.parent)),
        *("--backend-directory", backends, "--http-port", str(port)),
        *("--allow-grpc", "false", "--allow-metrics", "false"),
        *("--model-control-mode", "explicit", "--load-model", MODEL),
    ]
    environment = {"LD_LIBRARY_PATH": os.pathsep.join((str(Path(packages) / "nvidia_pytriton.libs"), libraries))}
    with running("triton", command, port, "/v2/health/ready", directory, environment) as server:
        yield server


# The stub is made for one Python and links its shared library, which need not be where the system looks.
WHERE = """
import sys, sysconfig
print("%d.%d" % sys.version_info[:2], sysconfig.get_path("purelib"), sysconfig.get_config_var("LIBDIR"), sep="\\n")
"""


@contextlib.contextmanager
def mlflow(directory: Path) -> Iterator[RunningServer]:
    """MLflow's scoring server with a model that has a signature and answers probabilities."""
    run_once([PYTHON, MODELS / "train_for_mlflow.py", directory / "model"])
    (port,) = free_ports(1)
    command = [
        *documented("MLflow", PYTHON.with_name("mlflow"), "model"),
        *("-p", str(port), "--env-manager", "local"),
    ]
    with running("mlflow", command, port, "/ping", directory) as server:
        yield server


@contextlib.contextmanager
def litserve(directory: Path) -> Iterator[RunningServer]:
    """LitServe as an OpenAI chat server."""
    (port,) = free_ports(1)
    command = [*documented("LitServe", PYTHON, str(MODELS / "litserve_chat.py")), str(port)]
    with running("litserve", command, port, "/health", directory) as server:
        yield server
