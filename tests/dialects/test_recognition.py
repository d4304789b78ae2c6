"""Which family a server is of: by what real ones have answered (tests/servers/recorded), by what others document."""

import json

import pytest

from proxy.dialects import recognition as seen
from proxy.dialects.recognition import Family, Question, Seen, Tensor, about, inputs, knows, listed, recognise
from tests.servers.asking import recorded

V2, V1 = about("digits")


def answered(*answers: tuple[Question, int, object]) -> dict[Question, Seen]:
    return {
        question: Seen(status, body.encode() if isinstance(body, str) else json.dumps(body).encode())
        for question, status, body in answers
    }


def what_a_real_one_said(server: str) -> dict[Question, Seen]:
    """The recorded answers to our questions; what was not recorded is as the server answers unknown paths."""
    known = {(entry.question.method, entry.question.path): entry.answer for entry in recorded(server).values()}
    unknown = recorded(server)["unknown_path"].answer
    answers = {}
    for question in (*seen.QUESTIONS, V2):
        answer = known.get((question.method, question.path), unknown)
        answers[question] = Seen(answer.status, answer.body)
    return answers


@pytest.mark.parametrize(
    ("server", "family"),
    [
        ("mlserver", Family("oip-v2", "mlserver 1.7.1", ("digits",))),
        ("triton", Family("oip-v2", "triton 2.51.0", ("digits",))),
        ("mlflow", Family("mlflow", "MLflow 3.17.2")),
    ],
)
def test_real_servers_are_recognised(server, family):
    assert recognise(what_a_real_one_said(server)) == (family,)


def test_triton_says_its_inputs_and_mlserver_does_not():
    assert inputs("digits", what_a_real_one_said("triton")) == (Tensor("x", "FP32", (-1, 64)),)
    assert inputs("digits", what_a_real_one_said("mlserver")) == ()


VLLM = answered(
    (seen.V1_MODELS, 200, {"object": "list", "data": [{"id": "/models/llama-3-8b.gguf", "object": "model"}]}),
    (seen.CHAT, 405, {"detail": "Method Not Allowed"}),
    (seen.INVOCATIONS, 405, {"detail": "Method Not Allowed"}),
    (seen.VERSION, 200, {"version": "0.11.0"}),
    (seen.PING, 200, ""),
)
KSERVE = answered(
    (seen.OIP_SERVER, 200, {"name": "kserve", "version": "0.15", "extensions": []}),
    (seen.OIP_INDEX, 404, {"detail": "Not Found"}),
    (seen.OIP_MODELS, 200, {"models": ["digits", "iris"]}),
    (seen.V1_MODELS, 200, {"models": ["digits", "iris"]}),
)
OTHERS = [
    ("vLLM, which has a path of MLflow's too", VLLM, (), [("openai", ("/models/llama-3-8b.gguf",))]),
    ("LitServe, which lists nothing", answered((seen.CHAT, 405, {})), (), [("openai", ())]),
    ("KServe, which speaks both", KSERVE, (), [("oip-v2", ("digits", "iris")), ("kserve-v1", ("digits", "iris"))]),
    (
        "TF Serving, which refuses to list",
        answered((seen.V1_MODELS, 400, {"error": "Malformed request: GET /v1/models"})),
        (),
        [("kserve-v1", ())],
    ),
    (
        "TF Serving, asked about a model by name",
        answered((V1, 200, {"model_version_status": [{"version": "1", "state": "AVAILABLE"}]})),
        ("digits",),
        [("kserve-v1", ())],
    ),
    (
        "TorchServe",
        answered((seen.DESCRIPTION, 200, {"openapi": "3.0.1", "paths": {"/predictions/{model_name}": {}}})),
        (),
        [("torchserve", ())],
    ),
]


@pytest.mark.parametrize(("answers", "named", "found"), [o[1:] for o in OTHERS], ids=[o[0] for o in OTHERS])
def test_documented_answers_are_recognised(answers, named, found):
    assert [(family.dialect, family.models) for family in recognise(answers, named)] == found


NOBODY = [
    ("nothing", {}),
    ("a web site", answered((seen.OIP_SERVER, 200, "<html>"), (seen.V1_MODELS, 200, "<html>"))),
    ("metadata without a version", answered((seen.OIP_SERVER, 200, {"name": "x"}))),
    ("a version and no /invocations", answered((seen.VERSION, 200, "1.2.3"), (seen.INVOCATIONS, 404, ""))),
    ("an /invocations and a version in JSON", answered((seen.VERSION, 200, {"v": 1}), (seen.INVOCATIONS, 405, ""))),
    ("everything forbidden", answered(*((question, 401, {}) for question in seen.QUESTIONS))),
    ("a health alone", answered((seen.HEALTH, 200, "ok"), (seen.PING, 200, {"status": "Healthy"}))),
    ("JSON without an end", {seen.OIP_SERVER: Seen(200, b"[" * 100_000)}),
    ("not UTF-8", {seen.OIP_SERVER: Seen(200, b'{"name":"\xff","version":"1"}')}),
    ("models that are no names", answered((seen.V1_MODELS, 200, {"models": [1, None]}))),
    ("paths of another server", answered((seen.DESCRIPTION, 200, {"paths": {"/predict": {}}}))),
]


@pytest.mark.parametrize("answers", [n[1] for n in NOBODY], ids=[n[0] for n in NOBODY])
def test_nobody_else_is(answers):
    assert recognise(answers) == ()


def test_what_is_listed_and_not_ready_is_told_apart():
    index = [{"name": "digits", "state": "READY"}, {"name": "iris", "state": "UNAVAILABLE"}, {"name": "old"}]
    answers = answered((seen.OIP_SERVER, 200, {"name": "triton", "version": "2"}), (seen.OIP_INDEX, 200, index))
    assert recognise(answers) == (Family("oip-v2", "triton 2", ("digits", "old"), ("iris",)),)


def test_names_that_cannot_be_shown_are_dropped_and_lists_have_an_end():
    hostile = ["\x1b[2J", "a\nb", "", "x" * 257, 7, "good", "good"]
    answers = answered((seen.V1_MODELS, 200, {"data": [{"id": name} for name in hostile]}))
    assert listed("openai", answers).models == ("good",)
    many = answered((seen.V1_MODELS, 200, {"data": [{"id": f"m{number}"} for number in range(1000)]}))
    assert len(listed("openai", many).models) == seen.MAX_MODELS
    spoken = answered((seen.OIP_SERVER, 200, {"name": "\x1b]0;x\x07mlserver", "version": "1" * 100}))
    assert recognise(spoken)[0].software.isprintable()
    assert len(recognise(spoken)[0].software) <= seen.MAX_SOFTWARE


@pytest.mark.parametrize(("name", "datatype"), [("x\x1b]0;y\x07", "FP32"), ("x", "FP32\nnext:"), ("", "FP32")])
def test_inputs_that_cannot_be_shown_are_none(name, datatype):
    metadata = {"name": "digits", "inputs": [{"name": name, "datatype": datatype, "shape": [-1, 4]}]}
    assert inputs("digits", answered((V2, 200, metadata))) == ()


def test_whether_a_model_is_there_is_only_said_where_the_server_says_it():
    answers = answered((V2, 200, {"name": "digits"}), (V1, 404, {}))
    assert knows("oip-v2", "digits", answers) is True
    assert knows("kserve-v1", "digits", answers) is False
    assert knows("mlflow", "digits", answers) is None
    assert listed("torchserve", answers) == Family("torchserve")


def test_every_question_only_reads():
    """One POST, which lists; everything else is a method that RFC 9110 section 9.2.1 calls safe."""
    posts = [question for question in seen.QUESTIONS if question.method == "POST"]
    assert posts == [Question("POST", "/v2/repository/index", b"{}")]
    assert {question.method for question in seen.QUESTIONS} == {"GET", "OPTIONS", "POST"}
