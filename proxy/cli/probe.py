"""`hip probe`: record how a model answers golden inputs, so that the proxy sees when it no longer does.

Exit codes: 0 good, 2 wrong use, 3 the model could not be asked.
"""

import asyncio
import hashlib
import json
import ssl
import statistics
import time
from collections.abc import Collection
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import msgspec
import numpy as np
import typer

from proxy.adapters.golden import load_golden
from proxy.detection.golden import Golden, metadata_digest, outputs
from proxy.detection.rows import MAX_INPUT, Form, read_table
from proxy.errors import ConfigError, RequestError

WRONG_USE, UNDECIDED = 2, 3
ROWS = 100  # golden inputs, where nobody says how many
ANSWERS = 5  # of which the median time is taken, and which must all be the same
TIMEOUT = 60.0  # seconds

_ENDINGS = {".csv": Form.CSV, ".npy": Form.NPY, ".jsonl": Form.JSON_LINES}

Table = np.ndarray[tuple[int, int], np.dtype[np.float64]]

probe_app = typer.Typer(no_args_is_help=True, help="Golden inputs: record how a model answers them.")


class _ProbeError(Exception):
    def __init__(self, message: str, code: int = WRONG_USE) -> None:
        super().__init__(message)
        self.code = code


@probe_app.callback()
def _root() -> None:
    """Keep `record` a verb of its own."""


@probe_app.command("record")
def record_command(
    url: Annotated[str, typer.Argument(help="The model at its server, without the proxy: http://HOST/v2/models/iris.")],
    data: Annotated[Path, typer.Option(help="Inputs: .csv, .npy or .jsonl. Cover every class, and what matters most.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The baseline file to write.")],
    rows: Annotated[int, typer.Option(min=1, help="How many inputs to take, evenly spread over the file.")] = ROWS,
    tensor: Annotated[str | None, typer.Option(help="The input, where the metadata names none: `x:FP32`.")] = None,
    ask: Annotated[list[str] | None, typer.Option(help="An output to ask for; repeatable. Else the default.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file of the CA of the server's certificate.")] = None,
) -> None:
    """Ask a model golden inputs, and write its answers down as the baseline.

    Example: hip probe record http://127.0.0.1:8080/v2/models/iris --data inputs.csv -o policies/probes/iris.json
    """
    try:
        taken = _inputs(data, rows)
        golden = asyncio.run(_recorded(url, taken, tensor, ask or (), ca_file))
        content = msgspec.json.format(msgspec.json.encode(golden), indent=1)
        digest = hashlib.sha256(content).hexdigest()
        output.write_bytes(content)
        load_golden(output, digest)
    except (_ProbeError, ConfigError, RequestError, OSError) as error:
        typer.echo(str(error), err=True)
        code = (
            error.code
            if isinstance(error, _ProbeError)
            else UNDECIDED
            if isinstance(error, RequestError)
            else WRONG_USE
        )
        raise typer.Exit(code) from error
    name = golden.model.split("/")[3]
    print(f"{len(taken)} golden inputs, {golden.seconds * 1e3:.1f} ms.")
    print("For the policy, `file` as seen from its directory:\n")
    print(f"probes:\n  {name}-golden: {{model: {name}, file: {output.name}, sha256: {digest}, every: 5m}}")


def _inputs(path: Path, count: int) -> Table:
    form = _ENDINGS.get(path.suffix.lower())
    if form is None:
        msg = f"{path}: unknown kind of file; name it {', '.join(_ENDINGS)}"
        raise _ProbeError(msg)
    if path.stat().st_size > MAX_INPUT:
        msg = f"{path} is larger than {MAX_INPUT:,} bytes; give a part of it"
        raise _ProbeError(msg)
    table = read_table(path.read_bytes(), form, str(path)).rows
    chosen = np.unique(np.linspace(0, len(table) - 1, min(count, len(table))).astype(int))
    return np.asarray(table[chosen], np.float64)


async def _recorded(url: str, rows: Table, tensor: str | None, asked: Collection[str], ca_file: Path | None) -> Golden:
    context = ssl.create_default_context(cafile=ca_file)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=TIMEOUT) as http:
        metadata = await _sent(http, "GET", url)
        name, datatype = _tensor(tensor, metadata, url)
        data = rows.astype(np.float32).ravel().tolist()
        content: dict[str, object] = {
            "inputs": [{"name": name, "shape": list(rows.shape), "datatype": datatype, "data": data}]
        }
        if asked:
            content["outputs"] = [{"name": each} for each in asked]
        request = json.dumps(content)
        answers, seconds = [], []
        for _ in range(ANSWERS):
            begun = time.perf_counter()
            answers.append(outputs(await _sent(http, "POST", f"{url}/infer", request)))
            seconds.append(time.perf_counter() - begun)
    if any(answer != answers[0] for answer in answers):
        msg = f"{url} answers the same inputs differently from time to time: no baseline can hold"
        raise _ProbeError(msg, UNDECIDED)
    return Golden(1, urlsplit(url).path, request, metadata_digest(metadata), statistics.median(seconds), answers[0])


def _tensor(given: str | None, metadata: bytes, url: str) -> tuple[str, str]:
    """Return the input's name and datatype."""
    if given is not None:
        name, _, datatype = given.partition(":")
        return name, datatype or "FP32"
    try:
        (tensor,) = json.loads(metadata)["inputs"]
        return str(tensor["name"]), str(tensor["datatype"])
    except (ValueError, KeyError, TypeError) as exc:
        msg = f"{url} names no single input in its metadata: name it, like --tensor x:FP32"
        raise _ProbeError(msg) from exc


async def _sent(http: httpx.AsyncClient, method: str, url: str, content: str | None = None) -> bytes:
    try:
        answer = await http.request(method, url, content=content, headers={"content-type": "application/json"})
    except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
        msg = f"{url} cannot be reached: {type(exc).__name__}"
        raise _ProbeError(msg, UNDECIDED) from exc
    if answer.status_code != 200:
        msg = f"{url} answered {answer.status_code}"
        raise _ProbeError(msg, UNDECIDED)
    return answer.content
