"""The tour: one request for each protection, through TLS, with what the model server would have said beside it."""

import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.demo.digits import PIXELS, load_digits, scaled
from proxy.demo.world import TRIAL_REQUESTS, DemoWorld

Headers = dict[str, str]
SHOWN = 3  # scores of ten that are shown


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of the tour. `expected` is the status that makes it a success."""

    title: str
    expected: int
    status: int
    answer: str
    raw: str = ""
    good: bool = True
    incident: str = ""

    @property
    def passed(self) -> bool:
        """Say whether the proxy did what the stop is about."""
        return self.status == self.expected and self.good


class Tour:
    """Asks the proxy, and the model server without it, as two clients would."""

    def __init__(self, world: DemoWorld) -> None:
        self._world = world
        context = ssl.create_default_context(cafile=world.certificates.ca.certificate)
        self._proxied = httpx.AsyncClient(verify=context, trust_env=False, timeout=30)
        self._direct = httpx.AsyncClient(trust_env=False, timeout=30)
        self._digit = scaled(load_digits().heldout[:1])[0].tolist()
        self._noise = np.random.default_rng(5).uniform(size=PIXELS).tolist()

    async def walk(self) -> list[Stop]:
        """Return every stop, in order."""
        async with self._proxied, self._direct:
            return [
                await self._allowed(),
                await self._without_token(),
                await self._without_mfa(),
                await self._wrong_role(),
                await self._management(),
                await self._exhausted(),
                await self._anomalous(),
                await self._sanitized(),
            ]

    # ── the stops ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _allowed(self) -> Stop:
        direct = await self._ask_directly(_tensor(self._digit))
        answer = await self._ask(_tensor(self._digit), self._analyst())
        same_winner = int(np.argmax(_scores(direct))) == int(np.argmax(_scores(answer)))
        return Stop(
            "an analyst with a second factor", 200, answer.status_code, _said(answer), _said(direct), same_winner
        )

    async def _without_token(self) -> Stop:
        return await self._refused("no token", 401, {})

    async def _without_mfa(self) -> Stop:
        token = self._world.identity.token("alice", ["analyst"], amr=["pwd"])
        return await self._refused("a password only: step up", 401, _bearer(token))

    async def _wrong_role(self) -> Stop:
        token = self._world.identity.token("mallory", ["visitor"])
        return await self._refused("a role that no rule names", 403, _bearer(token))

    async def _management(self) -> Stop:
        direct = await self._direct.post(f"{self._world.model_server.url}/v2/repository/index")
        url = f"https://localhost:{self._world.proxy.port}/v2/repository/index"
        answer = await self._proxied.post(url, headers=self._analyst())
        return Stop("the repository, asked by an analyst", 403, answer.status_code, _said(answer), _said(direct))

    async def _exhausted(self) -> Stop:
        headers = _bearer(self._world.identity.token("tom", ["trial"]))
        for _ in range(TRIAL_REQUESTS):
            await self._ask(_tensor(self._digit), headers)
        answer = await self._ask(_tensor(self._digit), headers)
        said = f"retry after {answer.headers.get('retry-after', '?')} s"
        return Stop(f"a trial user's request {TRIAL_REQUESTS + 1} of {TRIAL_REQUESTS}", 429, answer.status_code, said)

    async def _anomalous(self) -> Stop:
        direct = await self._ask_directly(_tensor(self._noise))
        answer = await self._ask(_tensor(self._noise), self._analyst())
        label_only = sorted(set(_scores(answer))) == [0.0, 1.0]
        return Stop(
            "noise: no digit, so the label only", 200, answer.status_code, _said(answer), _said(direct), label_only
        )

    async def _sanitized(self) -> Stop:
        wrong = _tensor(self._digit, name="y")
        direct = await self._ask_directly(wrong)
        answer = await self._ask(wrong, self._analyst())
        silent = "Traceback" in direct.text and "Traceback" not in answer.text
        return Stop(
            title="an input that crashes the model server",
            expected=502,
            status=answer.status_code,
            answer=_said(answer),
            raw=_said(direct),
            good=silent,
            incident=_incident(answer),
        )

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _refused(self, title: str, expected: int, headers: Headers) -> Stop:
        answer = await self._ask(_tensor(self._digit), headers)
        return Stop(title, expected, answer.status_code, _said(answer))

    async def _ask(self, body: object, headers: Headers) -> httpx.Response:
        return await self._proxied.post(f"{self._world.url}/infer", json=body, headers=headers)

    async def _ask_directly(self, body: object) -> httpx.Response:
        return await self._direct.post(f"{self._world.direct_url}/infer", json=body)

    def _analyst(self) -> Headers:
        return _bearer(self._world.identity.token("alice", ["analyst"]))


def _bearer(token: str) -> Headers:
    return {"authorization": f"Bearer {token}"}


def _tensor(row: Sequence[float], name: str = "x") -> object:
    return {"inputs": [{"name": name, "shape": [1, len(row)], "datatype": "FP32", "data": list(row)}]}


def _scores(answer: httpx.Response) -> list[float]:
    try:
        return [float(score) for score in answer.json()["outputs"][0]["data"]]
    except (ValueError, KeyError, IndexError, TypeError):
        return []


def _incident(answer: httpx.Response) -> str:
    return str(answer.json().get("instance", "")).removeprefix("urn:hip:incident:")


def _said(answer: httpx.Response) -> str:
    """Put an answer into a table cell: the best scores, a problem's title, or the beginning of a text."""
    scores = _scores(answer)
    if scores:
        best = sorted(range(len(scores)), key=lambda digit: -scores[digit])[:SHOWN]
        return "\n".join(f"{digit}: {scores[digit]!r}" for digit in best)
    try:
        content = json.loads(answer.text)
    except ValueError:
        content = None
    if isinstance(content, dict) and "title" in content:
        return f"{content['title']}\nincident {_incident(answer)[:8]}…"
    lines = answer.text.strip().splitlines()
    return "\n".join(line[:60] for line in (lines if len(lines) < 4 else [lines[0], "…", lines[-1]]))


def print_stops(stops: Sequence[Stop], console: Console) -> None:
    """Print the tour as one table."""
    table = Table("", "request", "status", "through hip", "the model server alone", show_lines=True, expand=True)
    for stop in stops:
        mark = Text("✓", "green") if stop.passed else Text("✗", "red bold")
        table.add_row(mark, stop.title, str(stop.status), Text(stop.answer), Text(stop.raw))
    console.print(table)
