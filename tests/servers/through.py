"""`hip serve` before a real server: the policy, the tokens, and a scanner that shares no code with the proxy."""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from proxy.demo.identity import AUDIENCE, DemoIdentityProvider
from tests.hip import Hip, hip_serve
from tests.servers.asking import Answer
from tests.servers.questions import Question
from tests.servers.running import RunningServer

DECIMALS = 2

POLICY = """\
version: v1
issuers:
  corp:
    issuer: {issuer}
    audience: {audience}
    jwks_file: ../jwks.json
    algorithms: [ES256, EdDSA]
    roles_claim: realm_access.roles
upstreams:
  server: {{url: {url}, dialect: {dialect}}}
models:
  digits: {{upstream: server}}
budgets:
  plenty: [100000 requests/minute]
outputs:
  coarse: {{decimals: {decimals}}}
rules:
  - id: analysts
    allow: {{roles: [analyst], actions: [infer, metadata, health], models: [digits]}}
    budget: plenty
    output: coarse
"""

# What no answer may hold: a place in a file system, a traceback, the name or version of a piece of software.
_LEAKS = (
    re.compile(r"(?:/[A-Za-z0-9._-]+){3,}|[A-Za-z]:\\\\|site-packages|\.py\b|line \d+"),
    re.compile(r"traceback|exception|\b[A-Z][A-Za-z]*Error\b", re.IGNORECASE),
    re.compile(
        r"mlserver|triton|mlflow|litserve|seldon|sklearn|scikit|numpy|pandas|onnx|uvicorn|starlette|fastapi|pydantic|"
        r"python|httptools|nvidia",
        re.IGNORECASE,
    ),
    re.compile(r"\b\d+\.\d+\.\d+\b"),
)
_NUMBER = re.compile(r"(?<![\w-])-?\d+(?:\.(\d+))?(?:[eE][+-]?\d+)?(?![\w-])")  # not the digits of an id


@dataclass(frozen=True, slots=True)
class Through:
    """A real server behind a real proxy."""

    server: RunningServer
    hip: Hip
    identity: DemoIdentityProvider

    def token(self, *roles: str, **changes: object) -> str:
        return self.identity.token("alice", roles or ("analyst",), **changes)  # type: ignore[arg-type]

    @contextmanager
    def client(self, token: str | None = None) -> Iterator[httpx.Client]:
        headers = {"authorization": f"Bearer {token or self.token()}"}
        trust: ssl.SSLContext = self.hip.trust()
        with httpx.Client(base_url=self.hip.url, verify=trust, headers=headers, trust_env=False, timeout=30) as http:
            yield http


@contextmanager
def hip_before(server: RunningServer, dialect: str, directory: Path) -> Iterator[Through]:
    """Put the proxy before a server, with a policy that rounds."""
    identity = DemoIdentityProvider(port=1)  # never started: its keys are read from a file
    directory.mkdir(exist_ok=True)
    (directory / "jwks.json").write_bytes(identity.jwks())
    policy = POLICY.format(
        issuer=identity.issuer, audience=AUDIENCE, url=server.url, dialect=dialect, decimals=DECIMALS
    )
    with hip_serve(directory, policy) as hip:
        yield Through(server, hip, identity)


def ask_through(http: httpx.Client, question: Question) -> Answer:
    """Send a recorded question through the proxy, byte for byte."""
    response = http.request(question.method, question.path, content=question.body, headers=dict(question.headers))
    return Answer(response.status_code, tuple(response.headers.multi_items()), response.content)


def leaks(answer: Answer, decimals: int = DECIMALS, known: Mapping[str, str] | None = None) -> list[str]:
    """Return everything in an answer that should not be there. `known` headers are ours."""
    ours = {"date", "content-length", "cache-control", "ratelimit", "ratelimit-policy", "x-content-type-options"}
    body = answer.body.decode("utf-8", "replace")
    headers = "\n".join(f"{name}: {value}" for name, value in answer.headers if name.lower() not in ours)
    found = [match[0] for text in (headers, body) for pattern in _LEAKS for match in pattern.finditer(text)]
    for match in _NUMBER.finditer(body):
        if len(match[1] or "") > decimals or "e" in match[0].lower():
            found.append(match[0])
    return found
