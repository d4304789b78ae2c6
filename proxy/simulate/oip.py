"""A route that speaks the Open Inference Protocol v2, asked as a client asks it."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx
import numpy as np

from proxy.simulate.session import Rows, Scores, Stop

_STOPS = {401: Stop.REFUSED, 403: Stop.REFUSED, 429: Stop.BUDGET}
TIMEOUT = 30.0  # seconds


class UnusableRouteError(Exception):
    """The route does not answer as a classifier of this protocol does; the message says what to mend."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """How a request to the model is written."""

    name: str
    datatype: str
    features: int


class OipTarget:
    """One model, asked as several callers. `token` returns a caller's token, or None where none is needed."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, token: Callable[[int], str | None], inputs: Inputs, batch: int
    ) -> None:
        self._http = http
        self._url = url
        self._token = token
        self._inputs = inputs
        self.batch = batch

    async def ask(self, caller: int, rows: Rows) -> Scores | Stop:
        """Return the scores of each row, or why there are none."""
        tensor = {
            "name": self._inputs.name,
            "shape": list(rows.shape),
            "datatype": self._inputs.datatype,
            "data": rows.astype(np.float32).ravel().tolist(),
        }
        answer = await _sent(self._http, "POST", f"{self._url}/infer", self._token(caller), {"inputs": [tensor]})
        if answer.status_code in _STOPS:
            return _STOPS[answer.status_code]
        if answer.status_code != 200:
            msg = f"{self._url}/infer answered {answer.status_code}: {answer.text[:200]}"
            raise UnusableRouteError(msg)
        return _scores(answer, len(rows))


async def inputs_of(http: httpx.AsyncClient, url: str, token: str | None) -> Inputs:
    """Return what the model's metadata says of its input. Raise UnusableRouteError."""
    answer = await _sent(http, "GET", url, token)
    if answer.status_code != 200:
        hint = "its caller needs a token, and the right to `metadata` and `infer`"
        msg = f"{url} answered {answer.status_code}: {hint}"
        raise UnusableRouteError(msg)
    try:
        (tensor,) = answer.json()["inputs"]
        return Inputs(str(tensor["name"]), str(tensor["datatype"]), int(tensor["shape"][-1]))
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        msg = f"{url} names no single input with a last dimension"
        raise UnusableRouteError(msg) from exc


async def _sent(
    http: httpx.AsyncClient, method: str, url: str, token: str | None, content: object = None
) -> httpx.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        return await http.request(method, url, headers=headers, json=content)
    except httpx.TransportError as exc:
        msg = f"{url} cannot be reached: {type(exc).__name__}"
        raise UnusableRouteError(msg) from exc


def _scores(answer: httpx.Response, rows: int) -> Scores:
    """Return the first output that has a score for each class."""
    try:
        for output in answer.json()["outputs"]:
            shape = output["shape"]
            if len(shape) == 2 and shape[0] == rows and shape[1] > 1 and output["datatype"].startswith("FP"):
                return np.asarray(output["data"], np.float64).reshape(shape)
    except (ValueError, KeyError, TypeError) as exc:
        raise UnusableRouteError("an answer that is not of the Open Inference Protocol") from exc
    raise UnusableRouteError("no output has a score for each class: name a classifier's route")
