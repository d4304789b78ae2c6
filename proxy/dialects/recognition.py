"""Recognises a model server by its answers to a few harmless questions. Pure: `proxy.adapters.survey` asks them.

Every question reads: a GET or OPTIONS, and the one POST by which the Open Inference Protocol lists its repository. A
path that takes POST is asked with GET: 405 says that it is there, and nothing is computed. Families are named in the
order in which they should be preferred, for some servers speak two: KServe v1 and v2, vLLM also `/invocations`.

Not guaranteed: that a server which answers like a family is one. What a server says of itself is text from outside:
whatever is not printable is dropped here, so that it can be shown and written.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

MAX_MODELS = 64  # of one server that are looked at
MAX_ID = 256  # characters of a model's name in a server's list
MAX_SOFTWARE = 64  # characters of what a server calls itself

_PRINTABLE = re.compile(r"[!-~]+(?: [!-~]+)*")
_VERSION = re.compile(r"[0-9]+\.[0-9]+[0-9A-Za-z.+-]{0,32}\s*")


@dataclass(frozen=True, slots=True)
class Question:
    """One request; its path is relative to the server's address."""

    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer, as far as it was read."""

    status: int
    body: bytes


Answers = Mapping[Question, Seen]

OIP_SERVER = Question("GET", "/v2")
OIP_INDEX = Question("POST", "/v2/repository/index", b"{}")
OIP_MODELS = Question("GET", "/v2/models")  # KServe's list
V1_MODELS = Question("GET", "/v1/models")  # KServe's list, OpenAI's list, and what TF Serving complains about
CHAT = Question("GET", "/v1/chat/completions")
COMPLETIONS = Question("GET", "/v1/completions")
EMBEDDINGS = Question("GET", "/v1/embeddings")
DESCRIPTION = Question("OPTIONS", "/")  # TorchServe's list of its paths
INVOCATIONS = Question("GET", "/invocations")
VERSION = Question("GET", "/version")
HEALTH = Question("GET", "/health")
PING = Question("GET", "/ping")

QUESTIONS = (
    OIP_SERVER,
    OIP_INDEX,
    OIP_MODELS,
    V1_MODELS,
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    DESCRIPTION,
    INVOCATIONS,
    VERSION,
    HEALTH,
    PING,
)


@dataclass(frozen=True, slots=True)
class Family:
    """What a server speaks. `models` in its own words; empty: it does not say. `waiting` are listed and not ready."""

    dialect: str
    software: str = ""
    models: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input of a model; -1 in its shape is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def about(model: str) -> tuple[Question, Question]:
    """Return the questions about one model: the v2 and the v1 protocol's."""
    return Question("GET", f"/v2/models/{model}"), Question("GET", f"/v1/models/{model}")


def recognise(answers: Answers, named: Sequence[str] = ()) -> tuple[Family, ...]:
    """Return the families that a server speaks, the preferred one first.

    `named` are models whose questions (`about`) are among the answers: TF Serving lists none, but knows its own.
    """
    found = (_oip(answers), _openai(answers), _kserve(answers, named), _torchserve(answers), _mlflow(answers))
    return tuple(family for family in found if family is not None)


def listed(dialect: str, answers: Answers) -> Family:
    """Return what a server says of itself in a dialect that somebody else has chosen."""
    return next((family for family in recognise(answers) if family.dialect == dialect), Family(dialect))


def knows(dialect: str, model: str, answers: Answers) -> bool | None:
    """Say whether the server has a model; None: nobody can tell before asking it something."""
    question = {"oip-v2": about(model)[0], "kserve-v1": about(model)[1]}.get(dialect)
    if question is None:
        return None
    return _found(answers, question) is not None


def inputs(model: str, answers: Answers) -> tuple[Tensor, ...]:
    """Return the inputs that a model's metadata names; none where it names none or is not as the protocol says."""
    match _found(answers, about(model)[0]):
        case {"inputs": [*tensors]}:
            read = [_tensor(tensor) for tensor in tensors]
            return tuple(one for one in read if one is not None) if all(read) else ()
    return ()


# ── the families ────────────────────────────────────────────────────────────────────────────────────────────────


def _oip(answers: Answers) -> Family | None:
    """The Open Inference Protocol: server metadata has a name and a version (required response fields)."""
    match _found(answers, OIP_SERVER):
        case {"name": str(name), "version": version}:
            software = f"{name} {version}"
        case _:
            return None
    ready: list[object] = []
    waiting: list[object] = []
    match _found(answers, OIP_INDEX):
        case [*entries]:
            for entry in entries:
                if isinstance(entry, dict):
                    (ready if entry.get("state", "READY") == "READY" else waiting).append(entry.get("name"))
    match _found(answers, OIP_MODELS):
        case {"models": [*entries]}:
            ready += entries
    models = _ids(ready)
    return Family("oip-v2", _shown(software), models, tuple(one for one in _ids(waiting) if one not in models))


def _openai(answers: Answers) -> Family | None:
    """OpenAI's list of models, or its chat where a server has no list (LitServe)."""
    match _found(answers, V1_MODELS):
        case {"data": [*entries]}:
            return Family("openai", models=_ids(entry.get("id") for entry in entries if isinstance(entry, dict)))
    takes_post = any(_status(answers, question) == 405 for question in (CHAT, COMPLETIONS, EMBEDDINGS))
    return Family("openai") if takes_post else None


def _kserve(answers: Answers, named: Sequence[str]) -> Family | None:
    """KServe lists names, TF Serving refuses to list and says so; both know a model's state."""
    match _found(answers, V1_MODELS):
        case {"models": [*entries]} if all(isinstance(entry, str) for entry in entries):
            return Family("kserve-v1", "KServe", _ids(entries))
    match _json(answers.get(V1_MODELS)):
        case {"error": str(words)} if words.startswith("Malformed request: GET"):
            return Family("kserve-v1", "TF Serving")
    states = [_found(answers, about(model)[1]) for model in named]
    if any(isinstance(state, dict) and state.keys() & {"model_version_status", "ready"} for state in states):
        return Family("kserve-v1")
    return None


def _torchserve(answers: Answers) -> Family | None:
    """An OpenAPI description with its own path. Which models there are only the management port says."""
    match _found(answers, DESCRIPTION):
        case {"paths": {**paths}} if any(str(path).startswith("/predictions/") for path in paths):
            return Family("torchserve", "TorchServe")
    return None


def _mlflow(answers: Answers) -> Family | None:
    """Its version in plain text, and a path that takes POST: others that have the path say their version as JSON."""
    version = answers.get(VERSION)
    if version is None or version.status != 200 or _status(answers, INVOCATIONS) != 405:
        return None
    words = version.body.decode("latin-1")
    return Family("mlflow", f"MLflow {words.strip()}") if _VERSION.fullmatch(words) else None


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _status(answers: Answers, question: Question) -> int | None:
    seen = answers.get(question)
    return None if seen is None else seen.status


def _found(answers: Answers, question: Question) -> object:
    """Return what an answer of 200 says; None: nothing that can be read."""
    return _json(answers.get(question)) if _status(answers, question) == 200 else None


def _json(seen: Seen | None) -> object:
    if seen is None:
        return None
    try:
        return msgspec.json.decode(seen.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _ids(names: Iterable[object]) -> tuple[str, ...]:
    """Return the names that can be shown and written, each once, in their order."""
    good = [name for name in names if isinstance(name, str) and _is_plain(name)]
    return tuple(dict.fromkeys(good))[:MAX_MODELS]


def _is_plain(text: str) -> bool:
    return len(text) <= MAX_ID and _PRINTABLE.fullmatch(text) is not None


def _shown(text: str) -> str:
    return " ".join(_PRINTABLE.findall(text))[:MAX_SOFTWARE]


def _tensor(value: object) -> Tensor | None:
    match value:
        case {"name": str(name), "datatype": str(datatype), "shape": [*shape]} if all(type(n) is int for n in shape):
            return Tensor(name, datatype, tuple(shape)) if _is_plain(name) and _is_plain(datatype) else None
    return None
