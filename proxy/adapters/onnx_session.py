"""onnxruntime: one thread, no telemetry, and its errors as ours."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.errors import DependencyFault
from proxy.reasons import Reason


def open_session(data: bytes) -> Any:
    """Return an onnxruntime session, which has no types."""
    # From 1.29 on it sends telemetry, and writes a device id, unless this stands before its first import.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # fatal only: an error comes back as an exception
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime's errors share no other base
        raise failed(exc) from exc


def run_each(
    session: Any, outputs: Sequence[str], inputs: Iterable[Mapping[str, NDArray[Any]]]
) -> list[list[NDArray[np.float32]]]:
    """Return the outputs of one run for each of the inputs. Raise DependencyFault(DETECTOR_FAILED)."""
    try:
        return [session.run(outputs, given) for given in inputs]
    except Exception as exc:  # onnxruntime's errors share no other base
        raise failed(exc) from exc


def failed(exc: Exception) -> DependencyFault:
    """Return what a failure of onnxruntime is to us."""
    return DependencyFault(Reason.DETECTOR_FAILED, f"onnxruntime: {type(exc).__name__}")
