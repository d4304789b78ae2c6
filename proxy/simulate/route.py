"""A route of some protocol, asked over HTTP as a client asks it."""

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from proxy.simulate.lists import KSERVE_V1, MLFLOW, described
from proxy.simulate.oip import told
from proxy.simulate.session import Rows, Scores, Stop

_STOPS = {401: Stop.REFUSED, 403: Stop.REFUSED, 429: Stop.BUDGET}
TIMEOUT = 30.0  # seconds

Pointers = tuple[str, str]  # where the rows of a question and the scores of an answer lie


class UnusableRouteError(Exception):
    """The route does not answer as a classifier of its protocol does; the message says what to mend."""


class Speech(Protocol):
    """How questions about rows are written, and answers read."""

    @property
    def ending(self) -> str:
        """What is asked of a model's URL."""
        ...

    def question(self, rows: Rows) -> object:
        """Return the body that asks about the rows."""
        ...

    def scores(self, answer: object, rows: int) -> Scores:
        """Return the scores of each row. Raise UnreadableError."""
        ...


class RouteTarget:
    """One model, asked as several callers. `token` returns a caller's token, or None where none is needed."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, token: Callable[[int], str | None], speech: Speech, batch: int
    ) -> None:
        self._http = http
        self._url = url if url.endswith(speech.ending) else url + speech.ending
        self._token = token
        self._speech = speech
        self.batch = batch

    async def ask(self, caller: int, rows: Rows) -> Scores | Stop:
        """Return the scores of each row, or why there are none."""
        answer = await _sent(self._http, "POST", self._url, self._token(caller), self._speech.question(rows))
        if answer.status_code in _STOPS:
            return _STOPS[answer.status_code]
        if answer.status_code != 200:
            msg = f"{self._url} answered {answer.status_code}: {answer.text[:200]}"
            raise UnusableRouteError(msg)
        try:
            return self._speech.scores(answer.json(), len(rows))
        except ValueError as exc:  # no JSON, or UnreadableError
            msg = f"{self._url}: {exc}"
            raise UnusableRouteError(msg) from exc


async def speech_of(
    http: httpx.AsyncClient, url: str, token: str | None, pointers: Pointers | None = None
) -> tuple[Speech, int | None]:
    """Return how the route is spoken to, as its path or the pointers say, and how many numbers a row has, if it tells.

    Raise UnusableRouteError.
    """
    path = urlsplit(url).path
    try:
        if pointers is not None:
            return described(*pointers), None
        if "/v1/models/" in path:
            return KSERVE_V1, None
        if path.endswith("/invocations"):
            return MLFLOW, None
        answer = await _sent(http, "GET", url.removesuffix("/infer"), token)
        if answer.status_code != 200:
            hint = "its caller needs a token, and the right to `metadata` and `infer`"
            msg = f"{url} answered {answer.status_code}: {hint}"
            raise UnusableRouteError(msg)
        speech = told(answer.json())
    except ValueError as exc:
        msg = f"{url}: {exc}"
        raise UnusableRouteError(msg) from exc
    return speech, speech.features


async def _sent(
    http: httpx.AsyncClient, method: str, url: str, token: str | None, content: object = None
) -> httpx.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        return await http.request(method, url, headers=headers, json=content)
    except httpx.TransportError as exc:
        msg = f"{url} cannot be reached: {type(exc).__name__}"
        raise UnusableRouteError(msg) from exc
