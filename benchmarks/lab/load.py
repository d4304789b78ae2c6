"""Load on core 1: wrk where it can do the case, our own clients where a rate is set or events are timed.

Every measurement begins with one probe, so that a contender which answers something else is told apart from a fast one.
"""

import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.lab.cases import Case, Load, Tokens
from benchmarks.lab.contenders import Contender
from benchmarks.lab.peers import LITELLM_KEY
from benchmarks.lab.process import LAB_CORE
from benchmarks.lab.setting import Setting

HERE = Path(__file__).parent
PROBE_TIMEOUT = 15.0  # seconds
_SCRIPT = """
local file = io.open("{body}", "rb")
local body = file:read("*a")
file:close()
local headers = {headers}
local tokens = {{}}
for line in io.lines("{tokens}") do tokens[#tokens + 1] = line end
wrk.method = "POST"
wrk.body = body
for name, value in pairs(headers) do wrk.headers[name] = value end
if #tokens == 1 then wrk.headers["authorization"] = tokens[1] end
local requests, at = {{}}, 0
if #tokens > 1 then
  init = function()
    for each = 1, #tokens do
      wrk.headers["authorization"] = tokens[each]
      requests[each] = wrk.format()
    end
  end
  request = function()
    at = at % #requests + 1
    return requests[at]
  end
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{{"seconds": %f, "requests": %d, "p50_ms": %f, "p99_ms": %f, "refused": %d, "broken": %d}}\\n',
    summary.duration / 1e6, summary.requests, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class NotYet(Exception):
    """The contender does not answer this case as the case wants it."""

    def __init__(self, *why: object) -> None:
        super().__init__(" ".join(map(str, why)))


@dataclass(frozen=True, slots=True)
class Heard:
    """What the client saw. Rates are per second, times in milliseconds."""

    rate: float
    requests: int
    p50_ms: float
    p99_ms: float
    first_ms: float | None = None  # EVENTS: from the request to its first event; then p50 and p99 are an event's delay


@dataclass(frozen=True, slots=True)
class Plan:
    """A case for one contender, written to files."""

    url: str
    case: Case
    headers: Mapping[str, str]
    tokens: Sequence[str]
    directory: Path
    ca: Path


def plan(setting: Setting, contender: Contender, port: int, case: Case) -> Plan:
    """Write what the clients read."""
    scheme = "https" if contender.tls else "http"
    directory = setting.directory / "plans" / f"{contender.name}-{case.name}".replace(" ", "-")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "body").write_bytes(case.body)
    headers = dict(case.headers)
    if case.load is Load.HANDSHAKES:
        headers["connection"] = "close"
    tokens = _tokens(setting, contender, case)
    (directory / "tokens").write_text("".join(f"{token}\n" for token in tokens))
    table = "{" + ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()) + "}"
    (directory / "wrk.lua").write_text(
        _SCRIPT.format(body=directory / "body", tokens=directory / "tokens", headers=table)
    )
    url = f"{scheme}://127.0.0.1:{port}{case.path}"
    return Plan(url, case, headers, tokens, directory, setting.certificates.ca.certificate)


def _tokens(setting: Setting, contender: Contender, case: Case) -> list[str]:
    if contender.name == "litellm":
        return [f"Bearer {LITELLM_KEY}"]
    match case.tokens:
        case Tokens.NONE:
            return []
        case Tokens.COLD:
            return [f"Bearer {token}" for token in setting.cold_tokens]
        case Tokens.ONE:
            return [f"Bearer {setting.token(case.role)}"]


def probe(asked: Plan) -> None:
    """Ask until the wanted status comes, at most twice: a budget of one request refuses the second."""
    status = _ask(asked)
    if status != asked.case.status:
        status = _ask(asked)
    if status != asked.case.status:
        raise NotYet("answers", status, "instead of", asked.case.status)


def _ask(asked: Plan) -> int:
    scheme, _, rest = asked.url.partition("://")
    authority, slash, path = rest.partition("/")
    if scheme == "https":
        trust = ssl.create_default_context(cafile=asked.ca)
        client = http.client.HTTPSConnection(authority, timeout=PROBE_TIMEOUT, context=trust)
    else:
        client = http.client.HTTPConnection(authority, timeout=PROBE_TIMEOUT)
    headers = dict(asked.headers) | ({"authorization": asked.tokens[-1]} if asked.tokens else {})
    try:
        client.request("POST", slash + path, asked.case.body, headers)
        answer = client.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotYet("does not answer:", type(error).__name__) from error
    finally:
        client.close()
    return answer.status


def run(asked: Plan, seconds: float, rate: float = 0.0) -> Heard:
    """Ask for some seconds. `rate` is a paced case's, per second."""
    match asked.case.load:
        case Load.CLOSED | Load.HANDSHAKES:
            return _wrk(asked, seconds)
        case Load.PACED:
            return Heard(**_own("paced_client.py", asked, seconds, rate=rate))
        case Load.EVENTS:
            return Heard(**_own("event_client.py", asked, seconds))


def _wrk(asked: Plan, seconds: float) -> Heard:
    command = ["wrk", "-t1", f"-c{asked.case.connections}", f"-d{seconds:.0f}s", "--timeout", "10s"]
    command += ["-s", str(asked.directory / "wrk.lua"), asked.url]
    lines = _on_core(command).splitlines()
    said = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
    refused = said["requests"] if asked.case.status >= 400 else 0
    # wrk counts a close after `Connection: close` as no fault; what it counts is one.
    if said["broken"] or said["refused"] != refused:
        raise NotYet(said["broken"], "broken,", said["refused"], "of", said["requests"], "with a status above 399")
    return Heard(said["requests"] / said["seconds"], said["requests"], said["p50_ms"], said["p99_ms"])


def _own(client: str, asked: Plan, seconds: float, **more: float) -> dict[str, float]:
    order = {
        "url": asked.url,
        "ca": str(asked.ca),
        "headers": dict(asked.headers) | ({"authorization": asked.tokens[0]} if asked.tokens else {}),
        "body": str(asked.directory / "body"),
        "connections": asked.case.connections,
        "seconds": seconds,
        **more,
    }
    said: dict[str, float] = json.loads(_on_core([sys.executable, str(HERE / client), json.dumps(order)]))
    return said


def _on_core(command: Sequence[str]) -> str:
    done = subprocess.run(
        ["taskset", "-c", str(LAB_CORE), *command],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        print(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}", file=sys.stderr)
        raise SystemExit(1)
    return done.stdout


def as_row(heard: Heard) -> dict[str, float | None]:
    """Return what goes into the JSON report."""
    return asdict(heard)
