"""What `hip init` says: what was found, what is open and closed now, and the commands that come next."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.dialects.recognition import CHAT, Answers, Family, Tensor, inputs

MAX_NUMBERS = 4096  # of a first request
MAX_SHOWN = 8  # models that are named; the rest is counted

_NUMBERS = {"BOOL", *(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)), "FP16", "FP32", "FP64"}


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """A request that the new policy allows. `body` None: it is a GET."""

    path: str
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that there is to say."""

    directory: Path
    upstream: str
    family: Family
    models: Mapping[str, str]
    left: Sequence[str]
    others: Sequence[str]
    answers: Answers
    plaintext: bool
    role: str
    development: bool
    port: int
    files: Sequence[str]
    kept: Sequence[str]
    tests: int
    request: FirstRequest

    def as_json(self) -> dict[str, object]:
        """Return it for a program."""
        return {
            "upstream": self.upstream,
            "dialect": self.family.dialect,
            "software": self.family.software,
            "models": dict(self.models),
            "inputs": {
                name: [_shape(tensor) for tensor in inputs(own, self.answers)] for name, own in self.models.items()
            },
            "not_ready": list(self.family.waiting),
            "left_out": list(self.left),
            "other_dialects": list(self.others),
            "directory": str(self.directory),
            "files": list(self.files),
            "kept": list(self.kept),
            "tests": self.tests,
            "next": [command for _, command in commands(self)],
        }


def first_request(dialect: str, models: Mapping[str, str], answers: Answers) -> FirstRequest:
    """Return the request that says most about the first model without knowing what it is for."""
    name, own = next(iter(models.items()))
    match dialect:
        case "oip-v2":
            body = _zeros(inputs(own, answers))
            return FirstRequest(f"/v2/models/{name}/infer", body) if body else FirstRequest(f"/v2/models/{name}")
        case "kserve-v1":
            return FirstRequest(f"/v1/models/{name}")
        case "openai":
            chat = answers.get(CHAT)
            if chat is None or chat.status != 405:
                return FirstRequest("/v1/models")
            message = {"role": "user", "content": "Say hello."}
            return FirstRequest("/v1/chat/completions", json.dumps({"model": name, "messages": [message]}))
    return FirstRequest("/ping")


def generic_help(upstream: str) -> str:
    """Return how a server is described that no dialect knows."""
    return (
        "describe it. The dialect `generic` reads JSON where you say the rows and the scores are, and\n"
        "nothing else passes; hip cannot guess that. Begin with policies/ of the repository, and write:\n\n"
        "  upstreams:\n"
        "    server:\n"
        f"      url: {upstream}\n"
        "      dialect: generic\n"
        "      generic: {infer: /classify, rows: /inputs, scores: [/results/*/scores], labels: [/results/*/label]}\n\n"
        "docs/dialects.md explains each word; `hip check` says what is wrong with it."
    )


def lines(told: Told) -> Iterator[str]:
    """Yield it for a person."""
    family, count = told.family, len(told.models)
    software = f" ({family.software})" if family.software else ""
    yield f"{told.upstream} speaks {family.dialect}{software}, {count} model{'' if count == 1 else 's'}:"
    for name, own in [*told.models.items()][:MAX_SHOWN]:
        tensors = ", ".join(_shape(tensor) for tensor in inputs(own, told.answers))
        served = f", which the server calls {own}" if own != name else ""
        yield f"  {name}{served}" + (f"  takes {tensors}" if tensors else "")
    if count > MAX_SHOWN:
        yield f"  and {count - MAX_SHOWN} more"
    if not family.models:
        yield "  (the server lists none: the name is the policy's own, 20-models.yaml)"
    if family.waiting:
        yield f"  not ready, so left out: {', '.join(family.waiting)}"
    if told.left:
        yield f"  left out, since no policy can name them: {', '.join(told.left)}"
    if told.others:
        yield f"  it also speaks {', '.join(told.others)}, which stays closed; --dialect NAME takes that instead"
    yield f"\nwritten to {told.directory}:"
    yield from (f"  {name}" for name in told.files if name not in told.kept)
    if told.kept:
        yield f"  kept as they were: {', '.join(told.kept)}"
    yield f"\nopen:    role {told.role}, signed in with two factors within 8 h: infer, metadata, health,"
    yield "         under a budget, answers with two decimals and three classes"
    yield "closed:  every caller without a token, every other role, model and path, streams, and all management"
    yield f"checked: {told.tests} tests of policies/tests pass"
    if told.plaintext:
        yield f"beware:  plain HTTP to {told.upstream}: everyone on the way reads and writes along"
    yield "beware:  whoever reaches the server without the proxy is not held back by it: bind it to 127.0.0.1, or to a"
    yield "         network that only the proxy reaches"
    if told.development:
        yield "beware:  the certificates and the issuer are for development: the keys lie beside the rest"
    yield "\nnext:"
    for remark, command in commands(told):
        yield f"  # {remark}"
        yield f"  {command}"


def commands(told: Told) -> Iterator[tuple[str, str]]:
    """Yield the next commands, each with what it is for."""
    place = shlex.quote(str(told.directory))
    token = f"$(hip token {place} --role {shlex.quote(told.role)})" if told.development else "…"
    url = f"https://localhost:{told.port or 'PORT'}{told.request.path}"
    data = (
        f" -H 'Content-Type: application/json' --data @{shlex.quote(str(told.directory / 'first-request.json'))}"
        if told.request.body is not None
        else ""
    )
    ca = shlex.quote(str(told.directory / "certs/ca.crt"))
    yield "whenever a file of the policy has changed", f"hip check {place}/policies"
    yield "serve; Ctrl-C ends it", f"hip serve --config {shlex.quote(str(told.directory / 'hip.yaml'))}"
    yield "in another terminal: a token" + ("" if told.development else " of your provider"), f"TOKEN={token}"
    yield "ask through the proxy", f'curl --cacert {ca} -H "Authorization: Bearer $TOKEN"{data} {url}'
    yield "without a token: 401", f"curl --cacert {ca}{data} {url}"
    model = next(iter(told.models))
    yield (
        "once you have a file of ordinary inputs: a detector for the others",
        f"hip detector fit inputs.csv -o {place}/policies/{model}.onnx --model {model}",
    )


def _shape(tensor: Tensor) -> str:
    return f"{tensor.name}: {tensor.datatype} [{', '.join(map(str, tensor.shape))}]"


def _zeros(tensors: Sequence[Tensor]) -> str | None:
    """Return a request of one row of zeros; None: the metadata says too little, or too much."""
    if not tensors or any(tensor.datatype not in _NUMBERS for tensor in tensors):
        return None
    shapes = [[max(size, 1) for size in tensor.shape] for tensor in tensors]
    if sum(map(math.prod, shapes)) > MAX_NUMBERS:
        return None
    given = [
        {
            "name": tensor.name,
            "shape": shape,
            "datatype": tensor.datatype,
            "data": [False if tensor.datatype == "BOOL" else 0] * math.prod(shape),
        }
        for tensor, shape in zip(tensors, shapes, strict=True)
    ]
    return json.dumps({"inputs": given})
