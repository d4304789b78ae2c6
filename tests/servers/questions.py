"""What we ask every real server, good and bad: the table behind recorded/*.json and behind the tests of the leaks."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from proxy.demo.digits import load_digits, scaled

JSON = (("Content-Type", "application/json"),)
INFER = "/v2/models/digits/infer"


@dataclass(frozen=True, slots=True)
class Question:
    """One request; the client adds Host and Content-Length."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def _post(path: str, content: object, *headers: tuple[str, str]) -> Question:
    """JSON in the plain form; NaN is written as Python and many clients write it."""
    return Question("POST", path, json.dumps(content).encode(), (*JSON, *headers))


_THREE, _SEVEN = (scaled(load_digits().heldout)[index].tolist() for index in (1, 3))
_SHORT = [0.25, 0.5, 0.75, 1.0]
_NAN = [float("nan"), *_THREE[1:]]


def _tensor(data: list[float], shape: list[int] | None = None, **more: object) -> dict[str, object]:
    return {"name": "x", "shape": shape or [1, len(data)], "datatype": "FP32", "data": data, **more}


def _infer(data: list[float], shape: list[int] | None = None, **more: object) -> dict[str, object]:
    return {"inputs": [_tensor(data, shape)], **more}


_CUT = Question("POST", INFER, b'{"inputs":', JSON)

_OIP = {
    "infer": _post(INFER, _infer(_THREE)),
    "infer_two_rows": _post(INFER, _infer(_THREE + _SEVEN, [2, 64])),
    "infer_nested_data": _post(INFER, {"inputs": [_tensor(_THREE) | {"data": [_THREE]}]}),
    "infer_with_id": _post(INFER, _infer(_THREE, id="question-1")),
    "wrong_feature_count": _post(INFER, _infer(_SHORT)),
    "data_shorter_than_shape": _post(INFER, _infer(_SHORT, [1, 64])),
    "unknown_datatype": _post(INFER, {"inputs": [_tensor(_THREE) | {"datatype": "FP99"}]}),
    "unknown_output": _post(INFER, _infer(_THREE, outputs=[{"name": "nothing"}])),
    "no_inputs": _post(INFER, {}),
    "malformed_json": _CUT,
    "not_a_number": _post(INFER, _infer(_NAN)),
    "no_content_type": Question("POST", INFER, json.dumps(_infer(_THREE)).encode()),
    "unknown_model": _post("/v2/models/nothing/infer", _infer(_THREE)),
    "unknown_version": _post("/v2/models/digits/versions/9/infer", _infer(_THREE)),
    "unknown_path": Question("GET", "/v2/nothing"),
    "wrong_method": Question("GET", INFER),
    "health_live": Question("GET", "/v2/health/live"),
    "health_ready": Question("GET", "/v2/health/ready"),
    "server_metadata": Question("GET", "/v2"),
    "model_metadata": Question("GET", "/v2/models/digits"),
    "unknown_model_metadata": Question("GET", "/v2/models/nothing"),
    "model_ready": Question("GET", "/v2/models/digits/ready"),
    "config": Question("GET", "/v2/models/digits/config"),
    "statistics": Question("GET", "/v2/models/digits/stats"),
    "repository_index": _post("/v2/repository/index", {}),
}

_MLSERVER = _OIP | {
    "infer_version": _post("/v2/models/digits/versions/v1/infer", _infer(_THREE)),
    "predict_proba": _post(INFER, _infer(_THREE, outputs=[{"name": "predict_proba"}])),
    "predict_proba_two_rows": _post(INFER, _infer(_THREE + _SEVEN, [2, 64], outputs=[{"name": "predict_proba"}])),
    "predict_and_predict_proba": _post(INFER, _infer(_THREE, outputs=[{"name": "predict"}, {"name": "predict_proba"}])),
    "predict_proba_gzip": _post(
        INFER,
        _infer(_THREE + _SEVEN, [2, 64], outputs=[{"name": "predict_proba"}]),
        ("Accept-Encoding", "gzip"),
    ),
    "infer_stream": _post("/v2/models/digits/infer_stream", _infer(_THREE)),
    "wrong_feature_count_html": _post(INFER, _infer(_SHORT), ("Accept", "text/html")),
}


def _binary_input() -> Question:
    """Binary tensor data extension: JSON, then the raw little-endian tensors; a header says where JSON ends."""
    raw = struct.pack("<64f", *_THREE)
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Inference-Header-Content-Length", str(len(text))),
    )
    return Question("POST", INFER, text + raw, headers)


def _output(name: str, **parameters: object) -> list[dict[str, object]]:
    return [{"name": name, "parameters": parameters}]


_TRITON = _OIP | {
    "infer_version": _post("/v2/models/digits/versions/1/infer", _infer(_THREE)),
    "logits": _post(INFER, _infer(_THREE, outputs=[{"name": "logits"}])),
    "classification": _post(INFER, _infer(_THREE, outputs=_output("probabilities", classification=3))),
    "classification_two_rows": _post(
        INFER, _infer(_THREE + _SEVEN, [2, 64], outputs=_output("probabilities", classification=2))
    ),
    "binary_output": _post(INFER, _infer(_THREE, outputs=_output("probabilities", binary_data=True))),
    "binary_classification": _post(
        INFER, _infer(_THREE, outputs=_output("probabilities", binary_data=True, classification=3))
    ),
    "binary_output_of_all": _post(INFER, _infer(_THREE, parameters={"binary_data_output": True})),
    "binary_input": _binary_input(),
    "infer_gzip": _post(INFER, _infer(_THREE), ("Accept-Encoding", "gzip")),
    "generate": _post("/v2/models/digits/generate", {"x": _THREE}),
    "all_statistics": Question("GET", "/v2/models/stats"),
    "trace_setting": Question("GET", "/v2/trace/setting"),
    "logging": Question("GET", "/v2/logging"),
    "system_shared_memory": Question("GET", "/v2/systemsharedmemory/status"),
    "cuda_shared_memory": Question("GET", "/v2/cudasharedmemory/status"),
}

_INVOKE = "/invocations"
_COLUMNS = [str(number) for number in range(64)]

_MLFLOW = {
    "inputs": _post(_INVOKE, {"inputs": [_THREE]}),
    "instances": _post(_INVOKE, {"instances": [_THREE]}),
    "dataframe_split": _post(_INVOKE, {"dataframe_split": {"columns": _COLUMNS, "data": [_THREE]}}),
    "dataframe_records": _post(_INVOKE, {"dataframe_records": [dict(zip(_COLUMNS, _THREE, strict=True))]}),
    "csv": Question(
        "POST",
        _INVOKE,
        "\n".join((",".join(_COLUMNS), ",".join(map(str, _THREE)), "")).encode(),
        (("Content-Type", "text/csv"),),
    ),
    "two_rows": _post(_INVOKE, {"inputs": [_THREE, _SEVEN]}),
    "wrong_feature_count": _post(_INVOKE, {"inputs": [_SHORT]}),
    "ragged_rows": _post(_INVOKE, {"inputs": [_THREE, _SHORT]}),
    "text_for_numbers": _post(_INVOKE, {"inputs": [["four"] * 64]}),
    "not_a_number": _post(_INVOKE, {"inputs": [_NAN]}),
    "unknown_key": _post(_INVOKE, {"rows": [_THREE]}),
    "malformed_json": Question("POST", _INVOKE, b'{"inputs":', JSON),
    "no_content_type": Question("POST", _INVOKE, json.dumps({"inputs": [_THREE]}).encode()),
    "unknown_content_type": Question("POST", _INVOKE, b"x", (("Content-Type", "application/octet-stream"),)),
    "unknown_path": Question("GET", "/nothing"),
    "wrong_method": Question("GET", _INVOKE),
    "ping": Question("GET", "/ping"),
    "health": Question("GET", "/health"),
    "version": Question("GET", "/version"),
}

_CHAT = "/v1/chat/completions"
_ASK = {"model": "digits", "messages": [{"role": "user", "content": "Which digit is this?"}]}

_LITSERVE = {
    "chat": _post(_CHAT, _ASK),
    "chat_stream": _post(_CHAT, _ASK | {"stream": True}),
    "chat_with_logprobs": _post(_CHAT, _ASK | {"logprobs": True, "top_logprobs": 5}),
    "no_messages": _post(_CHAT, {"model": "digits"}),
    "wrong_content": _post(_CHAT, {"model": "digits", "messages": [{"role": "user", "content": 5}]}),
    "malformed_json": Question("POST", _CHAT, b'{"model":', JSON),
    "models": Question("GET", "/v1/models"),
    "unknown_path": Question("GET", "/nothing"),
    "health": Question("GET", "/health"),
    "info": Question("GET", "/info"),
}

QUESTIONS: Mapping[str, Mapping[str, Question]] = MappingProxyType(
    {"mlserver": _MLSERVER, "triton": _TRITON, "mlflow": _MLFLOW, "litserve": _LITSERVE}
)
