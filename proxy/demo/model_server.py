"""A small model server as they are found: Open Inference Protocol v2, one digits model, debug mode on, no protection.

It leaks on purpose what real servers leak, so that the proxy has something to close: scores with every digit, Python
tracebacks in error bodies, headers that name software, an open repository, configuration and documentation. It speaks
JSON tensors only. Never for production: it trusts whoever reaches it, and only loopback can.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import argparse
import asyncio
import contextlib
import os
import platform
import signal

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from proxy.demo.digits import CLASSES, MODEL_FILE, PIXELS
from proxy.demo.loopback import LoopbackServer

MODEL, VERSION = "digits", "1"
DTYPES: dict[str, type[np.float32 | np.float64]] = {"FP32": np.float32, "FP64": np.float64}

_SERVER_METADATA = {"name": "demo-model-server", "version": "0.1.0", "extensions": ["model_repository"]}
_MODEL_METADATA = {
    "name": MODEL,
    "versions": [VERSION],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, PIXELS]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}],
}


class ModelServer(LoopbackServer):
    """The server with its model loaded. `hits` counts every request that reached it, whatever it asked."""

    def __init__(self, port: int = 0) -> None:
        # onnxruntime sends telemetry from 1.29 on, unless this stands before its first import.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self.load(MODEL_FILE.read_bytes())
        self._software = f"onnxruntime/{onnxruntime.__version__} Python/{platform.python_version()}"
        self._routes = Starlette(debug=True, routes=self._table())
        self.hits = 0
        super().__init__(self._count, port)

    def load(self, model: bytes) -> None:
        """Serve another ONNX model from now on, and say nothing about it: as a retraining does."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.hits += 1
        with contextlib.suppress(Exception):  # debug mode has answered with the traceback: no need to print it too
            await self._routes(scope, receive, send)

    def _table(self) -> list[Route]:
        model = "/v2/models/{model}"
        return [
            Route("/v2", self._server_metadata),
            Route("/v2/health/live", self._healthy),
            Route("/v2/health/ready", self._healthy),
            *(
                route
                for path in (model, model + "/versions/{version}")
                for route in (
                    Route(path, self._model_metadata),
                    Route(path + "/ready", self._healthy),
                    Route(path + "/infer", self._infer, methods=["POST"]),
                    Route(path + "/config", self._config),
                )
            ),
            Route("/v2/repository/index", self._repository, methods=["POST"]),
            Route("/docs", self._docs),
        ]

    async def _server_metadata(self, _: Request) -> Response:
        return self._answer(_SERVER_METADATA)

    async def _healthy(self, request: Request) -> Response:
        return self._answer({}) if self._known(request) else self._unknown(request)

    async def _model_metadata(self, request: Request) -> Response:
        return self._answer(_MODEL_METADATA) if self._known(request) else self._unknown(request)

    async def _infer(self, request: Request) -> Response:
        if not self._known(request):
            return self._unknown(request)
        body = await request.json()
        (tensor,) = body["inputs"]
        rows = np.asarray(tensor["data"], DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
        (probabilities,) = self._session.run(["probabilities"], {tensor["name"]: rows.astype(np.float32)})
        output = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": list(probabilities.shape),
            "data": probabilities.ravel().tolist(),
        }
        answer = {"model_name": MODEL, "model_version": VERSION, "outputs": [output]}
        return self._answer(answer | ({"id": body["id"]} if "id" in body else {}))

    async def _config(self, request: Request) -> Response:
        if not self._known(request):
            return self._unknown(request)
        return self._answer(_MODEL_METADATA | {"path": str(MODEL_FILE), "runtime": self._software})

    async def _repository(self, _: Request) -> Response:
        return self._answer([{"name": MODEL, "version": VERSION, "state": "READY", "reason": ""}])

    async def _docs(self, _: Request) -> Response:
        rows = "".join(f"<li>{route.path}" for route in self._table())
        return HTMLResponse(f"<title>demo model server</title><ul>{rows}</ul>", headers=self._headers())

    def _known(self, request: Request) -> bool:
        named = {"model": MODEL, "version": VERSION} | request.path_params
        return named == {"model": MODEL, "version": VERSION}

    def _unknown(self, request: Request) -> Response:
        return self._answer({"error": f"Model {request.path_params['model']} not found in {MODEL_FILE.parent}"}, 404)

    def _answer(self, content: object, status: int = 200) -> Response:
        return JSONResponse(content, status, self._headers())

    def _headers(self) -> dict[str, str]:
        return {"x-powered-by": self._software}


async def serve(port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    ended = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, ended.set)
    async with ModelServer(port) as server:
        print(f"{server.url}/v2/models/{MODEL}", flush=True)
        await ended.wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m proxy.demo.model_server", description=__doc__)
    arguments.add_argument("--port", type=int, default=0, help="a port of 127.0.0.1; 0 takes a free one")
    asyncio.run(serve(arguments.parse_args().port))
